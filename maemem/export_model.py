"""Exports a trained network as a folder with a model card.

    python -m maemem.export_model WORKDIR FOLDER --licence=CC-BY-4.0 --data='FIB-25 (CC BY), …'

FOLDER has README.md (the card), config.json, weights.safetensors, SHA256SUMS and, if they exist,
tuned.json and scores.json. `maemem.load`, `--config.predict.network` and
`--config.finetune.encoder` take it, and refuse it if a file was changed.
"""

from __future__ import annotations

import json
import logging
import pathlib
import sys
from typing import Any

from absl import app, flags

from maemem import __version__
from maemem.logs import log_to_terminal

log = logging.getLogger("maemem")

STAGES = ("finetune", "pretrain")


def export_model(
    workdir: pathlib.Path,
    folder: pathlib.Path,
    *,
    licence: str,
    data: str,
    citation: str = "",
    stage: str = "",
) -> None:
    """Writes a model folder, without thresholds or scores of another checkpoint, which are logged.

    Args:
      workdir: of a run that has trained.
      folder: to write; it must not exist.
      licence: of the weights, as a name that readers know.
      data: what it was trained on, with licence and citation.
      citation: what to cite for the model.
      stage: that trained it, `finetune` or `pretrain`; empty: the first that has checkpoints.

    Raises:
      FileNotFoundError: if there is no trained network.
      FileExistsError: if the folder exists.
      ValueError: if licence or data are empty, or the workdir cannot be read.
    """
    # Imported late: a misspelt flag should not have to wait for JAX.
    from maemem import layout
    from maemem.predictor import unbinned
    from maemem.reporting.card import Card, write_card
    from maemem.stages.predict import network_digest, network_parameters, trained_voxel_size
    from maemem.training.checkpoint import read_parameters
    from maemem.training.model_folder import write_model
    from maemem.workdir import read_config, read_record

    if not licence.strip() or not data.strip():
        raise ValueError("licence or data is empty; who is handed a model has to know both")
    record, config = read_record(workdir), read_config(workdir)
    stage = stage or next(
        (s for s in STAGES if layout.checkpoints_folder(workdir, s).exists()), STAGES[0]
    )
    params, checkpoint = read_parameters(workdir, stage)
    size = trained_voxel_size(config, workdir)
    texts = {"config.json": {**record, "stage": stage, "voxel_size_nm": size}}
    if stage == "finetune":
        network_parameters.cache_clear()  # Fine-tuning may have gone on since.
        texts |= _results(workdir, network_digest(workdir))
    tuned = texts.get("tuned.json", {}).get("thresholds")
    card = Card(
        name=folder.name,
        stage=stage,
        licence=licence,
        data=data,
        citation=citation,
        voxel_size_nm=unbinned(size, config.data.bin_zyx),
        config=config.to_dict(),
        scores=texts.get("scores.json"),
        thresholds=tuned,
        version=__version__,
    )
    written = {name: json.dumps(value, indent=1) + "\n" for name, value in texts.items()}
    write_model(folder, params, {**written, "README.md": write_card(card)})
    log.info("wrote %s, the network of %s", folder, checkpoint)


def _results(workdir: pathlib.Path, network: str) -> dict[str, Any]:
    """The thresholds and the scores, where there are such of the network with this digest."""
    from maemem import layout
    from maemem.data.stores.damage import read_json
    from maemem.predictor import read_tuned, untuned
    from maemem.stages.thresholds import fingerprint

    tuned = read_tuned(workdir, network)
    if tuned is None:
        log.warning("thresholds and scores are left out: %s", untuned(workdir))
        return {}
    path = layout.scores_path(workdir)
    scores = read_json(path) if path.exists() else None
    if scores and scores.get("tuned") != fingerprint(workdir):
        log.warning("%s is left out: it was made with other thresholds than the tuned ones", path)
        scores = None
    return {"tuned.json": tuned} | ({"scores.json": scores} if scores else {})


def define_flags() -> None:
    """Defines the flags of the command; importing this module defines none."""
    flags.DEFINE_string("licence", None, "Of the weights, such as CC-BY-4.0.", required=True)
    flags.DEFINE_string(
        "data", None, "What it was trained on, with its licence and citation.", required=True
    )
    flags.DEFINE_string("citation", "", "What to cite for the model.")
    flags.DEFINE_enum("stage", "", ["", *STAGES], "Whose network; by default the fine-tuned one.")


def main(argv: list[str]) -> None:
    """The command: two paths, and the flags."""
    if len(argv) != 3:
        raise app.UsageError(f"expected WORKDIR and FOLDER, got {len(argv) - 1} paths")
    log_to_terminal()
    workdir, folder = (pathlib.Path(path).expanduser().absolute() for path in argv[1:])
    given = flags.FLAGS
    try:
        export_model(
            workdir,
            folder,
            licence=given.licence,
            data=given.data,
            citation=given.citation,
            stage=given.stage,
        )
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    define_flags()
    app.run(main)
