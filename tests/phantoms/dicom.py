"""A phantom as a scanner would send it: a folder of CT Image Storage objects.

Every UID follows from `uid_seed` (UUIDv5 under 2.25, PS3.5 B.2), so that a study written twice is
the same study. Files are named by InstanceNumber, which grows along the slice normal.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from uuid import NAMESPACE_OID, uuid5

import numpy as np
from numpy.typing import NDArray
from pydicom import FileMetaDataset
from pydicom.dataset import Dataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian
from pydicom.valuerep import DSfloat

from tests.phantoms.body import Affine, Phantom, rotation

_OBLIQUE = rotation((np.radians(11), np.radians(-6), np.radians(7)))
_ROW_THEN_COLUMN = {
    # the directions (LPS) in which the column index and the row index grow
    "axial": ([1, 0, 0], [0, 1, 0]),
    "feet-first": ([-1, 0, 0], [0, 1, 0]),
    "sagittal": ([0, 1, 0], [0, 0, -1]),
    "coronal": ([1, 0, 0], [0, 0, -1]),
    "oblique": (_OBLIQUE[:, 0], _OBLIQUE[:, 1]),
}
ORIENTATIONS = tuple(_ROW_THEN_COLUMN)

_NAMESPACE = uuid5(NAMESPACE_OID, "marginalia.phantoms")
_FIELD_LPS_MM = np.array([400.0, 400.0, 320.0])
_CENTRE_LPS_MM = np.array([0.0, 5.0, 15.0])
_INTERCEPT = -1024


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyFiles:
    """What was written, and what is true of it."""

    paths: tuple[Path, ...]
    study_uid: str
    series_uid: str
    frame_of_reference_uid: str
    sop_uids: tuple[str, ...]
    seed: int
    affine_lps: Affine
    shape_kji: tuple[int, int, int]

    def truth(self) -> NDArray[np.uint8]:
        """Return the true labels on the grid of the series."""
        return Phantom(self.seed).truth(self.affine_lps, self.shape_kji)


def grid(
    orientation: str,
    shape_kji: tuple[int, int, int],
    spacing_kji_mm: tuple[float, float, float] | None = None,
) -> Affine:
    """Return the affine of a series around the phantom; by default it covers all of it."""
    row, column = (np.array(direction, float) for direction in _ROW_THEN_COLUMN[orientation])
    directions = np.stack([np.cross(row, column), column, row], axis=1)
    if spacing_kji_mm is None:
        spacing_mm = np.abs(np.rint(directions)).T @ _FIELD_LPS_MM / np.array(shape_kji)
    else:
        spacing_mm = np.array(spacing_kji_mm)
    affine = np.eye(4)
    affine[:3, :3] = directions * spacing_mm
    affine[:3, 3] = _CENTRE_LPS_MM - affine[:3, :3] @ ((np.array(shape_kji) - 1) / 2)
    return affine


def write_study(
    folder: Path,
    *,
    seed: int = 1,
    shape: tuple[int, int] = (64, 64),
    slices: int = 32,
    spacing_kji_mm: tuple[float, float, float] | None = None,
    orientation: str = "axial",
    patient_name: str = "PHANTOM^SYNTHETIC",
    patient_id: str | None = None,
    uid_seed: str | None = None,
    study_uid: str | None = None,
    truth: Path | None = None,
) -> StudyFiles:
    """Write one series of the phantom `seed`, and its truth to `truth` when that is given.

    A second series of the same study takes the first one's `study_uid` and another `uid_seed`.
    """
    uid = uids_of(uid_seed or f"{seed}/{orientation}/{slices}x{shape[0]}x{shape[1]}")
    shape_kji = (slices, *shape)
    files = StudyFiles(
        paths=tuple(folder / f"ct-{k + 1:04}.dcm" for k in range(slices)),
        study_uid=study_uid or uid("study"),
        series_uid=uid("series"),
        frame_of_reference_uid=f"{uids_of(study_uid or uid('study'))('frame')}",
        sop_uids=tuple(uid(f"instance/{k}") for k in range(slices)),
        seed=seed,
        affine_lps=grid(orientation, shape_kji, spacing_kji_mm),
        shape_kji=shape_kji,
    )
    shared = _shared(files, orientation)
    shared.PatientName = patient_name
    shared.PatientID = patient_id if patient_id is not None else f"PHANTOM-{seed}"
    folder.mkdir(parents=True, exist_ok=True)
    stored = Phantom(seed).hu(files.affine_lps, shape_kji) - np.int16(_INTERCEPT)
    for k, path in enumerate(files.paths):
        _instance(shared, files, k, stored[k]).save_as(path, enforce_file_format=True)
    if truth is not None:
        np.savez_compressed(truth, labels=files.truth(), affine_lps=files.affine_lps)
    return files


def uids_of(seed: str) -> Callable[[str], str]:
    """Return the function from a name to its UID."""
    return lambda what: f"2.25.{uuid5(_NAMESPACE, f'{seed}/{what}').int}"


def _shared(files: StudyFiles, orientation: str) -> Dataset:
    """Return what all the instances have in common (CT Image IOD, PS3.3 A.3)."""
    ds = Dataset()
    ds.SpecificCharacterSet = "ISO_IR 192"
    reformatted = orientation in {"sagittal", "coronal"}
    ds.ImageType = (
        ["DERIVED", "PRIMARY", "REFORMATTED"] if reformatted else ["ORIGINAL", "PRIMARY", "AXIAL"]
    )
    ds.SOPClassUID = CTImageStorage
    ds.StudyDate = ds.SeriesDate = ds.AcquisitionDate = ds.ContentDate = "20240102"
    ds.StudyTime = ds.SeriesTime = ds.AcquisitionTime = ds.ContentTime = "101500"
    ds.AccessionNumber = f"PH{files.seed}"
    ds.Modality = "CT"
    ds.Manufacturer = "Marginalia phantoms"
    ds.ManufacturerModelName = "Bent ellipsoids"
    ds.ReferringPhysicianName = ""
    ds.StudyDescription = "Synthetic trunk"
    ds.SeriesDescription = f"Phantom {orientation}"
    ds.PatientBirthDate = ""
    ds.PatientSex = "O"
    ds.BodyPartExamined = "CHEST"
    ds.PatientPosition = "FFS" if orientation == "feet-first" else "HFS"
    ds.KVP = 120
    ds.ConvolutionKernel = "NONE"
    ds.StudyInstanceUID = files.study_uid
    ds.SeriesInstanceUID = files.series_uid
    ds.StudyID = "1"
    ds.SeriesNumber = 2
    ds.AcquisitionNumber = 1
    ds.FrameOfReferenceUID = files.frame_of_reference_uid
    ds.PositionReferenceIndicator = ""
    spacing_mm = np.linalg.norm(files.affine_lps[:3, :3], axis=0)
    cosines = files.affine_lps[:3, :3] / spacing_mm
    ds.ImageOrientationPatient = decimals([*cosines[:, 2], *cosines[:, 1]])
    ds.PixelSpacing = decimals(spacing_mm[1:])
    ds.SliceThickness = decimals(spacing_mm[:1])[0]
    ds.SamplesPerPixel = 1
    ds.PhotometricInterpretation = "MONOCHROME2"
    ds.Rows, ds.Columns = files.shape_kji[1:]
    ds.BitsAllocated, ds.BitsStored, ds.HighBit = 16, 16, 15
    ds.PixelRepresentation = 1
    ds.WindowCenter, ds.WindowWidth = 40, 400
    ds.RescaleIntercept, ds.RescaleSlope, ds.RescaleType = _INTERCEPT, 1, "HU"
    return ds


def _instance(shared: Dataset, files: StudyFiles, k: int, stored: NDArray[np.int16]) -> Dataset:
    ds = Dataset(shared)
    ds.SOPInstanceUID = files.sop_uids[k]
    ds.InstanceNumber = k + 1
    position = files.affine_lps @ [k, 0, 0, 1]
    ds.ImagePositionPatient = decimals(position[:3])
    normal = files.affine_lps[:3, 0] / np.linalg.norm(files.affine_lps[:3, 0])
    ds.SliceLocation = decimals([normal @ position[:3]])[0]
    ds.PixelData = stored.astype("<i2").tobytes()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    return ds


def decimals(values: NDArray[np.float64] | list[float]) -> list[DSfloat]:
    """Return the numbers as a header holds them."""
    return [DSfloat(round(float(value), 8) + 0.0, auto_format=True) for value in values]
