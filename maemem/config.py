"""Every field that a config has, its default and its meaning.

An experiment in `configs/` starts from `pretraining()`, `segmenting()` or `everything()` and
changes what it wants.
"""

from __future__ import annotations

import dataclasses
import re
from typing import Any, Literal, TypeAlias

from ml_collections import ConfigDict

from maemem.data.samples.augment import KINDS, Augmentation
from maemem.fields import section
from maemem.geometry import Zyx
from maemem.layout import WORKDIR
from maemem.learners import LEARNERS
from maemem.learners.mae import MaskedReconstruction
from maemem.learners.supervised import Supervised
from maemem.learners.targets import TARGETS
from maemem.learners.targets.affinity import Affinity, Mutex, Waterz
from maemem.learners.targets.bcd import Bcd, Markers
from maemem.learners.targets.contract import Decoder
from maemem.models.encoders import ENCODERS
from maemem.models.encoders.residual import Residual
from maemem.models.encoders.vit import VIT_SIZES, Vit
from maemem.models.segmenters import SEGMENTERS
from maemem.models.segmenters.unet import Unet
from maemem.models.segmenters.unetr import Unetr
from maemem.scores import registry
from maemem.training.fit import Training
from maemem.training.optimizer import Optimizer

# A ConfigDict. Type checkers cannot follow its fields; that all of them exist is what its lock and
# the tests of the configs are for.
Config: TypeAlias = Any

# What a restart may change: it says where and how a run is computed, not what.
RUNTIME_FIELDS = (
    *("stages", "runtime", "data.root"),
    *("predict.batch_size", "predict.memory_bytes"),
)

# What an empty data.intensity_range means; volumes of other dtypes must name theirs.
UINT8_RANGE = (0.0, 255.0)


@dataclasses.dataclass(frozen=True)
class VolumeEntry:
    """A volume of a data set.

    Attributes:
      path: a store (zarr 2, zarr 3, N5, precomputed; a folder or a URL); or a TIFF, a folder of
        sections, an npy or `file.h5:/dataset`, which is converted once; or
        `synthetic:?shape_zyx=64,256,256&voxel_size_nm=30,6,6&seed=0`. Relative to `data.root`.
      labels: its instances, a volume of the same shape, or `synthetic:…&show=neurites`; 0 is
        background. Empty: it has none. Learning without labels never looks at them.
      unlabelled: the id of voxels that nobody labelled; -1: all are, but for those with negative
        ids, which always count as unlabelled.
      voxel_size_nm: z, y, x; empty: as the volume itself says.
      region: the part to use, in voxels, such as `"0:120, :, :"`; empty: all of it.
      scored: the part of it that scores count, in voxels of the whole; empty: all of `region`.
      weight: its share of the crops, relative to the other volumes of its set.
    """

    path: str = ""
    labels: str = ""
    unlabelled: int = -1
    voxel_size_nm: tuple[()] | tuple[float, float, float] = ()
    region: str = ""
    scored: str = ""
    weight: float = 1.0


@dataclasses.dataclass(frozen=True)
class Predict:
    """How volumes are predicted.

    Attributes:
      network: a fine-tuning workdir, a checkpoint of it, or a model folder.
      window_zyx: what the network sees at once, in voxels.
      stride_zyx: from one window to the next, in voxels.
      batch_size: windows at once.
      views: averaged over: "one", "flips" (4), "turns" (8), "all".
      dtype: of the prediction on disk.
      memory_bytes: about what is held at once.
    """

    network: str = WORKDIR
    window_zyx: Zyx = (6, 96, 96)
    stride_zyx: Zyx = (3, 48, 48)
    batch_size: int = 16
    views: Literal["one", "flips", "turns", "all"] = "flips"
    dtype: Literal["uint8", "float16", "float32"] = "uint8"
    memory_bytes: int = 1 << 30

    def __post_init__(self):
        check_voxels("window_zyx", self.window_zyx)
        check_voxels("stride_zyx", self.stride_zyx)
        if any(s > w for s, w in zip(self.stride_zyx, self.window_zyx, strict=True)):
            raise ValueError(
                f"stride_zyx is {self.stride_zyx}; expected: no longer than window_zyx "
                f"{self.window_zyx}"
            )
        if self.batch_size < 1:
            raise ValueError(f"batch_size is {self.batch_size}; expected: at least 1")
        if "://" in self.network:
            raise ValueError(
                f"network is {self.network!r}; expected: a folder, not a URL; copy it to one"
            )


@dataclasses.dataclass(frozen=True)
class Runtime:
    """Where and how a run is computed; none of it changes what is computed.

    Attributes:
      remat: recompute activations in the backward pass, to save memory.
      fsdp: split parameters and optimizer state over the devices.
      cache_bytes: of decoded chunks, shared by all volumes.
      read_threads: batches read at the same time.
      prefetch: batches read ahead.
      workers: who predicts and segments the blocks of a volume. Empty: this process. "threads:4":
        this process, so many at a time, to keep a GPU busy that predicts. "local:4": so many
        processes on this machine. "slurm:20": so many SLURM jobs, set up in Dask's own
        configuration. "tcp://HOST:PORT": the workers of a Dask scheduler that is running.
    """

    remat: bool = False
    fsdp: bool = False
    cache_bytes: int = 1 << 30
    read_threads: int = 2
    prefetch: int = 8
    workers: str = ""

    def __post_init__(self):
        if self.read_threads < 1:
            raise ValueError(f"read_threads is {self.read_threads}; expected: at least 1")
        known = r"((threads|local|slurm):[1-9]\d*|(tcp|tls)://.+)?"
        if not re.fullmatch(known, self.workers):
            raise ValueError(
                f"workers is {self.workers!r}; expected: empty, threads:N, local:N, slurm:N, or "
                f"the address of a Dask scheduler, tcp://HOST:PORT"
            )


@dataclasses.dataclass(frozen=True)
class Segment:
    """How predictions become objects, beside `segment.decoder` and `segment.grid`.

    Attributes:
      smallest: objects of fewer voxels are removed.
      block_zyx: worked on at once, about, in voxels; smaller takes less memory.
      halo_zyx: how far a block sees around itself, in voxels. With less than the half-width of what
        is segmented, watersheds decide otherwise than in the whole, and join what is apart.
      select_by: the column of a score that thresholds are chosen by: "adapted_rand", "voi", "ap75";
        see `maemem.scores`.
      baselines: segmented and scored beside it: "fragments", which waterz put it together from, and
        "intensity", affinities made of the raw grey values, tuned in the same way.
    """

    smallest: int = 128
    block_zyx: Zyx = (64, 256, 256)
    halo_zyx: Zyx = (16, 32, 32)
    select_by: str = "adapted_rand"
    baselines: tuple[Literal["fragments", "intensity"], ...] = ()

    def __post_init__(self):
        check_voxels("block_zyx", self.block_zyx)
        check_voxels("halo_zyx", self.halo_zyx)


def check_voxels(name: str, shape_zyx: Any) -> None:
    """Raises ValueError unless these are three positive whole numbers."""
    whole = [isinstance(n, int) and not isinstance(n, bool) and n > 0 for n in shape_zyx]
    if whole != [True] * 3:
        raise ValueError(f"{name} is {shape_zyx}; expected: three positive whole numbers z, y, x")


def volume(path: str, **fields: Any) -> Config:
    """The section of a volume; see `VolumeEntry`."""
    return section(VolumeEntry, path=path, **fields)


def vit(size: str | None = None, **fields: Any) -> Config:
    """The section of a vision transformer of a size by name, see `models.encoders.vit`."""
    named = VIT_SIZES[size] if size else {}
    return section(Vit, ENCODERS, **(named | fields))


def unet(patch_zyx: Zyx, channels: tuple[int, ...]) -> Config:
    """The section `model` of a residual U-Net, see `models.segmenters.unet`."""
    encoder = section(Residual, ENCODERS, patch_zyx=patch_zyx, channels=channels)
    decoder = section(Unet, SEGMENTERS, channels=channels)
    return ConfigDict({"encoder": encoder, "segmenter": decoder, "dtype": "auto"})


def pretraining() -> Config:
    """Pre-training as in Cheng et al. (2023), without volumes."""
    config = _common()
    config.stages = ("pretrain",)
    _add_pretraining(config)
    return config


def segmenting() -> Config:
    """Fine-tuning to affinities, and all stages after it, as in Cheng et al. (2023)."""
    config = _common()
    config.stages = ("finetune", "predict", "segment", "evaluate", "report")
    _add_segmentation(config)
    return config


def everything() -> Config:
    """All stages in one workdir: fine-tuning starts from the encoder pre-trained there."""
    config = _common()
    config.stages = ("pretrain", "finetune", "predict", "segment", "evaluate", "report")
    _add_pretraining(config)
    _add_segmentation(config)
    config.finetune.encoder = WORKDIR
    return config


def _common() -> Config:
    config: Config = ConfigDict()
    config.stages = ()  # What to run, in this order.
    config.seed = 0  # Of the parameters, the crops, the masks and the augmentation.

    config.data = ConfigDict()
    config.data.root = ""  # The folder that relative volume paths start from.
    config.data.train = ConfigDict()  # The volumes to learn from, by name; see `volume`.
    config.data.validation = ConfigDict()  # Held out: evaluations, and the tuning of thresholds.
    config.data.test = ConfigDict()  # Predicted and scored, once thresholds are frozen.
    # Voxels that become one as volumes are read: their mean, or of labels the most frequent id.
    # All that counts voxels counts these; only a volume's voxel_size_nm is that of its own voxels.
    config.data.bin_zyx = (1, 1, 1)
    config.data.crop_zyx = (6, 96, 96)  # What a network sees at once, in voxels.
    config.data.intensity_range = ()  # Raw intensities that become −1 and 1; (): `UINT8_RANGE`.

    config.model = ConfigDict()
    config.model.encoder = vit("base")
    config.model.segmenter = section(Unetr, SEGMENTERS)
    config.model.dtype = "auto"  # Of compute. auto: bfloat16 on GPU and TPU, float32 on CPU.

    config.runtime = section(Runtime)
    return config


def adamw(learning_rate: float, warmup_steps: int, weight_decay: float, **fields: Any) -> Config:
    """AdamW (Loshchilov & Hutter 2019); see `training.optimizer.Optimizer`."""
    return _optimizer("adamw", learning_rate, warmup_steps, weight_decay, **fields)


def sgd(learning_rate: float, warmup_steps: int, weight_decay: float, **fields: Any) -> Config:
    """SGD with momentum; see `training.optimizer.Optimizer`."""
    return _optimizer("sgd", learning_rate, warmup_steps, weight_decay, **fields)


def _optimizer(
    name: str, learning_rate: float, warmup_steps: int, weight_decay: float, **fields: Any
) -> Config:
    return section(
        Optimizer,
        name=name,
        learning_rate=learning_rate,
        warmup_steps=warmup_steps,
        weight_decay=weight_decay,
        **fields,
    )


def _add_pretraining(config: Config) -> None:
    config.pretrain = section(Training, optimizer=adamw(1e-4, 100_000, 0.0))
    config.pretrain.augmentation = no_augmentation()
    config.pretrain.learner = section(MaskedReconstruction, LEARNERS)


def _add_segmentation(config: Config) -> None:
    config.target = affinity()

    config.finetune = section(
        Training, steps=150_000, batch_size=16, optimizer=sgd(0.02, 5_000, 1e-4)
    )
    config.finetune.augmentation = augmentation()
    config.finetune.learner = section(Supervised, LEARNERS)
    config.predict = section(Predict)
    config.predict.window_zyx = config.data.get_oneway_ref("crop_zyx")

    config.segment = waterz()

    config.evaluate = registry.options()  # Of each score in `maemem/scores` that has any.


def affinity(**changes: Any) -> Config:
    """The target of dense neurites; see `learners.targets.affinity`."""
    return section(Affinity, TARGETS, **changes)


def bcd(**changes: Any) -> Config:
    """The target of mitochondria and other instances; see `learners.targets.bcd`."""
    return section(Bcd, TARGETS, **changes)


def waterz(**changes: Any) -> Config:
    """Segmentation of affinities; see `learners.targets.affinity.Waterz`."""
    return _segmentation(Waterz(**changes, target=Affinity()), Affinity)


def mutex(**changes: Any) -> Config:
    """Segmentation of long-range affinities; see `learners.targets.affinity.Mutex`."""
    return _segmentation(Mutex(**changes, target=Affinity("lee")), Affinity)


def markers(distance: bool = True, **changes: Any) -> Config:
    """Segmentation of BCD, or of BC without distance; see `learners.targets.bcd.Markers`."""
    return _segmentation(Markers(**changes, target=Bcd(distance)), Bcd)


def _segmentation(decoder: Decoder, target: type) -> Config:
    config = section(Segment)
    config.decoder = section(decoder, target.decoders)
    config.grid = ConfigDict(decoder.grid())  # All combinations are tried on the validation set.
    return config


def augmentation(**changes: Any) -> Config:
    """Augmentation of serial sections; see `maemem.data.samples.augment.Augmentation`."""
    return section(Augmentation, **changes)


def isotropic_augmentation() -> Config:
    """Augmentation of block-face volumes, whose sections are neither lost nor shifted."""
    of_sections = ("translation", "slip", "missing_section", "blurred_section", "by_section")
    return augmentation(
        warp_voxels_zyx=(4.0, 4.0, 4.0),
        warp_spacing_zyx=(24.0, 24.0, 24.0),
        **dict.fromkeys(of_sections, 0.0),
    )


def no_augmentation() -> Config:
    """Crops as they are."""
    return augmentation(flip=False, **dict.fromkeys(KINDS, 0.0))
