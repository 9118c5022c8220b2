"""Small series on any grid, written as a scanner would write them.

Independent of the code under test: positions come from DICOM's own equation (PS3.3 C.7.6.2.1.1).
"""

import warnings
from collections.abc import Callable, Mapping, Sequence
from itertools import permutations, product
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray
from pydicom.datadict import dictionary_VR
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.tag import Tag
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

from app.models.card import ModelCard
from app.results.identity import Identity

Edit = Callable[[Dataset, int], None]

STUDY_UID = "2.25.1001"
SERIES_UID = "2.25.1002"
FRAME_UID = "2.25.1003"
INTERCEPT = -1024


def sop_uid(k: int) -> str:
    """Return the UID of slice `k`; its order as text says nothing of k."""
    return f"2.25.{(k * 7919 + 17) % 100_003}"


def ct_slice(affine: NDArray[Any], values: NDArray[Any], k: int) -> Dataset:
    """Return one CT slice: `values` in HU, placed by the affine (k, j, i, 1) → LPS mm."""
    steps = np.linalg.norm(affine[:3, :3], axis=0)
    cosines = affine[:3, :3] / steps
    ds = Dataset()
    ds.SOPClassUID = CTImageStorage
    ds.SOPInstanceUID = sop_uid(k)
    ds.StudyInstanceUID = STUDY_UID
    ds.SeriesInstanceUID = SERIES_UID
    ds.FrameOfReferenceUID = FRAME_UID
    ds.PositionReferenceIndicator = ""
    ds.PatientName = "PHANTOM^TINY"
    ds.PatientID = "PHANTOM-1"
    ds.PatientBirthDate = "19700101"
    ds.PatientSex = "O"
    ds.StudyDate, ds.StudyTime = "20240102", "030405"
    ds.StudyID = ds.AccessionNumber = "PHANTOM"
    ds.ReferringPhysicianName = ""
    ds.Modality = "CT"
    ds.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    ds.Manufacturer = "PHANTOM"
    ds.SeriesNumber = 2
    ds.InstanceNumber = 1  # the same for all: it must never matter
    ds.ImagePositionPatient = _decimals(affine[:3, 3] + k * affine[:3, 0])
    ds.ImageOrientationPatient = _decimals([*cosines[:, 2], *cosines[:, 1]])
    ds.PixelSpacing = _decimals([steps[1], steps[2]])
    ds.SliceThickness = 1
    ds.RescaleSlope, ds.RescaleIntercept = 1, INTERCEPT
    ds.SamplesPerPixel = 1
    ds.PhotometricInterpretation = "MONOCHROME2"
    ds.Rows, ds.Columns = values.shape
    ds.BitsAllocated, ds.BitsStored, ds.HighBit = 16, 12, 11
    ds.PixelRepresentation = 0
    stored = np.asarray(values - INTERCEPT, dtype="<u2").tobytes()
    ds.PixelData = stored + b"\0" * (len(stored) % 2)
    ds["PixelData"].VR = "OW"
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.file_meta.MediaStorageSOPClassUID = CTImageStorage
    ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
    return ds


def write_series(
    folder: Path,
    affine: NDArray[Any],
    voxels: NDArray[Any],
    order: Sequence[int] | None = None,
    edit: Edit | None = None,
) -> list[Path]:
    """Write the slices in `order` and return their paths in it; `edit` may spoil each of them."""
    paths = []
    for number, k in enumerate(range(len(voxels)) if order is None else order):
        ds = ct_slice(affine, voxels[k], k)
        paths.append(folder / f"{number:03d}.dcm")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # pydicom warns of what `edit` does on purpose
            if edit:
                edit(ds, k)
                ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
                ds.set_original_encoding(False, True, ds._character_set)  # raw stays raw
            ds.save_as(paths[-1], enforce_file_format=True)
    return paths


def spoil(ds: Dataset, keyword: str, value: bytes) -> None:
    """Put bytes into an element that pydicom would never write there."""
    tag = Tag(keyword)
    ds[tag] = RawDataElement(tag, dictionary_VR(tag), len(value), value, 0, False, True)


def spoiled(values: Mapping[str, bytes]) -> Edit:
    """Return the edit that does so with several elements."""

    def edit(ds: Dataset, _: int) -> None:
        for keyword, value in values.items():
            spoil(ds, keyword, value)

    return edit


def axial(shape: tuple[int, int, int] = (4, 5, 6), spacing: Sequence[float] = (2, 1, 1)) -> Any:
    """Return the affine of plain axial slices and voxels that are all different."""
    affine = np.eye(4)
    affine[:3, :3] = np.array([[0, 0, 1], [0, 1, 0], [1, 0, 0]]) * np.asarray(spacing)
    affine[:3, 3] = (-10, -20, 30)
    return affine, np.arange(np.prod(shape)).reshape(shape) - 500


def axis_frames() -> list[NDArray[Any]]:
    """Return the 24 right-handed frames (i, j, k as columns) along the patient's axes."""
    frames = []
    for axes, signs in product(permutations(range(3)), product((1, -1), repeat=3)):
        frame = np.zeros((3, 3))
        frame[list(axes), range(3)] = signs
        if np.linalg.det(frame) > 0:
            frames.append(frame)
    return frames


@st.composite
def oblique_frames(draw: st.DrawFn) -> NDArray[Any]:
    """Draw any right-handed frame, from a unit quaternion."""
    q = np.array(draw(st.tuples(*[st.floats(-1, 1)] * 4)))
    length = np.linalg.norm(q)
    w, x, y, z = q / length if length > 0.1 else (1.0, 0.0, 0.0, 0.0)
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
            [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
            [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
        ]
    )


@st.composite
def grids(draw: st.DrawFn) -> tuple[NDArray[Any], tuple[int, int, int]]:
    """Draw an affine (k, j, i, 1) → LPS mm and a shape; pixels need not be square.

    No slice has fewer than 8 pixels: highdicom 0.28, which ours is held against, packs those wrong.
    """
    frame = draw(st.one_of(st.sampled_from(axis_frames()), oblique_frames()))
    shape = draw(st.tuples(st.integers(2, 6), st.integers(3, 7), st.integers(3, 7)))
    spacing = draw(st.tuples(*[st.floats(0.3, 6)] * 3))
    affine = np.eye(4)
    affine[:3, :3] = frame[:, ::-1] * spacing
    affine[:3, 3] = draw(st.tuples(*[st.floats(-400, 400)] * 3))
    return affine, shape


def _decimals(values: Sequence[float] | NDArray[Any]) -> list[str]:
    """Return numbers as a scanner writes them: decimal strings of at most 16 characters."""
    return [f"{value:.9f}"[:16] for value in values]


def tiny_card(values: Sequence[int] = (1, 2)) -> ModelCard:
    """Return a card whose labels have the given values; the second has a side and a region."""
    liver = {"scheme": "SCT", "value": "10200004", "meaning": "Liver"}
    kidney = {"scheme": "SCT", "value": "64033007", "meaning": "Kidney"}
    labels = [
        {
            "value": value,
            "name": f"organ {number}",
            "category": {
                "scheme": "SCT",
                "value": "123037004",
                "meaning": "Anatomical Structure",
            },
            "type": kidney if number == 2 else liver,
            "laterality": {"scheme": "SCT", "value": "7771000", "meaning": "Left"}
            if number == 2
            else None,
            "region": {"scheme": "SCT", "value": "818983003", "meaning": "Abdomen"}
            if number == 2
            else None,
            "colour": (200, 40 * number % 256, 30),
        }
        for number, value in enumerate(values, 1)
    ]
    files = ("plans.json", "dataset.json", "fold_0/checkpoint_final.pth")
    return ModelCard.model_validate(
        {
            "name": "phantom-organs",
            "version": "1.0",
            "licence": "Apache-2.0",
            "description": "Segments nothing that is real.",
            "inputs": [{"role": "CT", "modality": "CT"}],
            "runner": {
                "kind": "nnunet",
                "folder": "nnunet",
                "configuration": "3d_fullres",
                "folds": [0],
                "orientation": "SPL",
                "sha256": dict.fromkeys(files, "ab" * 32),
            },
            "limits": {"timeout_s": 60, "memory_gib": 1},
            "labels": labels,
            "outputs": {
                "series_description": "Phantom organs RESEARCH",
                "content_label": "PHANTOM",
                "content_creator": "phantom-organs",
                "series_number_offset": 300,
            },
        }
    )


def identity() -> Identity:
    """Return the identity of a job on the series that `write_series` writes."""
    return Identity(study_uid=STUDY_UID, route="ct", model="phantom", digest="0" * 64)
