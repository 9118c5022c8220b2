"""Which forms of a result an archive gets.

Covered: the choice of one segmentation and what takes its place, and the names of the files. Not
covered: that an archive's answer leads to another form (tests/sockets/test_couriers.py).
"""

import pytest

from app.results.forms import Form, file_name, forms_for, in_place_of

SEG, LABELMAP, FRACTIONAL, SR = Form.SEG, Form.LABELMAP, Form.FRACTIONAL, Form.SR


@pytest.mark.parametrize(
    ("accepts", "preferred", "segments", "overlaps", "expected"),
    [
        ([SEG, SR], SEG, 4, False, (SEG, SR)),
        ([SR, SEG], LABELMAP, 4, False, (SEG, SR)),
        ([SEG, LABELMAP], SEG, 4, False, (SEG,)),
        ([SEG, LABELMAP], LABELMAP, 4, False, (LABELMAP,)),
        ([SEG, LABELMAP], LABELMAP, 4, True, (SEG,)),
        ([SEG, LABELMAP], SEG, 21, False, (LABELMAP,)),
        ([SEG, LABELMAP], SEG, 21, True, (SEG,)),
        ([SEG], SEG, 104, False, (SEG,)),
        ([LABELMAP], SEG, 4, False, (LABELMAP,)),
        ([LABELMAP, SR], SEG, 4, True, (SR,)),
        ([SEG, FRACTIONAL], SEG, 4, False, (SEG,)),
        ([SEG, FRACTIONAL], FRACTIONAL, 104, False, (FRACTIONAL,)),
        ([FRACTIONAL, SR], SEG, 4, False, (SR,)),
        ([LABELMAP, SEG], FRACTIONAL, 4, False, (SEG,)),
        ([Form.OVERVIEW, Form.RTSTRUCT], SEG, 4, False, (Form.RTSTRUCT, Form.OVERVIEW)),
    ],
)
def test_an_archive_gets_one_segmentation_that_it_accepts(
    accepts: list[Form], preferred: Form, segments: int, overlaps: bool, expected: tuple[Form, ...]
) -> None:
    """By the card where it can, the label map where there are many segments, never two."""
    chosen = forms_for(accepts, preferred=preferred, segments=segments, overlaps=overlaps)
    assert chosen == expected


def test_the_binary_segmentation_takes_the_place_of_one_that_is_not_known() -> None:
    """The rest stays; after the binary one there is nothing left to try."""
    assert in_place_of([LABELMAP, SR]) == (SEG, SR)
    assert in_place_of([SEG, SR]) is None
    assert in_place_of([SR]) is None


def test_a_report_is_made_for_each_segmentation_it_lies_beside() -> None:
    """Else it would refer to an object that the archive does not hold."""
    assert file_name(SR, (SEG, SR)) == "sr-seg.dcm"
    assert file_name(SR, (LABELMAP, SR)) == "sr-labelmap.dcm"
    assert file_name(SR, (SR,)) == "sr-none.dcm"
    assert file_name(LABELMAP, (LABELMAP, SR)) == "labelmap.dcm"
    assert file_name(Form.CSV, (SEG, Form.CSV)) == "measurements.csv"
