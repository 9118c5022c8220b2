"""The nnU-Net runner: it does what nnU-Net does, and a patient keeps their sides.

Covered: the shipped network on series of three orientations, folds, channels, mirroring, silence.
Not covered: hostile folders (test_model_folder), reorientation by itself (test_grid), figures over
many phantoms (`python -m tests.phantoms evaluate`) and graphics cards.
"""

import logging
import re
import shutil
import socket
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from app.dicom.volume import Volume
from app.errors import ConfigError, ModelError, StudyError
from app.models import Model, load_card, load_model
from tests.phantoms.body import LABELS, Phantom
from tests.phantoms.dicom import grid
from tests.phantoms.evaluate import dice, volume_of
from tests.unit.model_folder import CHECKPOINT, PHANTOM, at, change, load, read_checkpoint

SEED = 9042

SHAPES = {"axial": (50, 80, 80), "feet-first": (50, 80, 80), "sagittal": (80, 50, 80)}
"""About 5 to 6 mm voxels: enough to tell the organs apart, and a second each."""


@pytest.fixture(scope="module")
def model() -> Model:
    """Return the shipped model."""
    return load_model(load_card(PHANTOM), "cpu")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a copy of the shipped model that a test may spoil."""
    return Path(shutil.copytree(PHANTOM, tmp_path / "phantom"))


@pytest.fixture(scope="module")
def volume() -> Volume:
    """Return an axial series of a patient that training never saw."""
    return phantom_volume("axial")


def phantom_volume(orientation: str) -> Volume:
    """Return a series of the patient in an orientation."""
    shape = SHAPES[orientation]
    return volume_of(SEED, grid(orientation, shape), shape)


# -- what is shipped -----------------------------------------------------------------------------


def test_the_shipped_model_is_small_and_plain() -> None:
    """It is part of the code, and it mirrors nothing: sides matter."""
    size = sum(path.stat().st_size for path in PHANTOM.rglob("*") if path.is_file())
    assert size <= 4 * 1024**2
    checkpoint = torch.load(PHANTOM / CHECKPOINT, weights_only=True)
    assert checkpoint["inference_allowed_mirroring_axes"] is None


def test_loading_is_logged_once_with_its_seconds(caplog: pytest.LogCaptureFixture) -> None:
    """The line is the evidence that a warm model stays warm."""
    card = load_card(PHANTOM)
    with caplog.at_level(logging.INFO, "app.models"):
        loaded = load_model(card, "auto")
        small = volume_of(SEED, grid("axial", (12, 16, 16)), (12, 16, 16))
        loaded.segment({"CT": small})
        loaded.segment({"CT": small})
    lines = [record.getMessage() for record in caplog.records if "weights" in record.getMessage()]
    assert len(lines) == 1
    assert re.fullmatch(
        rf"loaded weights of {re.escape(card.identity)} in \d+\.\d s on (cpu|cuda:0)", lines[0]
    )


def test_a_graphics_card_that_is_not_there_is_named() -> None:
    """Falling back to the CPU would look like a node that hangs."""
    with pytest.raises(ConfigError, match=r"workers\.device: cuda:99 is not there"):
        load_model(load_card(PHANTOM), "cuda:99")


# -- sides ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("orientation", SHAPES)
def test_organs_are_found_where_they_are_in_the_patient(model: Model, orientation: str) -> None:
    """Liver right, spleen left, in millimetres, however the slices are stored."""
    volume = phantom_volume(orientation)
    labels = model.segment({"CT": volume})
    truth = Phantom(SEED).truth(volume.affine_lps, volume.voxels_kji.shape)
    assert labels.dtype == np.uint8
    for name in ("liver", "spleen", "kidney_right", "kidney_left"):
        found, real = (
            (volume.affine_lps @ [*np.argwhere(each == LABELS[name]).mean(axis=0), 1])[:3]
            for each in (labels, truth)
        )
        assert np.linalg.norm(found - real) < 8, f"{name} is not at {real} but at {found} (LPS)"
        on_the_left = name in {"spleen", "kidney_left"}
        assert (found[0] > 0) == on_the_left
        assert dice(labels, truth, LABELS[name]) > 0.8


def test_the_same_patient_upside_down_has_the_same_labels(model: Model, volume: Volume) -> None:
    """The same voxels stored the other way round are the same picture to the network."""
    turned_affine = volume.affine_lps @ np.array(
        [[-1, 0, 0, 49], [0, 1, 0, 0], [0, 0, -1, 79], [0, 0, 0, 1]], float
    )
    turned = Volume(
        voxels_kji=volume.voxels_kji[::-1, :, ::-1],
        affine_lps=turned_affine,
        sop_uids=volume.sop_uids[::-1],
        frame_of_reference_uid=volume.frame_of_reference_uid,
        series_uid=volume.series_uid,
    )
    first, second = model.segment({"CT": volume}), model.segment({"CT": turned})
    assert np.array_equal(second[::-1, :, ::-1], first)


# -- inputs and outputs --------------------------------------------------------------------------


def test_labels_that_the_card_does_not_describe_are_refused(model: Model, volume: Volume) -> None:
    """No segment without a name reaches a reader."""
    poorer = model.card.model_copy(update={"labels": model.card.labels[:2]})
    with pytest.raises(ModelError, match=r"the output has the values \[3, 4, 5, 6\]"):
        Model(card=poorer, runner=model.runner).segment({"CT": volume})


def test_a_missing_input_is_named(model: Model, volume: Volume) -> None:
    """The route must assign every role."""
    with pytest.raises(ModelError, match="no volume for the input CT"):
        model.segment({"mr": volume})


def test_an_empty_volume_is_refused(model: Model) -> None:
    """No empty result is made of an empty series."""
    nothing = Volume(
        voxels_kji=np.zeros((4, 5, 6), np.float32),
        affine_lps=np.eye(4),
        sop_uids=("2.25.1",) * 4,
        frame_of_reference_uid="2.25.2",
        series_uid="2.25.3",
    )
    with pytest.raises(StudyError, match=r"series 2\.25\.3: every voxel is zero"):
        model.segment({"CT": nothing})


def two_channels(folder: Path) -> None:
    """Give the network a second channel that it ignores."""
    change(
        folder / "nnunet" / "dataset.json",
        lambda d: d.update(channel_names={"0": "CT", "1": "CT"}),
    )

    def spoil(plans: dict[str, Any]) -> None:
        at()(plans).update(
            normalization_schemes=["CTNormalization"] * 2, use_mask_for_norm=[False] * 2
        )
        properties = plans["foreground_intensity_properties_per_channel"]
        properties["1"] = properties["0"]

    change(folder / "nnunet" / "plans.json", spoil)
    checkpoint = read_checkpoint(folder)
    weights = checkpoint["network_weights"]
    for name, value in weights.items():
        if value.ndim == 5 and value.shape[1] == 1:
            weights[name] = torch.cat([value, torch.zeros_like(value)], dim=1)
    torch.save(checkpoint, folder / CHECKPOINT)


def test_channels_follow_the_order_of_the_card(model: Model, folder: Path, volume: Volume) -> None:
    """The first input of the card is the first channel."""
    two_channels(folder)
    fat, ct = {"role": "FAT", "modality": "CT"}, {"role": "CT", "modality": "CT"}
    other = Volume(
        voxels_kji=np.full_like(volume.voxels_kji, -90),
        affine_lps=volume.affine_lps,
        sop_uids=volume.sop_uids,
        frame_of_reference_uid=volume.frame_of_reference_uid,
        series_uid="2.25.77",
    )
    alone = model.segment({"CT": volume})
    both = {"FAT": other, "CT": volume}
    first = load(folder, lambda card: card.update(inputs=[ct, fat])).segment(both)
    assert np.array_equal(first, alone)
    second = load(folder, lambda card: card.update(inputs=[fat, ct])).segment(both)
    assert np.array_equal(second, model.segment({"CT": other}))
    assert not np.array_equal(second, alone)


@pytest.mark.parametrize(
    "differs",
    [
        {"voxels_kji": np.zeros((50, 80, 79), np.float32)},
        {"affine_lps": grid("axial", SHAPES["axial"]) + np.eye(4)[:, [3, 0, 1, 2]] * 0.5},
        {"frame_of_reference_uid": "2.25.99"},
    ],
    ids=["shape", "place", "frame of reference"],
)
def test_inputs_on_different_grids_are_refused(
    folder: Path, volume: Volume, differs: dict[str, Any]
) -> None:
    """Shape, place and frame of reference must all agree."""
    two_channels(folder)
    second = {"role": "PT", "modality": "PT"}
    both = load(folder, lambda card: card["inputs"].append(second))
    fields = {
        name: getattr(volume, name)
        for name in ("voxels_kji", "affine_lps", "sop_uids", "frame_of_reference_uid")
    }
    other = Volume(**(fields | differs), series_uid="2.25.78")
    with pytest.raises(ModelError, match=r"series 2\.25\.78 \(PT\) does not lie on the grid"):
        both.segment({"CT": volume, "PT": other})


# -- as nnU-Net does it --------------------------------------------------------------------------


def test_folds_are_averaged(model: Model, folder: Path, volume: Volume) -> None:
    """A fold without an opinion changes nothing; taking the last fold alone would."""
    checkpoint = read_checkpoint(folder)
    for name, value in checkpoint["network_weights"].items():
        if "seg_layers" in name:
            value.zero_()
    silent = folder / "nnunet" / "fold_1"
    silent.mkdir()
    torch.save(checkpoint, silent / "checkpoint_final.pth")
    alone = load(folder, lambda card: card["runner"].update(folds=[1])).segment({"CT": volume})
    assert not alone.any()
    both = load(folder, lambda card: card["runner"].update(folds=[0, 1])).segment({"CT": volume})
    assert np.mean(both == model.segment({"CT": volume})) > 0.999


def test_mirroring_is_the_checkpoints_unless_the_card_forbids_it(
    model: Model, folder: Path, volume: Volume
) -> None:
    """Averaging over mirrored axes changes the output."""
    torch.save(
        read_checkpoint(folder) | {"inference_allowed_mirroring_axes": (2,)}, folder / CHECKPOINT
    )
    expected = model.segment({"CT": volume})
    assert not np.array_equal(load(folder).segment({"CT": volume}), expected)
    still = load(folder, lambda card: card["runner"].update(mirroring=False))
    assert np.array_equal(still.segment({"CT": volume}), expected)


def test_nothing_is_printed_written_or_sent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Loading and running leave no trace but the result."""

    def refuse(*_: object) -> None:
        raise AssertionError("a connection was opened")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.chdir(tmp_path)
    for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        monkeypatch.delenv(name, raising=False)
    small = volume_of(SEED, grid("axial", (12, 16, 16)), (12, 16, 16))
    load_model(load_card(PHANTOM), "cpu").segment({"CT": small})
    assert capfd.readouterr() == ("", "")
    assert not list(tmp_path.iterdir())
