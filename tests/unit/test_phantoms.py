"""Synthetic patients: one anatomy whatever the grid, and DICOM that says where it lies.

Covered: the sides of the organs, agreement of every orientation, plausible HU, repeatability, the
written series as the product reads it, dciodvfy's verdict. Not covered: training (minutes long;
what it made is tested with the runner) and whether the anatomy would convince a radiologist.
"""

import subprocess
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from pydicom import dcmread

from app.dicom.volume import build_volume
from tests.peers import require
from tests.phantoms.__main__ import main
from tests.phantoms.body import LABELS, Phantom
from tests.phantoms.dicom import ORIENTATIONS, grid, write_study

SHAPE = (24, 40, 40)


def centre_lps(labels: NDArray[np.uint8], affine: NDArray[np.float64], name: str) -> NDArray[float]:
    """Return the centre of an organ in patient millimetres."""
    indices = np.argwhere(labels == LABELS[name])
    return (affine @ [*indices.mean(axis=0), 1])[:3]


@pytest.mark.parametrize("seed", range(5))
def test_every_patient_has_each_organ_on_its_side(seed: int) -> None:
    """Right is negative x, the back positive y, the head positive z."""
    affine = grid("axial", SHAPE)
    labels = Phantom(seed).truth(affine, SHAPE)
    x, y, z = 0, 1, 2
    place = {name: centre_lps(labels, affine, name) for name in LABELS}
    assert place["liver"][x] < -20 < 20 < place["spleen"][x]
    assert place["kidney_right"][x] < -20 < 20 < place["kidney_left"][x]
    assert place["kidney_left"][y] > place["body"][y]
    assert place["lungs"][z] > place["liver"][z] > place["kidney_right"][z]


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_a_point_has_the_same_tissue_whatever_the_orientation(orientation: str) -> None:
    """A voxel sampled alone is what it was in its series."""
    affine = grid(orientation, SHAPE)
    labels = Phantom(3).truth(affine, SHAPE)
    for name in ("lungs", "liver", "kidney_left"):
        there = np.argwhere(labels == LABELS[name])[::97]
        for index in there:
            one_voxel = np.eye(4)
            one_voxel[:, 3] = affine @ [*index, 1]
            assert Phantom(3).truth(one_voxel, (1, 1, 1)).item() == LABELS[name]


def test_a_permuted_grid_gives_the_permuted_labels() -> None:
    """The order of the axes is the grid's, not the patient's."""
    affine = grid("axial", SHAPE)
    turned = affine[:, [2, 0, 1, 3]]
    labels, other = (
        Phantom(4).truth(affine, SHAPE),
        Phantom(4).truth(turned, (SHAPE[2], SHAPE[0], SHAPE[1])),
    )
    assert np.array_equal(other, labels.transpose(2, 0, 1))


def test_hounsfield_units_are_those_of_the_tissue() -> None:
    """Liver and spleen look alike, so position has to tell them."""
    affine = grid("axial", SHAPE)
    hu, labels = Phantom(5).hu(affine, SHAPE), Phantom(5).truth(affine, SHAPE)
    assert hu.dtype == np.int16
    medians = {name: float(np.median(hu[labels == value])) for name, value in LABELS.items()}
    assert medians["background"] < -950
    assert -870 < medians["lungs"] < -730
    assert 40 < medians["liver"] < 85
    assert 40 < medians["spleen"] < 80
    assert 25 < medians["kidney_left"] < 190
    assert hu[labels == LABELS["body"]].max() > 200, "there is bone"


def test_the_table_lies_behind_the_patient_and_is_background() -> None:
    """The network must learn to leave it out."""
    affine = grid("axial", SHAPE)
    hu, labels = Phantom(5).hu(affine, SHAPE), Phantom(5).truth(affine, SHAPE)
    table = np.argwhere((hu > -700) & (labels == LABELS["background"]))
    body = np.argwhere(labels == LABELS["body"])
    assert len(table) > 100
    assert np.median(table[:, 1]) > np.percentile(body[:, 1], 99)


def test_a_seed_is_a_patient_and_another_seed_another_noise() -> None:
    """A second scan of a patient differs only in noise."""
    affine = grid("axial", SHAPE)
    first = Phantom(1).hu(affine, SHAPE)
    assert np.array_equal(first, Phantom(1).hu(affine, SHAPE))
    noisy = Phantom(1).hu(affine, SHAPE, seed=1)
    assert not np.array_equal(first, noisy)
    assert np.median(np.abs(first - noisy.astype(int))) < 40
    assert not np.array_equal(Phantom(1).truth(affine, SHAPE), Phantom(2).truth(affine, SHAPE))


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_the_product_reads_back_the_grid_and_the_values(tmp_path: Path, orientation: str) -> None:
    """What the files say is what was sampled, to a micrometre."""
    files = write_study(tmp_path, seed=6, shape=(24, 20), slices=10, orientation=orientation)
    volume = build_volume(reversed(files.paths))
    assert volume.sop_uids == files.sop_uids
    assert np.allclose(volume.affine_lps, files.affine_lps, atol=1e-3)
    assert np.array_equal(volume.voxels_kji, Phantom(6).hu(files.affine_lps, files.shape_kji))
    assert files.truth().shape == volume.voxels_kji.shape


def test_a_study_written_twice_is_the_same_study(tmp_path: Path) -> None:
    """UIDs and pixels follow from the seeds."""

    def write(name: str, **kwargs: str) -> list[bytes]:
        files = write_study(tmp_path / name, seed=7, shape=(8, 8), slices=4, **kwargs)
        return [path.read_bytes() for path in files.paths]

    first = write("first")
    assert write("again") == first
    assert write("other", uid_seed="other") != first


def test_a_second_series_shares_the_study_and_its_frame_of_reference(tmp_path: Path) -> None:
    """Two series of one visit lie in one space."""
    first = write_study(tmp_path / "1", seed=7, shape=(8, 8), slices=4)
    second = write_study(
        tmp_path / "2", seed=7, shape=(8, 8), slices=4, uid_seed="2", study_uid=first.study_uid
    )
    assert second.study_uid == first.study_uid
    assert second.frame_of_reference_uid == first.frame_of_reference_uid
    assert second.series_uid != first.series_uid
    assert not set(second.sop_uids) & set(first.sop_uids)


def test_the_command_writes_a_study_with_its_truth(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Name and ID of the patient are the caller's."""
    arguments = ["--size", "16", "--slices", "5", "--orientation", "coronal", "--seed", "8"]
    patient = ["--patient-name", "PHANTOM^CANARY", "--patient-id", "CANARY"]
    truth = tmp_path / "truth.npz"
    code = main(["make", str(tmp_path / "ct"), *arguments, *patient, "--truth", str(truth)])
    assert code == 0
    assert capsys.readouterr().out.startswith("5 images of study 2.25.")
    ds = dcmread(min((tmp_path / "ct").iterdir()))
    assert (ds.PatientName, ds.PatientID) == ("PHANTOM^CANARY", "CANARY")
    with np.load(truth) as saved:
        assert saved["labels"].shape == (5, 16, 16)


@pytest.mark.dciodvfy
@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_dciodvfy_finds_no_error(tmp_path: Path, orientation: str) -> None:
    """The judge is not ours."""
    require("dciodvfy")
    files = write_study(tmp_path, shape=(16, 16), slices=3, orientation=orientation)
    for path in files.paths:
        said = subprocess.run(
            ["dciodvfy", "-new", path], capture_output=True, text=True, check=False
        )
        assert "CTImage" in said.stdout + said.stderr
        assert "Error" not in said.stdout + said.stderr
