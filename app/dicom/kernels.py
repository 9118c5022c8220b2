"""What a CT reconstruction kernel is made for; the names are the vendors' own.

Sharp body kernels of some vendors serve bone and lung alike: they are both. Kernels of phantoms and
scout views, and those that are not listed, are nothing; better no answer than a wrong one.
"""

import re
from collections.abc import Callable, Mapping

from app.dicom.series import Scalar

Classes = tuple[str, ...]
SOFT: Classes = ("soft",)
BONE: Classes = ("bone",)
LUNG: Classes = ("lung",)
SHARP: Classes = ("bone", "lung")

_GE = {
    "SOFT": SOFT,
    "STANDARD": SOFT,
    "STND": SOFT,
    "STD": SOFT,
    "DETAIL": SOFT,
    "CHST": SOFT,
    "CHEST": SOFT,
    "LUNG": LUNG,
    "BONE": BONE,
    "BONEPLUS": BONE,
    "BONE PLUS": BONE,
    "EDGE": SHARP,
    "ULTRA": SHARP,
}
_PHILIPS = {
    **dict.fromkeys(("A", "B", "BB", "SA", "SB", "UA", "UB", "UC", "XCA", "XCB", "XCC"), SOFT),
    **dict.fromkeys(("CA", "CB", "CC", "BODY ROUTINE", "BODY SOFTTISSUE", "BRAIN ROUTINE"), SOFT),
    **dict.fromkeys(("C", "XCD", "CD", "SHARPPLUS", "BODY SHARP", "BODY SHARPPLUS"), SHARP),
    **dict.fromkeys(("D", "E", "EA", "EB", "EC", "F", "YC", "YD"), BONE),
    **dict.fromkeys(("L", "YA", "YB"), LUNG),
}
_CANON = (
    (range(1, 30), SOFT),  # body, with and without correction of beam hardening, and brain
    (range(30, 40), BONE),
    (range(40, 50), SOFT),  # brain
    (range(50, 60), LUNG),
    (range(60, 70), SOFT),
    (range(80, 83), BONE),
    (range(83, 90), LUNG),
)
_SIEMENS = re.compile(r"(?P<family>[A-Z])(?P<kind>[A-Z]?)(?P<sharpness>\d\d)[A-Z]?(?:[ \\].*)?")
_FIRST_SHARP = 50
"""Siemens numbers grow with sharpness; from here on soft tissue drowns in noise."""


def kernel_classes(tags: Mapping[str, tuple[Scalar, ...]]) -> Classes:
    """Return what the kernels of a series are made for."""
    makers = " ".join(str(value).upper() for value in tags.get("Manufacturer", ()))
    # Siemens writes the strength of the iteration beside the kernel: Br40f\3.
    names = [str(value).upper().strip() for value in tags.get("ConvolutionKernel", ())]
    read = next((read for word, read in _VENDORS if word in makers), _by_word)
    return tuple(sorted({each for name in names for each in read(name)}))


def _ge(name: str) -> Classes:
    return _GE.get(re.sub(r"^HD ?|[#*+ ]+$", "", name), ())


def _siemens(name: str) -> Classes:
    found = _SIEMENS.fullmatch(name)
    if not found:
        return ()
    family, kind = found["family"], found["kind"]
    if family in {"T", "S"}:
        return ()  # topograms, phantoms
    if int(found["sharpness"]) < _FIRST_SHARP:
        return SOFT
    if kind == "L":
        return LUNG
    return BONE if family in {"H", "J", "U", "C"} else SHARP


def _philips(name: str) -> Classes:
    return _PHILIPS.get(re.sub(r"[ _-]+", " ", name), ())


def _canon(name: str) -> Classes:
    found = re.match(r"FC(\d\d?)", name)
    number = int(found[1]) if found else -1
    return next((classes for numbers, classes in _CANON if number in numbers), ())


def _by_word(name: str) -> Classes:
    """Read a name that says what it is for, such as B_SOFT_B or LUNG STD."""
    words = set(re.split(r"[^A-Z]+", name))
    for classes, known in (
        (LUNG, {"LUNG", "PULMO"}),
        (BONE, {"BONE", "OSTEO", "EAR", "IAC"}),
        (SHARP, {"SHARP", "VSHARP"}),
        (SOFT, {"SOFT", "VSOFT", "SMOOTH", "STANDARD", "STD", "STND", "BRAIN", "MEDIUM"}),
    ):
        if words & known:
            return classes
    return ()


_VENDORS: tuple[tuple[str, Callable[[str], Classes]], ...] = (
    ("GE ", _ge),
    ("GENERAL ELECTRIC", _ge),
    ("GEMS", _ge),
    ("SIEMENS", _siemens),
    ("PHILIPS", _philips),
    ("TOSHIBA", _canon),
    ("CANON", _canon),
)
"""Word in the manufacturer's name → how its kernels are read; others are read by their words."""
