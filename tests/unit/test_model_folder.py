"""Hostile and broken model folders: refused with a sentence, and nothing in them runs.

Covered: pickled code, every name in the plans that nnU-Net would look up, files that do not fit
the card or each other. Not covered: exhaustion (a network too large for memory), which the limits
of the worker end.
"""

import pickle
import re
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from app.errors import ModelError
from tests.unit.model_folder import CHECKPOINT, PHANTOM, Change, at, change, load, read_checkpoint

ARCHITECTURE = at("architecture")
ARGUMENTS = at("architecture", "arch_kwargs")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a copy of the shipped model that a test may spoil."""
    return Path(shutil.copytree(PHANTOM, tmp_path / "phantom"))


class Payload:
    """What a pickle runs when it is loaded: it makes a folder."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.mkdir, (self.marker,)


def test_code_in_a_checkpoint_is_refused_and_not_run(folder: Path, tmp_path: Path) -> None:
    """The payload runs where it is unpickled, and here it is not."""
    marker = tmp_path / "ran"
    torch.save(read_checkpoint(folder) | {"logging": Payload(marker)}, folder / CHECKPOINT)
    with pytest.raises(ModelError, match="does not load as plain weights"):
        load(folder)
    assert not marker.exists()
    pickle.loads(pickle.dumps(Payload(marker)))  # noqa: S301  # to show that it was live
    assert marker.exists()


def test_numbers_of_a_training_log_are_no_code(folder: Path) -> None:
    """An ordinary nnU-Net checkpoint holds numpy numbers and loads."""
    log = {"loss": [np.float32(0.5), np.float64(0.25)], "epoch": np.int64(3), "best": np.bool_(1)}
    torch.save(read_checkpoint(folder) | {"logging": log}, folder / CHECKPOINT)
    assert load(folder).card.name == "phantom"


@pytest.mark.parametrize("content", [b"", b"not a zip", b"PK\x03\x04" + bytes(100)])
def test_a_damaged_checkpoint_is_refused(folder: Path, content: bytes) -> None:
    """The sentence names the file and what to do."""
    (folder / CHECKPOINT).write_bytes(content)
    with pytest.raises(ModelError, match="does not load as plain weights"):
        load(folder)


@pytest.mark.parametrize("content", [{}, {"network_weights": 1}, {"network_weights": {"a": 1}}, 7])
def test_a_checkpoint_without_weights_is_refused(folder: Path, content: Any) -> None:
    """What torch loads may still be anything."""
    torch.save(content, folder / CHECKPOINT)
    with pytest.raises(ModelError, match="holds no network_weights"):
        load(folder)


HOSTILE: dict[str, Change] = {
    "a network of its own": lambda p: ARCHITECTURE(p).update(network_class_name="evilmod.Net"),
    "a builtin as network": lambda p: ARCHITECTURE(p).update(network_class_name="builtins.dict"),
    "a list as network": lambda p: ARCHITECTURE(p).update(network_class_name=["evilmod.Net"]),
    "its own convolution": lambda p: ARGUMENTS(p).update(conv_op="evilmod.Net"),
    "its own norm": lambda p: ARGUMENTS(p).update(norm_op="evilmod.Net"),
    "its own dropout": lambda p: ARGUMENTS(p).update(dropout_op="evilmod.Net"),
    "its own nonlinearity": lambda p: ARGUMENTS(p).update(nonlin="torch.hub.load"),
    "another import": lambda p: (
        ARGUMENTS(p).update(block="evilmod.Net"),
        ARCHITECTURE(p).update(_kw_requires_import=["block"]),
    ),
    "an import of nothing": lambda p: ARCHITECTURE(p).update(_kw_requires_import=["block"]),
    "its own preprocessor": lambda p: at()(p).update(preprocessor_name="evilmod"),
    "its own resampling": lambda p: at()(p).update(resampling_fn_data="evilmod"),
    "its own way back": lambda p: at()(p).update(resampling_fn_probabilities="evilmod"),
    "its own normalization": lambda p: at()(p).update(normalization_schemes=["evilmod"]),
    "its own labels": lambda p: p.update(label_manager="evilmod"),
}


@pytest.mark.parametrize("spoil", HOSTILE.values(), ids=HOSTILE)
def test_a_name_in_the_plans_imports_nothing(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spoil: Change
) -> None:
    """Whatever the plans name is looked up in a list, never imported."""
    (tmp_path / "evilmod.py").write_text(
        "import pathlib\npathlib.Path(__file__).with_name('ran').mkdir()\n"
        "class Net:\n    pass\nevilmod = Net\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    change(folder / "nnunet" / "plans.json", spoil)
    with pytest.raises(ModelError, match=r"plans\.json: .* is not one of the known"):
        load(folder)
    assert "evilmod" not in sys.modules
    assert not (tmp_path / "ran").exists()


MISFITS: dict[str, tuple[str, Change, str]] = {
    "another depth": (
        "plans.json",
        lambda p: ARGUMENTS(p).update(n_stages=3),
        "do not fit together",
    ),
    "other features": (
        "plans.json",
        lambda p: ARGUMENTS(p).update(features_per_stage=[8, 16, 32, 65]),
        "do not fit together",
    ),
    "no network": ("plans.json", lambda p: at()(p).pop("architecture"), "do not fit together"),
    "no spacing": ("plans.json", lambda p: p.pop("configurations"), "do not fit together"),
    "another configuration": (
        "plans.json",
        lambda p: p["configurations"].update({"2d": p["configurations"].pop("3d_fullres")}),
        "has no configuration 3d_fullres; it has 2d",
    ),
    "a loop of configurations": (
        "plans.json",
        lambda p: at()(p).update(inherits_from="3d_fullres"),
        "do not fit together",
    ),
    "a cascade": (
        "plans.json",
        lambda p: at()(p).update(previous_stage="3d_lowres"),
        "describes a cascade",
    ),
    "two channels": (
        "dataset.json",
        lambda d: d["channel_names"].update({"1": "PT"}),
        "has 2 channels, the card 1 inputs",
    ),
    "a label more": (
        "dataset.json",
        lambda d: d["labels"].update(tumour=7),
        "makes the values [7], which the card does not describe",
    ),
}


@pytest.mark.parametrize(("name", "spoil", "sentence"), MISFITS.values(), ids=MISFITS)
def test_a_folder_that_does_not_fit_is_refused(
    folder: Path, name: str, spoil: Change, sentence: str
) -> None:
    """Nonsense ends with a sentence when loading, not in a job."""
    change(folder / "nnunet" / name, spoil)
    with pytest.raises(ModelError, match=re.escape(sentence)):
        load(folder)


@pytest.mark.parametrize("content", ["", "[]", "{", "[" * 100_000])
def test_plans_that_are_no_json_object_are_refused(folder: Path, content: str) -> None:
    """Empty, cut and bottomless files are named."""
    (folder / "nnunet" / "plans.json").write_text(content)
    with pytest.raises(ModelError, match=r"plans\.json: is not"):
        load(folder)
