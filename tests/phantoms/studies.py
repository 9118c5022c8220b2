"""Whole synthetic studies as scanners send them: many series with true headers and tiny images.

What matters here is what headers say; the pixels are noise. UIDs follow from the names, so a study
written twice is the same study.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from pydicom import FileMetaDataset
from pydicom.dataset import Dataset
from pydicom.uid import (
    CTImageStorage,
    ExplicitVRLittleEndian,
    MRImageStorage,
    PositronEmissionTomographyImageStorage,
    SecondaryCaptureImageStorage,
    XRayRadiationDoseSRStorage,
)

from tests.phantoms.dicom import decimals, grid, uids_of

Tags = Mapping[str, Any]

SIDE = 16
FIELD_MM = 320.0
CLASSES = {
    "CT": CTImageStorage,
    "MR": MRImageStorage,
    "PT": PositronEmissionTomographyImageStorage,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """One series of a study."""

    name: str
    modality: str = "CT"
    slices: int = 20
    thickness_mm: float = 3.0
    orientation: str = "axial"
    frame: str = "one"
    """The frame of reference; series that share it share coordinates."""
    sop_class: str = ""
    tags: Tags = field(default_factory=dict)
    """What all its images say."""
    each: Callable[[int], Tags] = lambda _: {}
    """What the image of this number says besides; images beyond `slices` repeat positions."""
    repeats: int = 1
    """How many images lie at each position."""


def write(folder: Path, study: str, plans: Sequence[Plan]) -> dict[str, list[Path]]:
    """Write the study; return the files of each series by its name."""
    return {plan.name: _write_series(folder / plan.name, study, plan) for plan in plans}


def series_uid(study: str, name: str) -> str:
    """Return the UID of a series of a study."""
    return uids_of(study)(f"series/{name}")


def _write_series(folder: Path, study: str, plan: Plan) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for number in range(plan.slices * plan.repeats):
        path = folder / f"{number + 1:04}.dcm"
        _image(study, plan, number).save_as(path, enforce_file_format=True)
        paths.append(path)
    return paths


def _image(study: str, plan: Plan, number: int) -> Dataset:
    uid, ds = uids_of(study), Dataset()
    ds.SpecificCharacterSet = "ISO_IR 192"
    ds.SOPClassUID = plan.sop_class or CLASSES[plan.modality]
    ds.SOPInstanceUID = uid(f"instance/{plan.name}/{number}")
    ds.StudyInstanceUID, ds.SeriesInstanceUID = uid("study"), series_uid(study, plan.name)
    ds.StudyDate = ds.SeriesDate = ds.AcquisitionDate = "20240102"
    ds.StudyTime = ds.SeriesTime = ds.AcquisitionTime = "101500"
    ds.Modality, ds.SeriesDescription = plan.modality, plan.name
    ds.PatientName, ds.PatientID = "PHANTOM^SYNTHETIC", f"PHANTOM-{study}"
    ds.PatientBirthDate, ds.PatientSex = "", "O"
    ds.InstanceNumber = number + 1
    if not plan.sop_class:
        _place(ds, uid(f"frame/{plan.frame}"), plan, number % plan.slices)
    if plan.modality != "SR":
        _fill(ds, number)
    for keyword, value in {**plan.tags, **plan.each(number)}.items():
        setattr(ds, keyword, value)
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    return ds


def _place(ds: Dataset, frame_uid: str, plan: Plan, k: int) -> None:
    spacing = (plan.thickness_mm, FIELD_MM / SIDE, FIELD_MM / SIDE)
    affine = grid(plan.orientation, (plan.slices, SIDE, SIDE), spacing)
    cosines = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    ds.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    ds.FrameOfReferenceUID = frame_uid
    ds.ImageOrientationPatient = decimals([*cosines[:, 2], *cosines[:, 1]])
    ds.ImagePositionPatient = decimals((affine @ [k, 0, 0, 1])[:3])
    ds.PixelSpacing = decimals([FIELD_MM / SIDE] * 2)
    ds.SliceThickness = decimals([plan.thickness_mm])[0]


def _fill(ds: Dataset, number: int) -> None:
    """Add noise as pixels, the same for the same number."""
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.Rows = ds.Columns = SIDE
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 16, 15, 1
    ds.RescaleIntercept, ds.RescaleSlope = -1024, 1
    noise = np.random.default_rng(number).integers(0, 2000, (SIDE, SIDE))
    ds.PixelData = noise.astype("<i2").tobytes()


# -- studies -------------------------------------------------------------------------------------

CT_TRUNK = (
    Plan(
        name="scout",
        slices=2,
        orientation="coronal",
        tags={"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]},
    ),
    Plan(name="thick soft", slices=24, thickness_mm=5, tags={"ConvolutionKernel": "STANDARD"}),
    Plan(name="thin soft", slices=96, thickness_mm=1.25, tags={"ConvolutionKernel": "STANDARD"}),
    Plan(name="thin bone", slices=96, thickness_mm=1.25, tags={"ConvolutionKernel": "BONE"}),
    Plan(
        name="coronal reformat",
        slices=60,
        thickness_mm=1.25,
        orientation="coronal",
        tags={
            "ImageType": ["DERIVED", "SECONDARY", "REFORMATTED"],
            "ConvolutionKernel": "STANDARD",
        },
    ),
    Plan(
        name="dose report",
        modality="SR",
        slices=1,
        sop_class=XRayRadiationDoseSRStorage,
    ),
    Plan(
        name="screen save",
        modality="CT",
        slices=3,
        sop_class=SecondaryCaptureImageStorage,
        tags={"ImageType": ["DERIVED", "SECONDARY", "SCREEN SAVE"]},
    ),
)
"""A routine CT of the trunk with all that comes along."""


def pet_ct(ct_frame: str = "one") -> tuple[Plan, ...]:
    """Return a PET/CT; the CT may lie in another frame of reference."""
    pet = {"RescaleIntercept": 0, "Units": "BQML"}
    return (
        Plan(
            name="CT",
            slices=60,
            frame=ct_frame,
            tags={"ConvolutionKernel": "B30f", "AcquisitionTime": "101000"},
        ),
        Plan(
            name="PET AC",
            modality="PT",
            slices=60,
            tags=pet
            | {
                "CorrectedImage": ["DECY", "ATTN", "SCAT", "DTIM", "NORM"],
                "AttenuationCorrectionMethod": "CT",
                "AcquisitionTime": "102000",
            },
        ),
        Plan(
            name="PET NAC",
            modality="PT",
            slices=60,
            tags=pet | {"CorrectedImage": ["DECY", "NORM"], "AcquisitionTime": "102000"},
        ),
    )


def brain_mr(*, described: bool) -> tuple[Plan, ...]:
    """Return a brain tumour protocol, with or without descriptions that help."""
    sequences: dict[str, Tags] = {
        "t1 se": {"RepetitionTime": 550, "EchoTime": 12, "ScanningSequence": "SE"},
        "t1 se gd": {
            "RepetitionTime": 550,
            "EchoTime": 12,
            "ScanningSequence": "SE",
            "ContrastBolusAgent": "Gadolinium (synthetic)",
        },
        "t2 tse": {"RepetitionTime": 4500, "EchoTime": 95, "ScanningSequence": "SE"},
        "t2 flair": {
            "RepetitionTime": 9000,
            "EchoTime": 110,
            "InversionTime": 2500,
            "ScanningSequence": ["SE", "IR"],
        },
    }
    plans = []
    for number, (name, tags) in enumerate(sequences.items()):
        told = {} if described else {"SeriesDescription": f"ser {number + 1}"}
        image = {"ImageType": ["ORIGINAL", "PRIMARY", "M", "ND"], "MRAcquisitionType": "2D"}
        plans.append(
            Plan(
                name=name,
                modality="MR",
                slices=24,
                thickness_mm=5,
                tags=image | {"SequenceVariant": "SK"} | tags | told,
            )
        )
    return tuple(plans)


DCE = (
    Plan(
        name="dynamic",
        modality="MR",
        slices=16,
        repeats=5,
        tags={
            "ImageType": ["ORIGINAL", "PRIMARY", "M", "ND"],
            "ScanningSequence": "GR",
            "SequenceVariant": "SP",
            "RepetitionTime": 4.5,
            "EchoTime": 1.6,
            "FlipAngle": 12,
            "NumberOfTemporalPositions": 5,
        },
        each=lambda number: {
            "TemporalPositionIdentifier": number // 16 + 1,
            "AcquisitionTime": f"1015{number // 16 * 10:02}",
        },
    ),
)
"""One series with five points in time at each position."""
