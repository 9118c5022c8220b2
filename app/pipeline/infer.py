"""From a job's files to its label map: volumes in the stage worker, the model in the model worker.

Both leave their result in the job's folder and skip what is already there, so that a job that
starts again goes on where it was.
"""

import logging
import time
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from app.dicom.volume import build_volume, load, save
from app.errors import ModelError
from app.faults import crash_point
from app.files import durable, make_folder
from app.models import Model, load_card, load_model

log = logging.getLogger(__name__)

VOLUMES = "infer"
LABELS = "infer/labels.npy"
PROBABILITIES = "infer/probabilities.npy"
"""Of each label of the card on the source's grid, 255 for 1; only where the card wants them."""


def build(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Build the volume of each role; runs in the stage worker, the bytes are hostile."""
    folder = Path(arguments["folder"]) / VOLUMES
    make_folder(folder)
    shapes = {}
    for role, paths in arguments["inputs"].items():
        if not (folder / f"{role}.json").exists():
            crash_point("build")
            save(build_volume(paths), folder, role)
        shapes[role] = "×".join(map(str, load(folder, role).voxels_kji.shape[::-1]))
    return {"volumes": shapes}


def segment(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Run the model on the job's volumes; runs in the model worker, which keeps models warm."""
    folder = Path(arguments["folder"])
    began, loads = time.monotonic(), _warm.cache_info().misses
    model = _warm(Path(arguments["card"]), arguments["device"])
    loaded_s = time.monotonic() - began if _warm.cache_info().misses > loads else None
    if model.card.identity != arguments["model"]:
        raise ModelError(
            f"the job was made for {arguments['model']} but {model.card.identity} is installed;"
            " put the old model back or retry the study with the new one"
        )
    volumes = {i.role: load(folder / VOLUMES, i.role) for i in model.card.inputs}
    crash_point("segment")
    started = time.monotonic()
    if model.card.outputs.segmentation == "fractional":
        labels, probabilities = model.segment_fractional(volumes)
        with durable(folder / PROBABILITIES) as file:
            np.save(file, probabilities, allow_pickle=False)
    else:
        labels = model.segment(volumes)
    with durable(folder / LABELS) as file:
        np.save(file, labels, allow_pickle=False)
    return {
        "labels": [int(label) for label in np.unique(labels) if label],
        "seconds": round(time.monotonic() - started, 2),
        "device": model.runner.device,
        "use": {"loaded_s": loaded_s, "memory": model.runner.memory()},
    }


@lru_cache(maxsize=8)
def _warm(card_folder: Path, device: str) -> Model:
    return load_model(load_card(card_folder), device)
