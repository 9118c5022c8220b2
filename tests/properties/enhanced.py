"""Small series as enhanced multi-frame objects, CT and MR, written as a scanner would write them.

Independent of the code under test, and valid: dciodvfy finds no error in them
(unit/test_enhanced.py). The patient, the study and the grids are those of `strategies`.
"""

import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import (
    UID,
    EnhancedCTImageStorage,
    EnhancedMRImageStorage,
    ExplicitVRLittleEndian,
)

from tests.properties.strategies import FRAME_UID, INTERCEPT, SERIES_UID, STUDY_UID

Edit = Callable[[Dataset], None]

ORDER = (2, 0, 3, 1)
"""Slices in the order of the frames; slice k is frame `FRAMES[k]`."""
FRAMES = (2, 4, 1, 3)

OBJECT_UID = "2.25.1004"
_TAKEN = "20240102030405"
_PLANE = {"PlaneOrientationSequence", "PixelMeasuresSequence", "PixelValueTransformationSequence"}


def object_uid(number: int = 0) -> str:
    """Return the UID of object `number` of a series."""
    return f"{OBJECT_UID}.{number + 1}"


def enhanced(
    affine: NDArray[Any],
    voxels: NDArray[Any],
    order: Sequence[int] | None = None,
    *,
    modality: str = "CT",
    shared: bool = True,
    number: int = 0,
) -> Dataset:
    """Return one object whose frames are the slices `order`, placed by the affine.

    The affine maps (k, j, i, 1) → LPS mm, `voxels` are values in HU. What is the same for all
    frames stands in the shared groups, or else in those of each frame.
    """
    order = range(len(voxels)) if order is None else order
    ds = _header(modality, number)
    ds.Rows, ds.Columns = voxels.shape[1:]
    ds.NumberOfFrames = len(order)
    everywhere = _groups(affine, modality)
    common = Dataset()
    for name, group in everywhere.items():
        if shared or name not in _PLANE:
            setattr(common, name, [group])
    ds.SharedFunctionalGroupsSequence = [common]
    ds.PerFrameFunctionalGroupsSequence = []
    for index, k in enumerate(order, start=1):
        frame = Dataset()
        frame.FrameContentSequence = [_content(k, index)]
        frame.PlanePositionSequence = [
            item(ImagePositionPatient=_decimals(affine[:3, 3] + k * affine[:3, 0]))
        ]
        if not shared:
            for name in _PLANE & everywhere.keys():
                setattr(frame, name, [everywhere[name]])
        ds.PerFrameFunctionalGroupsSequence.append(frame)
    stored = np.asarray(voxels[list(order)] - _intercept(modality), dtype="<u2").tobytes()
    ds.PixelData = stored + b"\0" * (len(stored) % 2)
    ds["PixelData"].VR = "OW"
    return ds


def write_enhanced(
    folder: Path,
    affine: NDArray[Any],
    voxels: NDArray[Any],
    order: Sequence[int] | None = None,
    edit: Edit | None = None,
    *,
    compress: UID | None = None,
    **how: Any,
) -> list[Path]:
    """Write one object and return its path, in a list; `edit` may spoil it."""
    ds = enhanced(affine, voxels, order, **how)
    path = folder / f"enhanced{how.get('number', 0)}.dcm"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pydicom warns of what `edit` does on purpose
        if edit:
            edit(ds)
        if compress:
            ds.compress(compress, generate_instance_uid=False)
        ds.save_as(path, enforce_file_format=True)
    return [path]


def item(**values: Any) -> Dataset:
    """Return one item of a sequence."""
    made = Dataset()
    for keyword, value in values.items():
        setattr(made, keyword, value)
    return made


def frame(ds: Dataset, number: int) -> Any:
    """Return the functional groups of one frame, counted from 1."""
    return ds.PerFrameFunctionalGroupsSequence[number - 1]


def moved(to: Callable[[int], Any]) -> Edit:
    """Return an edit that puts slice k at `to(k)`."""

    def edit(ds: Dataset) -> None:
        for k, number in enumerate(FRAMES):
            frame(ds, number).PlanePositionSequence = [item(ImagePositionPatient=list(to(k)))]

    return edit


def on_frame(number: int, group: str, **values: Any) -> Edit:
    """Return an edit that gives one frame a functional group of its own."""
    return lambda ds: setattr(frame(ds, number), group, [item(**values)])


def without(keyword: str) -> Edit:
    """Return an edit that takes an element of the object away."""
    return lambda ds: delattr(ds, keyword)


def setting(**values: Any) -> Edit:
    """Return an edit that sets elements of the object."""

    def edit(ds: Dataset) -> None:
        for keyword, value in values.items():
            setattr(ds, keyword, value)

    return edit


def _intercept(modality: str) -> int:
    return INTERCEPT if modality == "CT" else -600  # of MR as well, some vendors have one


def _header(modality: str, number: int) -> Dataset:
    ds = Dataset()
    ds.SOPClassUID = EnhancedCTImageStorage if modality == "CT" else EnhancedMRImageStorage
    ds.SOPInstanceUID = object_uid(number)
    ds.StudyInstanceUID, ds.SeriesInstanceUID = STUDY_UID, SERIES_UID
    ds.FrameOfReferenceUID, ds.PositionReferenceIndicator = FRAME_UID, ""
    ds.PatientName, ds.PatientID = "PHANTOM^TINY", "PHANTOM-1"
    ds.PatientBirthDate, ds.PatientSex = "19700101", "O"
    ds.StudyDate, ds.StudyTime = "20240102", "030405"
    ds.StudyID = ds.AccessionNumber = "PHANTOM"
    ds.ReferringPhysicianName = ""
    ds.Modality = modality
    ds.ImageType = ["ORIGINAL", "PRIMARY", "VOLUME", "NONE"]
    ds.PixelPresentation, ds.VolumetricProperties = "MONOCHROME", "VOLUME"
    ds.VolumeBasedCalculationTechnique = "NONE"
    ds.Manufacturer = ds.ManufacturerModelName = "PHANTOM"
    ds.DeviceSerialNumber, ds.SoftwareVersions = "1", "1"
    ds.SeriesNumber, ds.InstanceNumber = 2, number + 1
    ds.PatientPosition = "HFS"
    ds.SeriesDate, ds.SeriesTime = "20240102", "030405"
    ds.ContentDate, ds.ContentTime = "20240102", "030405"
    ds.AcquisitionDateTime, ds.AcquisitionDuration = _TAKEN, 1.0
    ds.AcquisitionNumber, ds.ContentQualification = 1, "RESEARCH"
    ds.BurnedInAnnotation, ds.LossyImageCompression = "NO", "00"
    ds.PresentationLUTShape = "IDENTITY"
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.BitsAllocated, ds.BitsStored, ds.HighBit = 16, 12, 11
    ds.PixelRepresentation = 0
    ds.AcquisitionContextSequence = []
    ds.DimensionOrganizationSequence = [item(DimensionOrganizationUID="2.25.1005")]
    ds.DimensionIndexSequence = [
        item(
            DimensionOrganizationUID="2.25.1005",
            DimensionIndexPointer=0x00209057,  # In-Stack Position Number
            FunctionalGroupPointer=0x00209111,  # Frame Content Sequence
        )
    ]
    if modality == "MR":
        _magnet(ds)
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID
    ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
    return ds


def _magnet(ds: Dataset) -> None:
    ds.ResonantNucleus, ds.KSpaceFiltering = "1H", "NONE"
    ds.MagneticFieldStrength, ds.ApplicableSafetyStandardAgency = 1.5, "IEC"
    ds.ComplexImageComponent, ds.AcquisitionContrast = "MAGNITUDE", "T1"
    ds.PulseSequenceName, ds.MRAcquisitionType = "PHANTOM", "2D"
    ds.EchoPulseSequence, ds.MultipleSpinEcho = "SPIN", "NO"
    ds.MultiPlanarExcitation, ds.PhaseContrast = "NO", "NO"
    ds.TimeOfFlightContrast, ds.SteadyStatePulseSequence = "NO", "NONE"
    ds.EchoPlanarPulseSequence, ds.SaturationRecovery = "NO", "NO"
    ds.SpectrallySelectedSuppression = "NONE"
    ds.GeometryOfKSpaceTraversal, ds.RectilinearPhaseEncodeReordering = "RECTILINEAR", "LINEAR"
    ds.SegmentedKSpaceTraversal, ds.OversamplingPhase = "SINGLE", "NONE"
    ds.NumberOfKSpaceTrajectories = 1


def _content(k: int, index: int) -> Dataset:
    return item(
        FrameAcquisitionNumber=1,
        FrameReferenceDateTime=_TAKEN,
        FrameAcquisitionDateTime=_TAKEN,
        FrameAcquisitionDuration=1.0,
        StackID="1",
        InStackPositionNumber=k + 1,
        DimensionIndexValues=[k + 1],
    )


def _groups(affine: NDArray[Any], modality: str) -> dict[str, Dataset]:
    steps = np.linalg.norm(affine[:3, :3], axis=0)
    cosines = affine[:3, :3] / steps
    groups = {
        "PlaneOrientationSequence": item(
            ImageOrientationPatient=_decimals([*cosines[:, 2], *cosines[:, 1]])
        ),
        "PixelMeasuresSequence": item(
            PixelSpacing=_decimals([steps[1], steps[2]]), SliceThickness=1
        ),
        "PixelValueTransformationSequence": item(
            RescaleSlope=1,
            RescaleIntercept=_intercept(modality),
            RescaleType="HU" if modality == "CT" else "US",
        ),
        "FrameVOILUTSequence": item(WindowCenter=40, WindowWidth=400),
        "FrameAnatomySequence": item(
            FrameLaterality="U",
            AnatomicRegionSequence=[
                item(CodeValue="818983003", CodingSchemeDesignator="SCT", CodeMeaning="Abdomen")
            ],
        ),
    }
    return groups | (_ct_groups() if modality == "CT" else _mr_groups())


def _ct_groups() -> dict[str, Dataset]:
    frame = _frame_type()
    return {
        "CTImageFrameTypeSequence": frame,
        "IrradiationEventIdentificationSequence": item(IrradiationEventUID="2.25.1006"),
        "CTAcquisitionTypeSequence": item(
            AcquisitionType="SEQUENCED",
            ConstantVolumeFlag="NO",
            FluoroscopyFlag="NO",
        ),
        "CTAcquisitionDetailsSequence": item(
            RotationDirection="CW",
            RevolutionTime=0.5,
            SingleCollimationWidth=1.0,
            TotalCollimationWidth=1.0,
            TableHeight=100,
            GantryDetectorTilt=0,
            DataCollectionDiameter=500,
        ),
        "CTTableDynamicsSequence": item(TableSpeed=1.0, TableFeedPerRotation=1.0),
        "CTPositionSequence": item(
            TablePosition=0.0,
            DataCollectionCenterPatient=[0.0, 0.0, 0.0],
            ReconstructionTargetCenterPatient=[0.0, 0.0, 0.0],
        ),
        "CTGeometrySequence": item(
            DistanceSourceToDetector=1000, DistanceSourceToDataCollectionCenter=500.0
        ),
        "CTReconstructionSequence": item(
            ReconstructionAlgorithm="FILTER_BACK_PROJ",
            ConvolutionKernel="B30f",
            ConvolutionKernelGroup="SOFT_TISSUE",
            ReconstructionDiameter=400,
            ReconstructionPixelSpacing=[1.0, 1.0],
            ReconstructionAngle=360.0,
            ImageFilter="NONE",
        ),
        "CTExposureSequence": item(
            ExposureTimeInms=500.0,
            XRayTubeCurrentInmA=100.0,
            ExposureInmAs=50.0,
            ExposureModulationType="NONE",
            CTDIvol=1.0,
            CTDIPhantomTypeCodeSequence=[
                item(
                    CodeValue="113691",
                    CodingSchemeDesignator="DCM",
                    CodeMeaning="IEC Body Dosimetry Phantom",
                )
            ],
        ),
        "CTXRayDetailsSequence": item(
            KVP=120,
            FocalSpots=[1.0],
            FilterType="NONE",
            FilterMaterial="ALUMINUM",
            CalciumScoringMassFactorPatient=1.0,
            EnergyWeightingFactor=1.0,
        ),
    }


def _mr_groups() -> dict[str, Dataset]:
    frame = _frame_type()
    frame.ComplexImageComponent, frame.AcquisitionContrast = "MAGNITUDE", "T1"
    return {
        "MRImageFrameTypeSequence": frame,
        "MRTimingAndRelatedParametersSequence": item(
            RepetitionTime=500,
            FlipAngle=90,
            EchoTrainLength=1,
            RFEchoTrainLength=1,
            GradientEchoTrainLength=0,
            GradientOutputType="DB_DT",
            GradientOutput=1.0,
            OperatingModeSequence=[
                item(OperatingModeType="STATIC FIELD", OperatingMode="IEC_NORMAL")
            ],
            SpecificAbsorptionRateSequence=[
                item(
                    SpecificAbsorptionRateDefinition="IEC_WHOLE_BODY",
                    SpecificAbsorptionRateValue=0.1,
                )
            ],
        ),
        "MREchoSequence": item(EffectiveEchoTime=12.5),
        "MRModifierSequence": item(
            InversionRecovery="NO",
            FlowCompensation="NONE",
            Spoiling="NONE",
            T2Preparation="NO",
            SpectrallySelectedExcitation="NONE",
            SpatialPresaturation="NONE",
            PartialFourier="NO",
            ParallelAcquisition="NO",
        ),
        "MRFOVGeometrySequence": item(
            InPlanePhaseEncodingDirection="ROW",
            MRAcquisitionFrequencyEncodingSteps=64,
            MRAcquisitionPhaseEncodingStepsInPlane=64,
            PercentSampling=100,
            PercentPhaseFieldOfView=100,
        ),
        "MRAveragesSequence": item(NumberOfAverages=1),
        "MRImagingModifierSequence": item(
            MagnetizationTransfer="NONE",
            BloodSignalNulling="NO",
            Tagging="NONE",
            TransmitterFrequency=63.8,
            PixelBandwidth=100,
        ),
        "MRReceiveCoilSequence": item(
            ReceiveCoilName="BODY",
            ReceiveCoilManufacturerName="PHANTOM",
            ReceiveCoilType="BODY",
            QuadratureReceiveCoil="YES",
        ),
        "MRTransmitCoilSequence": item(
            TransmitCoilName="BODY",
            TransmitCoilManufacturerName="PHANTOM",
            TransmitCoilType="BODY",
        ),
    }


def _frame_type() -> Dataset:
    return item(
        FrameType=["ORIGINAL", "PRIMARY", "VOLUME", "NONE"],
        PixelPresentation="MONOCHROME",
        VolumetricProperties="VOLUME",
        VolumeBasedCalculationTechnique="NONE",
    )


def _decimals(values: Sequence[float] | NDArray[Any]) -> list[str]:
    """Return numbers as a scanner writes them: decimal strings of at most 16 characters."""
    return [f"{value:.9f}"[:16] for value in values]
