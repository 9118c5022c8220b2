"""The network's probabilities: in the patient as the labels are, and never of what is no number.

Covered: the shipped network on a small phantom that lies feet first, labels that include others,
regions, damaged weights, the job's folder. Not covered: their encoding (test_fractional.py) and
figures of calibration; the shipped network has learnt shapes only.
"""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from nnunetv2.utilities.label_handling.label_handling import LabelManager

from app.dicom.volume import Volume, save
from app.errors import ModelError
from app.models import load_card
from app.models.runners.nnunet import _check_regions, _heads_of
from app.pipeline.infer import LABELS, PROBABILITIES, VOLUMES, segment
from tests.phantoms.dicom import grid
from tests.phantoms.evaluate import volume_of
from tests.properties.strategies import tiny_card
from tests.unit.model_folder import CHECKPOINT, PHANTOM, load, read_checkpoint

SHAPE = (24, 40, 40)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a copy of the shipped model that a test may spoil."""
    return Path(shutil.copytree(PHANTOM, tmp_path / "phantom"))


@pytest.fixture(scope="module")
def volume() -> Volume:
    """Return a small series of a patient who lies feet first."""
    return volume_of(9042, grid("feet-first", SHAPE), SHAPE)


def fractional(card: dict[str, Any]) -> None:
    """Ask for probabilities, and for one label that holds another."""
    card["outputs"]["segmentation"] = "fractional"
    card["labels"][4]["includes"] = [6]


def test_a_job_keeps_the_probabilities_of_its_labels(
    folder: Path, volume: Volume, tmp_path: Path
) -> None:
    """Where a label is more likely than all others together, it is the label; sums are sums."""
    job = tmp_path / "job"
    (job / VOLUMES).mkdir(parents=True)
    save(volume, job / VOLUMES, "CT")
    model = load(folder, fractional)
    segment({"folder": job, "card": folder, "device": "cpu", "model": model.card.identity})
    labels, shares = np.load(job / LABELS), np.load(job / PROBABILITIES, mmap_mode="r")
    assert np.array_equal(labels, model.segment({"CT": volume}))
    assert (shares.dtype, shares.shape) == (np.uint8, (6, *SHAPE))
    for index in (0, 1, 2, 3, 5):
        likely = shares[index] >= 129
        assert (labels[likely] == index + 1).all()
        assert likely.sum() > 0.8 * (labels == index + 1).sum() > 0
    kidneys, left = shares[4].astype(int), shares[5].astype(int)
    assert (kidneys >= left - 1).all()  # each is rounded by itself
    assert np.isin(labels[kidneys >= 129], (5, 6)).mean() > 0.99
    assert (shares[[0, 1, 2, 3, 4]].astype(int).sum(axis=0) <= 258).all()


@pytest.mark.parametrize(
    ("damage", "run"), [(float("nan"), "segment"), (float("inf"), "segment_fractional")]
)
def test_an_output_that_is_no_number_is_refused(
    folder: Path, volume: Volume, damage: float, run: str
) -> None:
    """Else it would be an empty label map, which says that nothing is there."""
    checkpoint = read_checkpoint(folder)
    weights = checkpoint["network_weights"]
    last = [name for name in weights if "seg_layers" in name and name.endswith("bias")]
    for name in last:
        weights[name][3] = damage
    torch.save(checkpoint, folder / CHECKPOINT)
    model = load(folder)
    with pytest.raises(ModelError, match="the network's output is not a number everywhere"):
        getattr(model, run)({"CT": volume})


def test_a_label_takes_the_outputs_of_its_values() -> None:
    """Output 0 is the background; a value that the network does not make has none."""
    manager = LabelManager({"background": 0, "a": 1, "b": 2, "c": 3}, None)
    card = tiny_card((1, 9))
    assert _heads_of(card.labels[0], manager) == [1]
    both = card.labels[1].model_copy(update={"includes": (1, 3)})
    assert _heads_of(both, manager) == [1, 3]
    assert _heads_of(card.labels[1], manager) == []


def test_only_regions_that_the_network_knows_have_probabilities() -> None:
    """The probability of the whole is not that of what is left of it without its core."""
    manager = LabelManager({"background": 0, "whole": (1, 2), "core": 2}, [1, 2])
    card = tiny_card((1, 2))
    whole = card.labels[0].model_copy(update={"includes": (2,)})
    right = card.model_copy(update={"labels": (whole, card.labels[1])})
    order, regions = manager.regions_class_order, manager.foreground_regions
    _check_regions(right, order, regions)
    assert [_heads_of(label, manager) for label in right.labels] == [[0], [1]]
    other = card.labels[0].model_copy(update={"value": 9, "includes": (1, 2)})
    for labels in (card.labels, (*right.labels, other)):
        wrong = card.model_copy(update={"labels": labels})
        with pytest.raises(ModelError, match=r"no probability of organ 1 .* \[1, 2\], \[2\]"):
            _check_regions(wrong, order, regions)


def test_the_shipped_card_asks_for_none() -> None:
    """They are for those who know what to do with them."""
    assert load_card(PHANTOM).outputs.segmentation == "binary"
