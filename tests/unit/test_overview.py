"""One picture of a result: sides, shapes and segments as they are in the patient, and no names.

Covered: where outlines lie in the picture, for every way an array can lie; that whatever was found
is seen; windows; what the object says, judged by dciodvfy. Not covered: beauty, which was looked
at, and the wording of single legend entries.
"""

import subprocess
from dataclasses import replace
from io import BytesIO
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from pydicom.dataset import Dataset

from app.dicom.volume import build_volume
from app.models.card import ModelCard
from app.results.overview import encode_overview
from app.results.result import Result
from tests.peers import require
from tests.properties.strategies import (
    axial,
    axis_frames,
    sop_uid,
    tiny_card,
    write_series,
)
from tests.unit.encoding import Case, oblique, organs

HEAD = 68
LEGEND = 36
TILE = 320
RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)


def coloured(*colours: tuple[int, int, int]) -> ModelCard:
    """Return a card whose labels have these colours."""
    card = tiny_card()
    labels = tuple(
        card.labels[0].model_copy(update={"value": n, "name": f"organ {n}", "colour": colour})
        for n, colour in enumerate(colours, 1)
    )
    return card.model_copy(update={"labels": labels})


def drawn(ds: Dataset, colour: tuple[int, int, int]) -> NDArray[np.int64]:
    """Return (row, column) of the pixels of a colour between the head and the legend."""
    tiles = ds.pixel_array[HEAD:-LEGEND].astype(int)
    found = np.argwhere(np.abs(tiles - colour).max(axis=2) < 60)
    return np.asarray(found)


@pytest.fixture
def case(tmp_path: Path) -> Case:
    """Return a plain axial case."""
    return Case(tmp_path)


# -- where things are ----------------------------------------------------------------------------


@pytest.mark.parametrize("number", range(24))
def test_the_patients_right_is_on_the_left_however_the_array_lies(
    tmp_path: Path, number: int
) -> None:
    """Slices go from head to feet, rows to the back, columns to the patient's left."""
    affine, _ = axial()
    affine[:3, :3] = axis_frames()[number][:, ::-1] * (2, 3, 2.5)
    case = Case(tmp_path, affine=affine)
    corners = np.array([*np.ndindex(2, 2, 2)]) * (np.array([4, 5, 6]) - 1)
    labels = np.zeros((4, 5, 6), np.uint8)
    for value, (x, y, z) in enumerate(((1, 1, 1), (-1, -1, 1), (-1, -1, -1)), 1):
        farthest = (corners @ affine[:3, :3].T @ (x, y, z)).argmax()
        labels[tuple(corners[farthest])] = value
    ds = encode_overview(case.result(labels, card=coloured(RED, GREEN, BLUE)))
    left_back, right_front, feet = (drawn(ds, colour) for colour in (RED, GREEN, BLUE))
    assert right_front[:, 1].max() < TILE / 2 < left_back[:, 1].min()
    assert left_back[:, 1].max() < TILE  # the first tile is the one nearest to the head
    assert right_front[:, 0].max() < left_back[:, 0].min()
    assert feet[:, 1].min() >= TILE or feet[:, 0].min() > left_back[:, 0].max()


def test_oblong_pixels_keep_their_shape(tmp_path: Path) -> None:
    """A square of 12 mm is as high as it is wide."""
    affine, _ = axial(spacing=(2, 4, 3))
    labels = np.zeros((4, 5, 6), np.uint8)
    labels[1, 1:4, 1:5] = 1
    case = Case(tmp_path, affine=affine)
    found = drawn(encode_overview(case.result(labels, card=coloured(RED, GREEN))), RED)
    height, width = found.max(axis=0) - found.min(axis=0)
    assert width > 100
    assert abs(height - width) <= 2


def test_whatever_was_found_is_seen(tmp_path: Path) -> None:
    """Sixteen single voxels on as many slices, more than are usually shown, each in its colour."""
    shape = (32, 20, 36)
    affine, voxels = axial(shape=shape)
    colours = [each for each in product((0, 127, 255), repeat=3) if max(each) - min(each) == 255]
    colours += [(255, 127, 127), (127, 255, 127), (127, 127, 255), (255, 255, 127)]
    labels = np.zeros(shape, np.uint8)
    for index in range(16):
        labels[index * 2, 2 + index, 34 - 2 * index] = index + 1
    case = Case(tmp_path)
    case.paths = write_series(tmp_path, affine, voxels % 500)
    case.volume = build_volume(case.paths)
    ds = encode_overview(case.result(labels, card=coloured(*colours)))
    for colour in colours:
        assert len(drawn(ds, colour)) > 4, colour


# -- what is seen --------------------------------------------------------------------------------


def grey(ds: Dataset) -> NDArray[Any]:
    """Return the first tile below its height, right of its letter."""
    return np.asarray(ds.pixel_array[HEAD + 30 : HEAD + 200, 60:300, 0])


def test_ct_is_shown_in_a_soft_tissue_window(case: Case) -> None:
    """-160 HU and less is black, 240 HU and more is white, 40 HU is in the middle."""
    nothing = np.zeros((4, 5, 6), np.uint8)
    for hu, expected in ((-1000, 0), (-160, 0), (40, 127), (240, 255), (3000, 255)):
        volume = replace(case.volume, voxels_kji=np.full((4, 5, 6), hu, np.float32))
        ds = encode_overview(replace(case.result(nothing), volume=volume))
        assert set(np.unique(grey(ds))) == {expected}


@pytest.mark.parametrize("modality", ["MR", "PT"])
def test_mr_and_pet_are_shown_from_their_darkest_to_their_brightest(
    case: Case, modality: str
) -> None:
    """Whatever their units are; a constant picture is no fault."""
    card = tiny_card()
    inputs = (card.inputs[0].model_copy(update={"modality": modality}),)
    card = card.model_copy(update={"inputs": inputs})
    voxels = np.linspace(0, 0.004, 120, dtype=np.float32).reshape(4, 5, 6)
    for values, spread in ((voxels, True), (np.zeros_like(voxels), False)):
        volume = replace(case.volume, voxels_kji=values)
        result = replace(case.result(np.zeros((4, 5, 6), np.uint8), card=card), volume=volume)
        shown = grey(encode_overview(result))
        assert len(np.unique(shown)) > 20 if spread else set(np.unique(shown)) == {0}


def test_it_says_that_nobody_has_reviewed_it_and_which_model_made_it(case: Case) -> None:
    """The words are in the pixels, so that no viewer can leave them out."""
    pixels = encode_overview(case.result()).pixel_array
    expected = Image.new("RGB", (1280, HEAD))
    draw = ImageDraw.Draw(expected)
    words = "Made by an algorithm, not reviewed. For research use only."
    for at, text, size, colour in (
        ((12, 8), words, 22, (255, 190, 60)),
        ((12, 40), "phantom-organs@1.0", 16, (240, 240, 240)),
    ):
        font = ImageFont.load_default(size)
        draw.text(at, text, colour, font, stroke_width=1, stroke_fill=(0, 0, 0))
    assert np.array_equal(pixels[:HEAD], np.asarray(expected))
    later = encode_overview(case.result(version=2)).pixel_array
    assert not np.array_equal(later[:HEAD], pixels[:HEAD])


def other_patient(ds: Dataset, _: int) -> None:
    """Name somebody else."""
    ds.PatientName, ds.PatientID, ds.PatientBirthDate = "ZZPHI^CANARY", "ZZPHI-2", "19010101"
    ds.AccessionNumber, ds.StudyDate = "ZZPHI", "19990101"


def test_no_pixel_depends_on_who_the_patient_is(tmp_path: Path) -> None:
    """Burned-in annotation NO: what identifies a patient or a date is not drawn."""
    one, other = tmp_path / "one", tmp_path / "other"
    one.mkdir(), other.mkdir()
    first = encode_overview(Case(one).result())
    second = encode_overview(Case(other, other_patient).result())
    assert second.PatientID == "ZZPHI-2"
    assert first.PixelData == second.PixelData
    assert first.BurnedInAnnotation == "NO"


# -- what it says --------------------------------------------------------------------------------


def test_it_is_a_derived_picture_that_refers_to_its_sources(case: Case) -> None:
    """Its own series and no CT, so that no route takes it for one."""
    ds = encode_overview(case.result())
    assert list(ds.ImageType) == ["DERIVED", "SECONDARY"]
    assert (ds.Modality, ds.ConversionType, ds.SeriesNumber) == ("OT", "WSD", 306)
    referenced = [each.ReferencedSOPInstanceUID for each in ds.SourceImageSequence]
    assert referenced == [sop_uid(k) for k in range(4)]
    assert ds.LossyImageCompression == "00"
    assert "PixelSpacing" not in ds


def lossy(ds: Dataset, _: int) -> None:
    """Say that the source was compressed with loss."""
    ds.LossyImageCompression, ds.LossyImageCompressionRatio = "01", "8"


def test_a_picture_of_lossy_images_is_lossy(tmp_path: Path) -> None:
    """What was lost once stays lost (PS3.3 C.7.6.1.1.5)."""
    assert encode_overview(Case(tmp_path, lossy).result()).LossyImageCompression == "01"


def as_file(ds: Dataset) -> bytes:
    """Return the file that the object becomes."""
    file = BytesIO()
    ds.save_as(file, enforce_file_format=True)
    return file.getvalue()


def test_two_encodings_are_the_same_bytes(case: Case) -> None:
    """Nothing is random, and the font is the same everywhere."""
    one, other = (as_file(encode_overview(case.result(paths=p))) for p in (case.paths, case.paths))
    assert one == other
    assert pydicom.dcmread(BytesIO(one)).pixel_array.shape[1:] == (1280, 3)


def as_found(case: Case) -> Result:
    """Return a result with both segments."""
    return case.result(organs())


def nothing_found(case: Case) -> Result:
    """Return a result without a segment."""
    return case.result(np.zeros((4, 5, 6), np.uint8))


@pytest.mark.dciodvfy
@pytest.mark.parametrize("affine", [None, oblique()], ids=["axial", "oblique"])
@pytest.mark.parametrize("make", [as_found, nothing_found])
def test_dciodvfy_finds_no_error(tmp_path: Path, affine: Any, make: Any) -> None:
    """It warns of DeviceUID, which it does not know, and that we do not know the side."""
    require("dciodvfy")
    path = tmp_path / "overview.dcm"
    encode_overview(make(Case(tmp_path, affine=affine))).save_as(path, enforce_file_format=True)
    judged = subprocess.run(["dciodvfy", "-new", path], capture_output=True, text=True, check=False)
    said = (judged.stdout + judged.stderr).splitlines()
    expected = ("DeviceUID", "Laterality")
    assert [line for line in said if not any(each in line for each in expected)] == ["SCImage"]
