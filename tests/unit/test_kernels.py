"""What reconstruction kernels are made for, vendor by vendor.

Covered: names as they stand in ConvolutionKernel of real scanners. Not covered: whether a site uses
a kernel for what its vendor made it for.
"""

import pytest

from app.dicom.kernels import kernel_classes

SOFT, BONE, LUNG, SHARP = ("soft",), ("bone",), ("lung",), ("bone", "lung")


@pytest.mark.parametrize(
    ("maker", "names", "classes"),
    [
        ("GE MEDICAL SYSTEMS", "STANDARD SOFT DETAIL CHST STND", SOFT),
        ("GE MEDICAL SYSTEMS", "LUNG", LUNG),
        ("GE MEDICAL SYSTEMS", "BONE BONEPLUS", BONE),
        ("GE MEDICAL SYSTEMS", "EDGE ULTRA", SHARP),
        ("GE MEDICAL SYSTEMS", "NONE UNKNOWN", ()),
        ("SIEMENS", "B10s B20f B30f B31s B40f B45f I30f D30f Q33f", SOFT),
        ("Siemens Healthineers", "Br36d Br40d Br40f Br44 Bf37f Bv36d Qr40", SOFT),
        ("SIEMENS", "H20s H31s H40s Hr38 Hr40h J40s", SOFT),
        ("SIEMENS", "B50f B60f B70f B80f I70f Br59 Br64 Br69d", SHARP),
        ("SIEMENS", "Bl57 Bl64d", LUNG),
        ("SIEMENS", "H60s H70h Hr60 Hr68 U90u J70h Ur77", BONE),
        ("SIEMENS", "T20f T80f S80s SOMETHING B3", ()),
        ("Philips", "A B UA UB BB XCA", SOFT),
        ("Philips", "L YA YB", LUNG),
        ("Philips", "D E YC YD", BONE),
        ("TOSHIBA", "FC01 FC03 FC08 FC13 FC18 FC21 FC26 FC43 FC64", SOFT),
        ("TOSHIBA", "FC30 FC35 FC81", BONE),
        ("CANON_MEC", "FC51 FC52 FC56 FC85", LUNG),
        ("TOSHIBA", "FC70 FC99 FC", ()),
        ("UIH", "B_SOFT_A B_SOFT_B B_SOFT_C B_STANDARD_A H_SOFT_B", SOFT),
        ("UIH", "B_SHARP_C B_VSHARP_C", SHARP),
        ("UIH", "H_BONE_A", BONE),
        ("", "Lung", LUNG),
        ("PHANTOM", "NONE", ()),
    ],
)
def test_kernels_are_read_as_their_vendor_names_them(
    maker: str, names: str, classes: tuple[str, ...]
) -> None:
    """Each name alone, in any case."""
    for name in names.split():
        for written in (name, name.lower(), f"{name} "):
            tags = {"Manufacturer": (maker,), "ConvolutionKernel": (written,)}
            assert kernel_classes(tags) == classes, written


def test_two_kernels_in_one_series_are_both_told() -> None:
    """A mixed series must not pass for a soft one."""
    tags = {"Manufacturer": ("SIEMENS",), "ConvolutionKernel": ("B30f", "B70f")}
    assert kernel_classes(tags) == ("bone", "lung", "soft")


def test_the_strength_of_the_iteration_is_no_kernel() -> None:
    """Siemens writes two values: the kernel and a number."""
    tags = {"Manufacturer": ("SIEMENS",), "ConvolutionKernel": ("3", "Br40f")}
    assert kernel_classes(tags) == ("soft",)


def test_no_kernel_is_no_class() -> None:
    """MR has none."""
    assert kernel_classes({}) == ()
