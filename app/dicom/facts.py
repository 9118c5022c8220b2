"""What the headers of a series say together, beyond the values of single attributes.

Conditions and gates ask for these by name. What cannot be known from the headers is absent, and a
condition on it then fails with `found nothing`.
"""

import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from datetime import datetime

from app.dicom.columns import unpacked
from app.dicom.contrast import contrast
from app.dicom.image import B_VALUE, FRAMES, Image
from app.dicom.kernels import kernel_classes
from app.dicom.kind import kind_facts
from app.dicom.layout import layout_facts
from app.dicom.series import Scalar
from app.dicom.weighting import weightings

FACTS: Mapping[str, str] = {
    "slices": "number of images; each frame of a multi-frame image counts",
    "positions": "number of different slice positions",
    "per_position": "how many images lie at a position; several values when that varies",
    "time_points": "number of different points in time at each position",
    "time_point": "which of them this is, where `split: time` makes each a candidate of its own",
    "duplicates": "images at a position that is taken, told apart by nothing in their headers",
    "duplicates_differ": "yes when such images hold other pixels than the first one there",
    "spacing_mm": "usual distance between neighbouring positions",
    "spacing_deviation": "how far a slice lies from its place on the regular grid, at most, as a"
    " part of the spacing; gaps are left out",
    "missing_slices": "slices that would fill the gaps",
    "orientation": "axial, coronal, sagittal or oblique; several values when mixed",
    "orientations": "number of different orientations",
    "tilt_deg": "angle by which the stack is sheared, as a tilted gantry makes it; 0 is none",
    "extent_mm": "from the first to the last slice, both included",
    "field_mm": "the shorter side of the image",
    "sizes": "number of different sizes of the image, in pixels or in mm",
    "placed": "yes when every image has a position, an orientation and a pixel spacing",
    "frames_of_reference": "number of different frames of reference",
    "kind": "original, derived, reformatted, projection, localizer or secondary, or not_image",
    "multi_frame": "no, enhanced where images describe each of their frames, or yes; yes also for"
    " mosaics",
    "lossy": "yes when an image was compressed with loss",
    "b_values": "the b-values of diffusion images",
    "contrast": "yes or no, from the contrast agent or else from the descriptions",
    "kernel": "soft, bone or lung, from the reconstruction kernel; sharp ones may be both of these",
    "weighting": "t1, t2, pd, flair, stir, dwi, adc, swi or t2star, from the sequence's timing or"
    " else from the descriptions",
    "attenuation_corrected": "yes or no, of PET",
    "acquired_at": "when the acquisition began, ISO 8601",
    "own": "yes when the series was made by this program",
}
"""Name → meaning."""

_TIME = re.compile(
    # ACR-NEMA wrote 1999.12.31 and 10:10:00; the zone is left out, most scanners leave it out
    r"(\d{4})[.-]?(\d\d)[.-]?(\d\d)(\d\d):?(\d\d)(?::?(\d\d))?(?:\.(\d{1,6}))?(?:[+-]\d{4})?"
)

Facts = dict[str, tuple[Scalar, ...]]


def facts_of(tags: Mapping[str, tuple[Scalar, ...]], images: Mapping[str, Image]) -> Facts:
    """Return the facts of one series; unknown ones are absent."""
    images = unpacked(images)
    modality = {str(value).upper() for value in tags.get("Modality", ())}
    facts: Facts = {
        "slices": (sum(int(image.get(FRAMES, (1,))[0]) for image in images.values()),),
        "frames_of_reference": (_frames_of_reference(images),),
        "b_values": tuple(sorted({b for image in images.values() for b in image.get(B_VALUE, ())})),
        "contrast": contrast(tags),
        "acquired_at": _acquired_at(images),
    }
    facts |= layout_facts(images) | kind_facts(tags, images)
    if modality == {"CT"}:
        facts["kernel"] = kernel_classes(tags)
    if modality == {"MR"}:
        facts["weighting"] = weightings(tags, images)
    if modality == {"PT"}:
        facts["attenuation_corrected"] = _attenuation_corrected(tags)
    return {name: facts[name] for name in FACTS if facts.get(name)}


def _frames_of_reference(images: Mapping[str, Image]) -> int:
    """Count them; none in all the images is no frame of reference, in some it is another one."""
    found = {image.get("FrameOfReferenceUID") for image in images.values()}
    return 0 if found == {None} else len(found)


def _attenuation_corrected(tags: Mapping[str, tuple[Scalar, ...]]) -> tuple[str, ...]:
    """Say yes where no attribute denies it: Corrected Image, then the method (PS3.3 C.8.9.1)."""
    corrections = {str(value).upper() for value in tags.get("CorrectedImage", ())}
    methods = {str(value).upper() for value in tags.get("AttenuationCorrectionMethod", ())}
    if not corrections and not methods:
        return ()
    denied = (corrections and "ATTN" not in corrections) or (methods and methods <= {"NONE", "NO"})
    return ("no" if denied else "yes",)


def _acquired_at(images: Mapping[str, Image]) -> tuple[str, ...]:
    """Return the earliest time of the best attribute there is, as the site's clock had it."""
    for keywords in (
        ("AcquisitionDateTime",),
        ("AcquisitionDate", "AcquisitionTime"),
        ("SeriesDate", "SeriesTime"),
    ):
        if times := list(_times(images, keywords)):
            return (min(times).isoformat(),)
    return ()


def _times(images: Mapping[str, Image], keywords: tuple[str, ...]) -> Iterator[datetime]:
    for values in {tuple(image.get(each) for each in keywords) for image in images.values()}:
        if found := _TIME.fullmatch("".join(str(each[0]) for each in values if each)):
            text = "{}-{}-{}T{}:{}:{}.{:0<6}".format(*(each or "00" for each in found.groups()))
            with suppress(ValueError):  # the 31st of February, the 25th hour
                yield datetime.fromisoformat(text)
