"""When a study counts as complete.

Covered: both signals and their precedence, with `now` as an argument. Not covered: counts asked of
an archive, which do not exist yet.
"""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from app.config import Assemble
from app.pipeline.assemble import complete_at

START = datetime(2026, 1, 1, tzinfo=UTC)
RULES = Assemble(settle_s=2, quiet_s=60)


@dataclass(frozen=True)
class Arrived:
    """A study as the log has it."""

    last_received_at: datetime
    released_at: datetime | None


def at(seconds: float) -> datetime:
    """Return a time after the start."""
    return START + timedelta(seconds=seconds)


def test_a_released_association_counts_after_the_settle_time() -> None:
    """The usual case: the sender is done and says so."""
    due, signal = complete_at(Arrived(at(0), at(1)), RULES)
    assert due == at(3)
    assert signal == "association released 2 s ago"


def test_without_a_release_only_quiet_time_counts() -> None:
    """The sender vanished, or keeps its association open."""
    due, signal = complete_at(Arrived(at(5), None), RULES)
    assert due == at(65)
    assert signal == "no object for 60 s"


def test_quiet_time_wins_where_it_is_shorter_than_the_settle_time() -> None:
    """A site may wait long after releases and still bound the wait."""
    due, signal = complete_at(Arrived(at(0), at(1)), Assemble(settle_s=600, quiet_s=60))
    assert due == at(60)
    assert signal == "no object for 60 s"


@given(st.floats(0, 1000), st.floats(0, 1000))
def test_a_study_is_never_complete_before_its_last_object(last: float, released: float) -> None:
    """Whatever the order of the rows, the settle time runs from the later one."""
    due, _ = complete_at(Arrived(at(last), at(released)), RULES)
    assert due >= at(last) + timedelta(seconds=2)
