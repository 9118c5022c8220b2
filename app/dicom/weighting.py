"""What an MR series is weighted by: from the physics of its sequence, else from its descriptions.

The limits are those of textbooks at 1.5 and 3 T, wide enough for what scanners really send, with
gaps between them where timing alone does not decide.
"""

import re
from collections.abc import Mapping
from typing import NamedTuple

from app.dicom.image import B_VALUE, Image
from app.dicom.series import Scalar

_DIFFUSION_B = 50
"""Smallest b-value in s/mm² that weights by diffusion; lower ones are references."""

_KEYWORDS = (
    "RepetitionTime",
    "EchoTime",
    "InversionTime",
    "FlipAngle",
    "ScanningSequence",
    "SequenceVariant",
    "ImageType",
    B_VALUE,
)
_BY_NAME = (
    ("adc", r"adc|apparent diffusion\w*"),
    ("dwi", r"dwi|diff\w*|trace\w*|ep2d diff\w*|dti|b\d{3,4}"),
    ("flair", r"(?<!t1 )(?<!t1)(?:\w*flair\w*|tirm dark\w*)"),
    ("stir", r"\w*stir|tirm"),
    ("swi", r"swi|swan|suscept\w*|swip?|venobold"),
    ("t2star", r"t2 ?\*|t2 ?star|gre t2|hemo|medic|t2 fl2d|merge"),
    ("t1", r"t1(?!\d)\w*|mp ?-?rage|bravo|f?spgr|vibe|lava|thrive|tfl3d|mp2rage"),
    ("t2", r"t2(?!\d)\w*"),
    ("pd", r"pd(?:w|fs)?|proton ?density|dp"),
)
_NAMES = [(name, re.compile(rf"(?<![a-z0-9])(?:{words})(?![a-z0-9])")) for name, words in _BY_NAME]


class Sequence(NamedTuple):
    """The numbers that weight an image; times in ms, 0 where the header does not say."""

    tr: float
    te: float
    ti: float
    flip_deg: float
    scanning: frozenset[str]
    variant: frozenset[str]
    image_type: frozenset[str]
    b: float | None


def weightings(
    tags: Mapping[str, tuple[Scalar, ...]], images: Mapping[str, Image]
) -> tuple[str, ...]:
    """Return what the images are weighted by; several values when they differ."""
    looks = {tuple(image.get(each, ()) for each in _KEYWORDS) for image in images.values()}
    angiography = "Y" in tags.get("AngioFlag", ())
    sequences = [_sequence(look) for look in looks]
    diffusion = any((each.b or 0) >= _DIFFUSION_B for each in sequences)
    found = {"" if angiography else _by_physics(each, diffusion=diffusion) for each in sequences}
    if "" in found:
        found = found - {""} or {_by_name(tags)}
    return tuple(sorted(found - {""}))


def _sequence(look: tuple[tuple[Scalar, ...], ...]) -> Sequence:
    tr, te, ti, flip, *words, b = look
    scanning, variant, image_type = (
        frozenset(str(word).upper() for word in each) for each in words
    )
    return Sequence(
        tr=_number(tr) or 0,
        te=_number(te) or 0,
        ti=_number(ti) or 0,
        flip_deg=_number(flip) or 0,
        scanning=scanning,
        variant=variant,
        image_type=image_type,
        b=_number(b),
    )


def _number(values: tuple[Scalar, ...]) -> float | None:
    return float(values[0]) if values and isinstance(values[0], int | float) else None


def _by_physics(seen: Sequence, *, diffusion: bool) -> str:
    if "ADC" in seen.image_type or "ADC_UNSPECIFIED" in seen.image_type:
        return "adc"
    if diffusion or {"DIFFUSION", "TRACEW"} & seen.image_type:
        return "dwi"
    if "SWI" in seen.image_type:
        return "swi"
    if not seen.te or not seen.tr:
        return ""
    if seen.ti > 0 or "IR" in seen.scanning:
        return _by_inversion(seen)
    return _by_gradient_echo(seen) if "GR" in seen.scanning else _by_spin_echo(seen)


def _by_inversion(seen: Sequence) -> str:
    """Name sequences by what their inversion pulse suppresses: water, fat or nothing."""
    long_echo = seen.te >= 60  # noqa: PLR2004  # ms, as all below
    if long_echo and (seen.ti >= 1500 or (not seen.ti and seen.tr >= 5000)):  # noqa: PLR2004
        return "flair"
    if 80 <= seen.ti <= 280 and "GR" not in seen.scanning:  # noqa: PLR2004
        return "stir"
    if seen.te < 30 and (300 <= seen.ti < 1500 or (not seen.ti and seen.tr < 3000)):  # noqa: PLR2004
        return "t1"
    return ""


def _by_gradient_echo(seen: Sequence) -> str:
    steady = "SS" in seen.variant and "SP" not in seen.variant
    if "EP" in seen.scanning or seen.te >= 12:  # noqa: PLR2004
        return "t2star" if seen.te >= 12 else ""  # noqa: PLR2004
    if steady and seen.flip_deg >= 35:  # noqa: PLR2004  # balanced: T2/T1, neither of both
        return ""
    return "t1" if seen.te < 8 and seen.tr < 500 and seen.flip_deg > 7 else ""  # noqa: PLR2004


def _by_spin_echo(seen: Sequence) -> str:
    if seen.tr >= 1500:  # noqa: PLR2004
        if seen.te >= 60:  # noqa: PLR2004
            return "t2"
        return "pd" if seen.te < 50 else ""  # noqa: PLR2004
    return "t1" if seen.te < 35 and "SE" in seen.scanning else ""  # noqa: PLR2004


def _by_name(tags: Mapping[str, tuple[Scalar, ...]]) -> str:
    for keyword in ("SeriesDescription", "ProtocolName", "SequenceName"):
        for text in tags.get(keyword, ()):
            plain = re.sub(r"[_\-]+", " ", str(text).casefold())
            for name, words in _NAMES:
                if words.search(plain):
                    return name
    return ""
