"""Every field that a config has, its default and its meaning.

An experiment in `configs/` starts from `pretraining()`, `segmenting()` or `everything()` and
changes what it wants.
"""

from __future__ import annotations

from typing import Any, TypeAlias

from ml_collections import ConfigDict

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

# In a path of a config, this stands for the workdir of the run itself.
WORKDIR = "{workdir}"


def volume(
    path: str,
    *,
    labels: str = "",
    unlabelled: int = -1,
    voxel_size_nm: tuple[float, ...] = (),
    region: str = "",
    scored: str = "",
    weight: float = 1.0,
) -> Config:
    """A volume of a data set.

    Args:
      path: a store (zarr 2, zarr 3, N5, precomputed; a folder or a URL); or a TIFF, a folder of
        sections, an npy or `file.h5:/dataset`, which is converted once; or
        `synthetic:?shape_zyx=64,256,256&voxel_size_nm=30,6,6&seed=0`. Relative to `data.root`.
      labels: its instances, a volume of the same shape, or `synthetic:…&show=neurites`; 0 is
        background. Empty: it has none. Pre-training never looks at them.
      unlabelled: the id of voxels that nobody labelled; -1: all are, but for those with negative
        ids, which always count as unlabelled.
      voxel_size_nm: z, y, x; empty: as the volume itself says.
      region: the part to use, in voxels, such as `"0:120, :, :"`; empty: all of it.
      scored: the part of it that scores count, in voxels of the whole; empty: all of `region`.
      weight: its share of the crops, relative to the other volumes of its set.
    """
    return ConfigDict(
        {
            "path": path,
            "labels": labels,
            "unlabelled": unlabelled,
            "voxel_size_nm": voxel_size_nm,
            "region": region,
            "scored": scored,
            "weight": weight,
        }
    )


def transformer(width: int, depth: int, heads: int) -> Config:
    """A transformer's size: the tokens' width, blocks, attention heads."""
    return ConfigDict({"width": width, "depth": depth, "heads": heads})


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
    config.model.patch_zyx = (1, 16, 16)  # In voxels; the crop is a multiple.
    config.model.encoder = transformer(768, 12, 12)
    config.model.rotary = False  # Rotary position embedding on top of sin-cos.
    # For an encoder that starts from 2-D weights: how many places they know along y and x, (14, 14)
    # for 224 pixels in patches of 16. (): none; places are sin-cos, as Cheng et al. (2023) have it.
    config.model.plane_yx = ()
    # How kernels of 2-D weights become those of patches of several sections: "centre" (in the
    # middle one) or "average" (a part in each).
    config.model.inflation = "centre"
    config.model.dtype = "auto"  # Of compute. auto: bfloat16 on GPU and TPU, float32 on CPU.

    config.runtime = ConfigDict()
    config.runtime.remat = False  # Recompute activations in the backward pass, to save memory.
    config.runtime.fsdp = False  # Split parameters and optimizer state over the devices.
    config.runtime.cache_bytes = 1 << 30  # Of decoded chunks, shared by all volumes.
    config.runtime.read_threads = 2  # Batches read at the same time.
    config.runtime.prefetch = 8  # Batches read ahead.
    # Who predicts and segments the blocks of a volume. Empty: this process. "threads:4": this
    # process, so many at a time, to keep a GPU busy that predicts. "local:4": so many processes on
    # this machine. "slurm:20": so many SLURM jobs, set up in Dask's own configuration.
    # "tcp://HOST:PORT": the workers of a Dask scheduler that is running.
    config.runtime.workers = ""
    return config


def _training(steps: int, batch_size: int, optimizer: Config) -> Config:
    """What the two trainings share."""
    return ConfigDict(
        {
            "steps": steps,
            "batch_size": batch_size,  # Crops a step, over all devices.
            "accumulation": 1,  # Compute the gradient in this many parts, to save memory.
            "optimizer": optimizer,
            "ema_decay": 0.0,  # Of the average of parameters that is evaluated; 0: none.
            "log_every": 100,  # Steps between rows of metrics.
            "eval_every": 5_000,
            "eval_crops": 128,  # Held out; the same crops at every evaluation.
            "checkpoint_every": 5_000,
            "keep_checkpoints": 3,
        }
    )


def adamw(
    learning_rate: float, warmup_steps: int, weight_decay: float, betas=(0.9, 0.95)
) -> Config:
    """AdamW (Loshchilov & Hutter 2019) with warm-up and cosine; decays kernels only."""
    return _optimizer("adamw", learning_rate, warmup_steps, weight_decay, betas=betas)


def sgd(learning_rate: float, warmup_steps: int, weight_decay: float, momentum=0.9) -> Config:
    """SGD with momentum, warm-up and cosine; decays kernels only."""
    return _optimizer("sgd", learning_rate, warmup_steps, weight_decay, momentum=momentum)


def _optimizer(
    name: str,
    learning_rate: float,
    warmup_steps: int,
    weight_decay: float,
    *,
    betas: tuple[float, float] = (0.9, 0.95),
    momentum: float = 0.9,
) -> Config:
    return ConfigDict(
        {
            "name": name,  # adamw or sgd.
            "learning_rate": learning_rate,  # At its peak.
            "warmup_steps": warmup_steps,
            "betas": betas,  # Of adamw.
            "momentum": momentum,  # Of sgd.
            "weight_decay": weight_decay,  # Of kernels; never of biases and norms.
            "clip_norm": 0.0,  # The largest gradient norm; 0: never clipped.
        }
    )


def _add_pretraining(config: Config) -> None:
    config.model.decoder = transformer(512, 4, 16)  # Of the masked autoencoder.
    config.pretrain = _training(400_000, 128, adamw(1e-4, 100_000, 0.0))
    # Where its encoder starts from: 2-D weights (FILE.safetensors of timm or transformers), a
    # pre-training workdir, a checkpoint of it, or a model folder; empty: scratch.
    config.pretrain.encoder = ""
    config.pretrain.masking = ConfigDict()
    config.pretrain.masking.strategy = "random"  # Or "space" or "section".
    config.pretrain.masking.ratio = 0.9
    config.pretrain.masking.decoded = 0  # Masked tokens decoded in a training step; 0: all.


def _add_segmentation(config: Config) -> None:
    config.model.segmenter = "unetr"  # Or "unet": a residual 3-D U-Net, without an encoder.
    config.model.channels = (64, 128, 256, 512)  # From full resolution to half of the tokens'.
    config.objective = affinity()

    config.finetune = _training(150_000, 16, sgd(0.02, 5_000, 1e-4))
    config.finetune.encoder = ""  # As pretrain.encoder.
    config.finetune.freeze_encoder = False
    config.finetune.layer_decay = 1.0  # The factor of the learning rate, a block further down.
    config.finetune.min_foreground = 0.0  # Draw again where a smaller share of a crop is labelled.
    config.finetune.augmentation = augmentation()

    config.predict = ConfigDict()
    config.predict.network = (
        WORKDIR  # A fine-tuning workdir, a checkpoint of it, or a model folder.
    )
    config.predict.window_zyx = config.data.get_oneway_ref("crop_zyx")
    config.predict.stride_zyx = (3, 48, 48)
    config.predict.batch_size = 16  # Windows at once.
    config.predict.views = "flips"  # Averaged over: "one", "flips" (4), "turns" (8), "all".
    config.predict.dtype = "uint8"  # Or "float16" or "float32".
    config.predict.memory_bytes = 1 << 30  # About what is held at once.

    config.segment = waterz()

    config.evaluate = ConfigDict()
    config.evaluate.ignore_background = True  # Leave out voxels that the truth calls background.
    # For the Rand error, what is predicted to be background is one object (scikit-image's way), or
    # every voxel of it is one (the SNEMI3D challenge's).
    config.evaluate.lone_background = False


def affinity() -> Config:
    """Affinities to neighbours: the objective of dense neurites (Lee et al. 2017)."""
    return ConfigDict(
        {
            "kind": "affinity",
            "offsets": "nearest",  # Or "lee": nine long-range ones beside them, as auxiliary.
            "long_range_weight": 1.0,  # In the loss, of a long-range channel; a nearest one has 1.
            "remove_borders": False,  # Voxels at a border between two ids become background.
            "erosion": 0,  # Voxels by which every body is eroded.
            "in_plane": True,  # These two look at a section alone; False: for isotropic voxels.
            "bce": 1.0,  # Weights of the two losses.
            "dice": 0.5,
        }
    )


def bcd(distance: bool = True) -> Config:
    """Binary mask, contour and distance; without distance it is BC (Wei et al. 2020)."""
    return ConfigDict(
        {
            "kind": "bcd",
            "distance": distance,
            "remove_borders": False,  # Voxels at a border between two ids become background.
            "contour_width": 1,  # Voxels by which an edge is dilated, in plane.
            "bce": 1.0,  # Weights of the losses.
            "dice": 0.5,
            "mse": 5.0,
        }
    )


def waterz() -> Config:
    """Watershed fragments of affinities, agglomerated as waterz does; for the nearest three."""
    return _segmentation(
        "waterz",
        {
            "score": ("mean", "median", "quantile85"),
            "low": (0.05, 0.2, 0.4),  # Affinities below it are never followed.
            "high": (0.98,),  # Affinities above it always join.
            "threshold": (0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9),  # Fragments join above it.
        },
        select_by="adapted_rand",
    )


def mutex() -> Config:
    """The mutex watershed (Wolf et al. 2018), for long-range affinities."""
    return _segmentation(
        "mutex",
        {
            "nearest_bias": (0.2, 0.4, 0.6),  # Nearest voxels attract above it, and repel below.
            "long_bias": (0.5, 0.7, 0.9),  # The same of voxels further apart.
            "background": (0.0, 0.2),  # Voxels whose nearest affinities are smaller are background.
        },
        select_by="adapted_rand",
    )


def markers(distance: bool = True) -> Config:
    """Marker watershed of BCD or BC, around the defaults of PyTorch Connectomics."""
    grid: dict[str, tuple[float, ...]] = {
        "seed_binary": (0.7, 0.8, 0.9),
        "seed_contour": (0.5, 0.8),
        "mask_binary": (0.5, 0.7, 0.85),
    }
    if distance:
        grid |= {"seed_distance": (0.3, 0.5), "mask_distance": (0.0,)}
    return _segmentation("markers", grid, select_by="adapted_rand")


def _segmentation(method: str, grid: dict[str, tuple], select_by: str) -> Config:
    return ConfigDict(
        {
            "method": method,  # waterz, mutex or markers.
            "fragments": "steepest",  # waterz: or "distance", around what is far from membranes.
            "sectionwise": False,  # waterz: fragments that do not cross sections.
            "grid": grid,  # All combinations are tried on the validation set.
            "smallest": 128,  # Objects of fewer voxels are removed.
            "block_zyx": (64, 256, 256),  # Worked on at once, about; smaller takes less memory.
            # How far a block sees around itself. With less than the half-width of what is
            # segmented, watersheds decide otherwise than in the whole, and join what is apart.
            "halo_zyx": (16, 32, 32),
            "select_by": select_by,  # Or "voi", "ap50", "ap75", "ap" or "dice".
            # Segmented and scored beside it: "fragments", which waterz put it together from, and
            # "intensity", affinities made of the raw grey values, tuned in the same way.
            "baselines": (),
        }
    )


def augmentation() -> Config:
    """Augmentation of serial sections. A field named after a kind is its probability a crop.

    All of it is described in `maemem.data.samples.augment.Augmentation`.
    """
    return ConfigDict(
        {
            "flip": True,  # Each axis with a chance of 1/2; axes that are alike are permuted, too.
            "warp": 0.5,
            "warp_voxels_zyx": (0.0, 8.0, 8.0),
            "warp_spacing_zyx": (8.0, 32.0, 32.0),
            "rotation": 0.5,
            "rotation_degrees": 15.0,
            "translation": 0.1,  # Of all sections from one on.
            "slip": 0.1,  # Of one section.
            "misalignment_voxels": 10,
            "missing_section": 0.1,
            "missing_section_count": 2,
            "missing_section_part": 0.5,
            "blurred_section": 0.1,
            "blurred_section_sigma": 3.0,
            "brightness": 0.5,
            "brightness_strength": 0.3,  # Intensities reach from −1 to 1.
            "contrast": 0.5,
            "contrast_strength": 0.3,
            "gamma": 0.25,
            "gamma_octaves": 1.0,
            "noise": 0.25,
            "noise_sigma": 0.1,
            "by_section": 0.5,  # The chance that these four differ from section to section.
            "cut_out": 0.1,
            "cut_out_boxes": 3,
            "cut_out_share": 0.3,
        }
    )


def isotropic_augmentation() -> Config:
    """Augmentation of block-face volumes, whose sections are neither lost nor shifted."""
    settings = augmentation()
    settings.warp_voxels_zyx = (4.0, 4.0, 4.0)
    settings.warp_spacing_zyx = (24.0, 24.0, 24.0)
    for name in ("translation", "slip", "missing_section", "blurred_section", "by_section"):
        settings[name] = 0.0
    return settings
