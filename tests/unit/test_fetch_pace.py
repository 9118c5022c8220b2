"""How long a fetcher waits after failures, and what its status file survives.

Covered: delays, jitter, what an archive asks for, pauses, a file of another version, deaths. Not
covered: that the loop keeps to them (tests/sockets/test_fetch).
"""

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from app.fetch.pace import JITTER, LONGEST_S, Pause, wait_s
from app.fetch.status import SOURCES, SourceStatus, StatusFile, read_status


@given(
    st.lists(st.floats(0.1, 3600), min_size=1, max_size=5),
    st.integers(1, 300),
    st.one_of(st.none(), st.floats(0, 1e9)),
)
def test_a_wait_is_near_its_delay_and_never_shorter_than_asked(
    delays_s: list[float], failures: int, asked_s: float | None
) -> None:
    """The last delay repeats; an archive cannot ask for more than an hour."""
    delay = delays_s[min(failures, len(delays_s)) - 1]
    waited = wait_s(delays_s, failures, asked_s)
    assert min(max(delay * (1 - JITTER), asked_s or 0), LONGEST_S) <= waited <= LONGEST_S
    if asked_s is None:
        assert waited <= delay * (1 + JITTER)


def test_a_pause_begins_after_the_patience_and_ends_with_success() -> None:
    """One bad study is not the archive's fault; three in a row are."""
    pause = Pause((60.0,), patience=2)
    pause.failed()
    pause.failed()
    assert pause.over
    pause.failed()
    assert not pause.over
    pause.worked()
    assert pause.over


def test_an_archive_that_asks_for_a_pause_gets_it_at_once() -> None:
    """Retry-After is about the archive, not about the study."""
    pause = Pause((60.0,), patience=2)
    pause.failed(30.0)
    assert not pause.over


def test_deaths_are_counted_for_each_study_until_it_is_outlived(tmp_path: Path) -> None:
    """The file is read again by each process."""
    for n in (1, 2):
        StatusFile(tmp_path, "pacs").begin("1.2")
        assert StatusFile(tmp_path, "pacs").interrupted() == ("1.2", n)
    status = StatusFile(tmp_path, "pacs")
    status.begin("1.2")
    status.end()
    assert StatusFile(tmp_path, "pacs").interrupted() == ("", 0)
    StatusFile(tmp_path, "pacs").begin("1.2")
    assert StatusFile(tmp_path, "pacs").interrupted() == ("1.2", 1)


def test_a_status_that_cannot_be_read_is_none(tmp_path: Path) -> None:
    """Nothing hangs on it."""
    (tmp_path / SOURCES).mkdir()
    for text in ("", "[]", '{"of": "another version"}'):
        (tmp_path / SOURCES / "pacs.json").write_text(text)
        assert read_status(tmp_path, "pacs") == SourceStatus()
