"""placeholder"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from app.dicom.calling import Line
from app.dicom.encoded import Identifiers


@dataclass(frozen=True)
class Report:
    held: frozenset[str]
    failed: Mapping[str, int]
    words: str = ""


def ask(
    line: Line, transaction_uid: str, uids: Sequence[Identifiers], wait_s: float
) -> Report | None: ...
