"""What the headers of a series say together, beyond the values of single attributes.

Conditions and gates ask for these by name. What cannot be known from the headers is absent, and a
condition on it then fails with `found nothing`.
"""

from collections.abc import Mapping

FACTS: Mapping[str, str] = {
    "slices": "number of images; each frame of a multi-frame image counts",
    "positions": "number of different slice positions",
    "per_position": "how many images lie at a position; several values when that varies",
    "time_points": "number of different points in time at each position",
    "duplicates": "images at a position that is taken, told apart by nothing in their headers",
    "duplicates_differ": "yes when such images hold other pixels than the first one there",
    "spacing_mm": "usual distance between neighbouring positions",
    "spacing_deviation": "largest deviation from it as a part of it; gaps are left out",
    "missing_slices": "slices that would fill the gaps",
    "orientation": "axial, coronal, sagittal or oblique; several values when mixed",
    "orientations": "number of different orientations",
    "tilt_deg": "angle by which the stack is sheared, as a tilted gantry makes it",
    "extent_mm": "from the first to the last slice, both included",
    "field_mm": "the shorter side of the image",
    "sizes": "number of different sizes of the image, in pixels or in mm",
    "placed": "yes when every image has a position, an orientation and a pixel spacing",
    "frames_of_reference": "number of different frames of reference",
    "kind": "original, derived, reformatted, projection, localizer or secondary, or not_image",
    "multi_frame": "yes or no",
    "lossy": "yes when an image was compressed with loss",
    "b_values": "the b-values of diffusion images",
    "contrast": "yes or no, from the contrast agent or else from the descriptions",
    "kernel": "soft, bone or lung, from the reconstruction kernel",
    "weighting": "t1, t2, pd, flair, dwi, adc, swi or t2star, from the sequence's timing",
    "attenuation_corrected": "yes or no, of PET",
    "acquired_at": "when the acquisition began, ISO 8601",
    "own": "yes when the series was made by this program",
}
"""Name → meaning."""
