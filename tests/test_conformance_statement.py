"""The conformance statement says what the code does: UIDs, statuses, rejections and limits.

Covered: every table with UIDs or numbers, in both directions where a list is closed. Not covered:
the sentences between them, and the claims for IHE AIR, which tests of reports and validators hold.
"""

import re
from pathlib import Path

from pydicom.pixels import get_decoder
from pydicom.uid import UID

from app.dicom import query, wire
from app.dicom.dimse import IMPLEMENTATION_NAME, IMPLEMENTATION_UID, TRANSFER_SYNTAXES, Status
from app.dicom.references import COMMITMENT
from app.door import negotiation
from app.door.negotiation import SUPPORTED, Rejection
from app.results.forms import TABLES, Form
from app.results.report import SEGMENTATIONS

STATEMENT = Path(__file__).resolve().parent.parent / "deploy" / "conformance.md"
TEXT = STATEMENT.read_text(encoding="utf-8")


def section(title: str) -> str:
    """Return what stands under a heading, up to the next one."""
    found = re.search(
        rf"^#+ {re.escape(title)}.*?\n(.*?)(?=^#+ |\Z)", TEXT, re.DOTALL | re.MULTILINE
    )
    assert found, f"no section {title!r}"
    return found[1]


def first_cells(table: str) -> list[str]:
    """Return the code in the first cell of each row."""
    return re.findall(r"^\| `([^`]+)`", table, re.MULTILINE)


def test_the_provider_accepts_what_is_said() -> None:
    """The same syntaxes in the same order, and as many classes."""
    accepted = section("What the provider accepts")
    listed = re.findall(r"^\| [^|]+ \| `([0-9.]+)` \|", accepted, re.MULTILINE)
    assert listed == [str(each) for each in TRANSFER_SYNTAXES]
    storage = [
        each
        for each in SUPPORTED
        if each.abstract_syntax not in {negotiation.VERIFICATION, COMMITMENT}
    ]
    assert f"all {len(storage)} storage SOP classes" in accepted
    assert {str(s) for each in storage for s in each.transfer_syntax} == {*listed}
    assert f"`{negotiation.VERIFICATION}`" in accepted
    assert f"`{COMMITMENT}`" in accepted


def test_what_models_can_read_has_a_decoder() -> None:
    """The environment that requirements.txt makes has a decoder, or the table says no."""
    table = section("What the provider accepts")
    told = re.findall(r"^\| [^|]+ \| `([0-9.]+)` \| (\w+)", table, re.MULTILINE)
    assert len(told) == len(TRANSFER_SYNTAXES)
    for syntax, answer in told:
        try:
            readable = get_decoder(UID(syntax)).is_available
        except NotImplementedError:
            readable = False
        assert readable == (answer != "no"), syntax


def test_the_statuses_are_those_of_the_code() -> None:
    """No status is sent that is not told, and none is told that is not sent."""
    told = first_cells(section("Statuses of the storage provider"))
    rejections = [each for each in told if " " in each]
    assert {*told} - {*rejections} == {f"{each:04X}" for each in Status}
    ours = [each for each in vars(negotiation).values() if isinstance(each, Rejection)]
    assert {*rejections} == {" ".join(map(str, each.code)) for each in ours}


def test_the_association_is_as_told() -> None:
    """Names, UIDs and the longest PDU."""
    told = section("Associations")
    for value in (IMPLEMENTATION_UID, IMPLEMENTATION_NAME, negotiation.APPLICATION_CONTEXT):
        assert f"`{value}`" in told
    assert f"| {wire.MAX_PDU} |" in told


def test_the_user_proposes_what_is_said() -> None:
    """The classes of our own calls."""
    told = section("What the user proposes")
    assert {*re.findall(r"`(1\.2\.840[0-9.]+)`", told)} == {
        query.VERIFICATION,
        query.FIND,
        query.MOVE,
        query.GET,
        COMMITMENT,
    }


def test_every_form_has_its_class() -> None:
    """Each DICOM form has a row; the segmentations' classes are the code's."""
    table = section("Results")
    assert {*first_cells(table)} == {*Form} - TABLES
    told = dict(re.findall(r"^\| `(\w+)` \| [^`]*`([0-9.]+)`", table, re.MULTILINE))
    for form, sop_class in SEGMENTATIONS.items():
        assert told[form] == sop_class
    known = {UID(each).name for form, each in told.items() if form != Form.LABELMAP}
    assert not [name for name in known if name.startswith("1.")], "a UID nobody knows"
