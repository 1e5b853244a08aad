"""Public data sets by name: addresses, contents, citations.

Nothing here was downloaded while it was written. Addresses and checksums were published by others,
whom `Download.seen` names; those without a publisher are marked.
"""

from __future__ import annotations

from maemem.data.sets.products import Download, Product, PublicDataset
from maemem.data.sets.relabel import Encoding


def _as_torch_em_has_it(name: str, url: str, sha256: str, module: str) -> Download:
    place = f"torch-em, torch_em/data/datasets/electron_microscopy/{module}.py"
    return Download(name, url, f"sha256:{sha256}", f"{place}, both")


_KASTHURI = "Kasthuri et al. 2015, Cell 162(3), 648-661, doi:10.1016/j.cell.2015.06.054"


def _snemi3d() -> PublicDataset:
    archive = Download(
        "snemi.zip",
        "https://zenodo.org/records/7142003/files/snemi.zip?download=1",
        "md5:3d25a7025f66698f33c7850ace885939",
        "the SNEMI3D tutorial of PyTorch Connectomics, both",
    )
    # The record has no labels of the test volume; this copy of it has.
    test = _as_torch_em_has_it(
        "snemi_test.h5",
        "https://oc.embl.de/index.php/s/aRhphk35H23De2s/download",
        "3df3920a0ddec6897105845f842b2665d37a47c2d1b96d4f4565682e315a59fa",
        "snemi",
    )
    return PublicDataset(
        name="snemi3d",
        title="SNEMI3D",
        tissue="mouse somatosensory cortex, neurites",
        voxel_size_nm=(30.0, 6.0, 6.0),
        products=(
            Product("train-input.zarr", archive, "image/train-input.tif"),
            Product("train-labels.zarr", archive, "seg/train-labels.tif"),
            Product("test-input.zarr", test, "volumes/raw"),
            Product("test-labels.zarr", test, "volumes/labels/neuron_ids"),
        ),
        license="CC BY 4.0 (Zenodo record 7142003)",
        citation=f"{_KASTHURI}; doi:10.5281/zenodo.7142003",
        home="https://snemi3d.grand-challenge.org",
        note="The challenge's own site asks for registration and gives no labels of the test.",
    )


def _mitoem(letter: str, tissue: str, images: Download, labels: Download) -> PublicDataset:
    return PublicDataset(
        name=f"mitoem_{letter.lower()}",
        title=f"MitoEM-{letter}",
        tissue=f"{tissue} cortex, mitochondria",
        voxel_size_nm=(30.0, 8.0, 8.0),
        products=(
            # The challenge keeps the labels of sections 500 to 999 to itself.
            Product("im.zarr", images, "im/im0[0-4][0-9][0-9].png"),
            Product("labels.zarr", labels, "mito-*-v2/seg0[0-4][0-9][0-9].tif"),
        ),
        license="MIT, says the data card on Hugging Face",
        citation="Wei et al. 2020, MICCAI, doi:10.1007/978-3-030-59722-1_7",
        home="https://mitoem.grand-challenge.org",
        note="Sections 0 to 399 are for training, 400 to 499 for validation. The images are a "
        "download of 14 GB, and unpacked for a while beside it.",
    )


def _mitoem_r() -> PublicDataset:
    host = "https://huggingface.co/datasets/pytc"
    return _mitoem(
        "R",
        "rat",
        _as_torch_em_has_it(
            "EM30-R-im.zip",
            f"{host}/EM30/resolve/main/EM30-R-im.zip",
            "6a2cac68adde5d01984542d3ee1d7753d1fa3e6eb2a042ce15ce297c95885bbe",
            "mitoem",
        ),
        _as_torch_em_has_it(
            "EM30-R-mito-train-val-v2.zip",
            f"{host}/MitoEM/resolve/main/EM30-R-mito-train-val-v2.zip",
            "c56380ac575428a818bd293ca3509d1249999846c3702ccbf11d308acdd2ae86",
            "mitoem",
        ),
    )


def _mitoem_h() -> PublicDataset:
    # The images at Hugging Face are padded, and do not match the labels.
    return _mitoem(
        "H",
        "human",
        _as_torch_em_has_it(
            "EM30-H-im.zip",
            "https://www.dropbox.com/s/z41qtu4y735j95e/EM30-H-im.zip?dl=1",
            "98fe259f36a7d8d43f99981b7a0ef8cdeba2ce2615ff91595f428ae57207a041",
            "mitoem",
        ),
        _as_torch_em_has_it(
            "EM30-H-mito-train-val-v2.zip",
            "https://www.dropbox.com/s/dhf89bc14kemw4e/EM30-H-mito-train-val-v2.zip?dl=1",
            "0e8ed292cfcd0c58701d9f4299244a1b66d6aeb506c85754c34f98a4eda0ef1b",
            "mitoem",
        ),
    )


def _cremi(letter: str, sha256: str) -> PublicDataset:
    file = f"sample_{letter}_20160501.hdf"
    download = _as_torch_em_has_it(
        file,
        f"https://cremi.org/static/data/{file}",
        sha256,
        "cremi",
    )
    return PublicDataset(
        name=f"cremi_{letter.lower()}",
        title=f"CREMI {letter}",
        tissue="adult fruit fly brain, neurons",
        voxel_size_nm=(40.0, 4.0, 4.0),
        products=(
            Product("image.zarr", download, "volumes/raw"),
            Product("labels.zarr", download, "volumes/labels/neuron_ids"),
        ),
        license="none found; see its home",
        citation="Funke, Saalfeld, Bock, Turaga, Perlman 2016, MICCAI Challenge on Circuit "
        "Reconstruction from Electron Microscopy Images, https://cremi.org",
        home="https://cremi.org/data",
        note="Its home once had an expired certificate, so torch-em does not look at it. maemem "
        "does: where it is refused, get the file yourself.",
    )


def _fib25() -> PublicDataset:
    bucket = "https://storage.googleapis.com/ffn-flyem-fib25"
    image = _as_torch_em_has_it(
        "training_sample2-grayscale_maps.h5",
        f"{bucket}/training_sample2/grayscale_maps.h5",
        "ea031c98ee2de778a9a3a1e6d410df5de73e4ac28022df8e7255d84e3394cafa",
        "fib25",
    )
    labels = _as_torch_em_has_it(
        "training_sample2-groundtruth.h5",
        f"{bucket}/training_sample2/groundtruth.h5",
        "fd508e7aee1fe51ac9ae0460db4a841d275236f013c1f2552314b4f21b1010ea",
        "fib25",
    )
    large = _as_torch_em_has_it(
        "validation_sample-grayscale_maps.h5",
        f"{bucket}/validation_sample/grayscale_maps.h5",
        "400ccb2a7268a3880c63656e0d794f8e6252e62031869455cc8caeef245b2a83",
        "fib25",
    )
    commit = "98a7be98233dc3b4b07d876ea0640a85eb5bd6b8"
    repository = Download(
        "neuroproof_examples.zip",
        f"https://github.com/janelia-flyem/neuroproof_examples/archive/{commit}.zip",
        None,
        "this commit and its list of files at GitHub; the address is GitHub's usual one for it",
        verified=False,
    )
    return PublicDataset(
        name="fib25",
        title="FIB-25",
        tissue="adult fruit fly medulla, neurons",
        voxel_size_nm=(10.0, 10.0, 10.0),
        products=(
            Product("train-input.zarr", image, "raw"),
            Product("train-labels.zarr", labels, "stack", Encoding.BODIES),
            Product("unlabeled-1.zarr", repository, "*/training_sample1/grayscale_maps/iso.*.png"),
            Product("unlabeled-2.zarr", large, "raw"),
        ),
        license="BSD 3-clause, © 2013 HHMI (LICENSE.txt of janelia-flyem/neuroproof_examples)",
        citation="Takemura et al. 2015, PNAS 112(44), 13711-13716, doi:10.1073/pnas.1509820112",
        home="https://github.com/janelia-flyem/neuroproof_examples",
    )


def _lucchi() -> PublicDataset:
    archive = _as_torch_em_has_it(
        "lucchi_pp.zip",
        "http://www.casser.io/files/lucchi_pp.zip",
        "770ce9e98fc6f29c1b1a250c637e6c5125f2b5f1260e5a7687b55a79e2e8844d",
        "lucchi",
    )
    labels = Encoding.COMPONENTS
    return PublicDataset(
        name="lucchi",
        title="Lucchi++",
        tissue="mouse hippocampus, mitochondria",
        voxel_size_nm=(5.0, 5.0, 5.0),
        products=(
            Product("train-input.zarr", archive, "Lucchi++/Train_In/*.png"),
            Product("train-labels.zarr", archive, "Lucchi++/Train_Out/*.png", labels),
            Product("test-input.zarr", archive, "Lucchi++/Test_In/*.png"),
            Product("test-labels.zarr", archive, "Lucchi++/Test_Out/*.png", labels),
        ),
        license="none found; see its home",
        citation="Casser et al. 2018, arXiv:1812.06024, of the volumes of Lucchi et al. 2012, "
        "doi:10.1109/TMI.2011.2171705",
        home="https://sites.google.com/view/connectomics",
    )


def _vnc() -> PublicDataset:
    archive = _as_torch_em_has_it(
        "groundtruth-drosophila-vnc.zip",
        "https://github.com/unidesigner/groundtruth-drosophila-vnc/archive/refs/heads/master.zip",
        "f7bd0db03c86b64440a16b60360ad60c0a4411f89e2c021c7ee2c8d6af3d7e86",
        "vnc",
    )
    return PublicDataset(
        name="vnc",
        title="Larval VNC",
        tissue="fruit fly larva, ventral nerve cord, mitochondria",
        voxel_size_nm=(50.0, 4.6, 4.6),
        products=(
            Product("train-input.zarr", archive, "*/stack1/raw/*.tif"),
            Product(
                "train-mitochondria.zarr", archive, "*/stack1/mitochondria/*.png", Encoding.LINKED
            ),
            Product("unlabeled.zarr", archive, "*/stack2/raw/*.tif"),
        ),
        license="CC BY-NC-SA 3.0",
        citation="Gerhard, Funke, Martel, Cardona, Fetter 2013, Segmented anisotropic ssTEM "
        "dataset of neural tissue, figshare, doi:10.6084/m9.figshare.856713",
        home="https://github.com/unidesigner/groundtruth-drosophila-vnc",
        note="It has no ids of neurites: train-neurites, for finetune_vnc.py:neurites, is not "
        "among what is fetched. GitHub packs an archive anew now and then, with another checksum.",
    )


def _ac3ac4() -> PublicDataset:
    package = Download(
        "AC3AC4Package.zip",
        "https://lichtman.rc.fas.harvard.edu/vast/AC3AC4Package.zip",
        None,
        "the address in several repositories that use the data; its checksum nowhere",
    )
    colours = Encoding.COLOURS_REVERSED
    return PublicDataset(
        name="ac3ac4",
        title="AC3 and AC4",
        tissue="mouse somatosensory cortex, neurites",
        voxel_size_nm=(30.0, 6.0, 6.0),
        products=(
            Product("ac3-input.zarr", package, "*ac3_EM/*.png"),
            Product("ac3-labels.zarr", package, "*ac3_dbseg_images/*.png", colours),
            Product("ac4-input.zarr", package, "*ac4_EM/*.png"),
            Product("ac4-labels.zarr", package, "*ac4_seg_daniel/*.png", colours),
        ),
        license="none found; see its home",
        citation=_KASTHURI,
        home="https://lichtman.rc.fas.harvard.edu/vast",
    )


_ALL = (
    _snemi3d(),
    _mitoem_r(),
    _mitoem_h(),
    _cremi("A", "4c563d1b78acb2bcfb3ea958b6fe1533422f7f4a19f3e05b600bfa11430b510d"),
    _cremi("B", "887e85521e00deead18c94a21ad71f278d88a5214c7edeed943130a1f4bb48b8"),
    _cremi("C", "2874496f224d222ebc29d0e4753e8c458093e1d37bc53acd1b69b19ed1ae7052"),
    _fib25(),
    _lucchi(),
    _vnc(),
    _ac3ac4(),
)
CATALOGUE = {dataset.name: dataset for dataset in _ALL}
