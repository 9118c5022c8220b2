"""What facts need of one image: the attributes whose values must be seen together, and no more."""

import math
from collections.abc import Mapping
from typing import Final

import pydicom
from pydicom.tag import Tag
from pydicom.uid import JPEGBaseline8Bit, JPEGExtended12Bit, JPEGLSNearLossless

from app.dicom.frames import is_enhanced
from app.dicom.series import Scalar, scalars
from app.dicom.tags import MAX_TEXT, MAX_VALUES

Image = Mapping[str, tuple[Scalar, ...]]
"""Keyword → values in the order of the header; absent where the header has none."""

FRAMES: Final = "frames"
"""Key of the number of frames, of images that hold several or may and do not tell them apart."""
ENHANCED: Final = "enhanced"
"""Key of the number of frames, of images that describe each of them, and of these frames."""
B_VALUE: Final = "b"
"""Key of the b-value, wherever the vendor keeps it."""
LOSSY: Final = "lossy"
"""Key of images that were compressed with loss."""
PIXELS: Final = "pixels"
"""Key of the digest of the values, known only where images had to be compared."""

NOT_OF_FRAMES = frozenset(
    {FRAMES, "ImageOrientationPatient", "ImagePositionPatient", "PixelSpacing"}
)
"""Keys that say nothing of frames that are described: they lie where their own groups say."""

TELL_APART = (
    "TemporalPositionIdentifier",
    "TemporalPositionIndex",
    "TriggerTime",
    "NominalPercentageOfCardiacPhase",
    "EchoNumbers",
    "EchoTime",
    "InversionTime",
    "FlipAngle",
    B_VALUE,
    "DiffusionGradientOrientation",
    "ImageType",
    "ComplexImageComponent",
    "KVP",
    "ConvolutionKernel",
    "SliceThickness",
)
"""Attributes that say on purpose what is different between images at one position."""

TELL_APART_IN_STEP = (
    "FrameReferenceTime",
    "AcquisitionDateTime",
    "AcquisitionTime",
    "AcquisitionNumber",
)
"""Attributes that differ for many reasons; they count where every position has as many of them."""

_KEPT = (
    *TELL_APART,
    *TELL_APART_IN_STEP,
    "AcquisitionDate",
    "Columns",
    "FrameOfReferenceUID",
    "ImageOrientationPatient",
    "ImagePositionPatient",
    "PixelSpacing",
    "RepetitionTime",
    "Rows",
    "ScanningSequence",
    "SequenceVariant",
    "SeriesDate",
    "SeriesTime",
)
_TAGS = {keyword: Tag(keyword) for keyword in _KEPT if keyword != B_VALUE}
_LOSSY_SYNTAXES = {JPEGBaseline8Bit, JPEGExtended12Bit, JPEGLSNearLossless}
"""Encodings that always lose something; JPEG 2000 may or may not."""
_MOST_FRAMES = 1_000_000


def image_of(ds: pydicom.Dataset) -> dict[str, tuple[Scalar, ...]]:
    """Return what is kept of one header."""
    image = attributes_of(ds, is_mr="MR" in scalars(ds, "Modality"))
    image[FRAMES] = _frames(ds)
    image[LOSSY] = ("yes",) if _is_lossy(ds) else ()
    return {keyword: values for keyword, values in image.items() if values}


def attributes_of(ds: pydicom.Dataset, *, is_mr: bool) -> dict[str, tuple[Scalar, ...]]:
    """Return what is kept of the attributes of one header, or of one frame."""
    image: dict[str, tuple[Scalar, ...]] = {
        keyword: _short(scalars(ds, tag)) for keyword, tag in _TAGS.items() if tag in ds
    }
    if is_mr:  # private blocks cost time
        image[B_VALUE] = _b_value(ds)
        image["DiffusionGradientOrientation"] = _gradient(ds)
    return {keyword: values for keyword, values in image.items() if values}


def _short(values: tuple[Scalar, ...]) -> tuple[Scalar, ...]:
    """Bound what a hostile header can make us keep."""
    cut = (value[:MAX_TEXT] if isinstance(value, str) else value for value in values[:MAX_VALUES])
    return tuple(cut)


def _frames(ds: pydicom.Dataset) -> tuple[int, ...]:
    """Return the number of frames, or nothing for a plain single-frame image."""
    said = scalars(ds, "NumberOfFrames")
    if said in ((), (1,)) and not is_enhanced(ds):
        return (1,) if "MOSAIC" in scalars(ds, "ImageType") else ()
    number = said[0] if said and isinstance(said[0], int) else 1
    return (min(max(number, 1), _MOST_FRAMES),)


def _is_lossy(ds: pydicom.Dataset) -> bool:
    """Ask the header, and the encoding, since not every sender says in the header what it did."""
    syntax = getattr(getattr(ds, "file_meta", None), "TransferSyntaxUID", "")
    return "01" in scalars(ds, "LossyImageCompression") or str(syntax) in _LOSSY_SYNTAXES


def _b_value(ds: pydicom.Dataset) -> tuple[Scalar, ...]:
    """Return the b-value in s/mm² from the standard's attributes or else the vendor's own."""
    standard = scalars(ds, "DiffusionBValue") or _nested(ds, "DiffusionBValue")
    found = standard or _siemens(ds, 0x0C) or _private(ds, 0x2001, "Philips Imaging DD 001", 0x03)
    if not found:
        found = _private(ds, 0x0043, "GEMS_PARM_01", 0x39)
    number = _number(found[0]) if found else None
    if number is None or number < 0:
        return ()
    # GE adds 10⁹ to b-values whose images it has corrected.
    return (number % 100_000 if number >= 1e9 else number,)  # noqa: PLR2004  # said above


def _gradient(ds: pydicom.Dataset) -> tuple[Scalar, ...]:
    """Return the direction of the diffusion gradient, in the vendor's own axes."""
    keyword = "DiffusionGradientOrientation"
    found = scalars(ds, keyword) or _nested(ds, keyword) or _siemens(ds, 0x0E)
    if not found:
        axes = (_private(ds, 0x0019, "GEMS_ACQU_01", element) for element in (0xBB, 0xBC, 0xBD))
        found = tuple(value for axis in axes for value in axis)
    return _short(found)


def _nested(ds: pydicom.Dataset, keyword: str) -> tuple[Scalar, ...]:
    """Return the values of an attribute of the MR Diffusion Sequence."""
    for item in _items(ds, "MRDiffusionSequence"):
        if values := scalars(item, keyword):
            return values
        for inner in _items(item, "DiffusionGradientDirectionSequence"):
            if values := scalars(inner, keyword):
                return values
    return ()


def _items(ds: pydicom.Dataset, keyword: str) -> list[pydicom.Dataset]:
    found = ds.get(keyword)
    return [item for item in found or () if isinstance(item, pydicom.Dataset)]


def _siemens(ds: pydicom.Dataset, element: int) -> tuple[Scalar, ...]:
    return _private(ds, 0x0019, "SIEMENS MR HEADER", element)


def _private(ds: pydicom.Dataset, group: int, creator: str, element: int) -> tuple[Scalar, ...]:
    """Return the values of a private element, found by its creator."""
    try:
        tag = ds.private_block(group, creator).get_tag(element)
    except KeyError:
        return ()
    raw = ds[tag].value if tag in ds else None
    if isinstance(raw, bytes):  # its VR was lost on the way
        return tuple(raw.decode("latin-1").strip(" \0").split("\\"))
    return scalars(ds, tag)


def _number(value: Scalar) -> float | None:
    try:
        number = float(value)
    except ValueError:
        return None
    return number if math.isfinite(number) else None
