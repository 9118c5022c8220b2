"""Storage commitments in the job log, on a real SQLite file.

Covered: who may report, how often, and for how long it is kept. Not covered: how a report comes
(sockets/test_commitment_user, sockets/test_commitment_reports).
"""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from app.store.store import Store
from tests.log_rows import START, at

DAY_S = 24 * 3600.0


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """Return a job log with one transaction in it."""
    with closing(Store.open(tmp_path / "node.db")) as opened:
        opened.ask_commitment("2.25.1", "PACS", START)
        yield opened


def test_only_who_was_asked_can_report(store: Store) -> None:
    """Neither another AE title nor another transaction leaves a trace."""
    assert store.commitment("2.25.1") is None
    assert not store.note_commitment("2.25.1", "OTHER", ["1.1"], {}, at(1))
    assert not store.note_commitment("2.25.2", "PACS", ["1.1"], {}, at(1))
    assert store.commitment("2.25.1") is None
    assert store.commitment("2.25.2") is None


def test_a_report_may_be_told_again(store: Store) -> None:
    """The last one counts."""
    assert store.note_commitment("2.25.1", "PACS", [], {"1.1": 0x0110}, at(1))
    assert store.note_commitment("2.25.1", "PACS", ["1.1"], {"1.2": 0x0112}, at(2))
    report = store.commitment("2.25.1")
    assert report is not None
    assert (report.held, report.failed) == ({"1.1"}, {"1.2": 0x0112})


def test_a_commitment_is_kept_for_a_month(store: Store) -> None:
    """The next request forgets what is older, and only that."""
    store.ask_commitment("2.25.2", "PACS", at(30 * DAY_S))
    assert store.note_commitment("2.25.1", "PACS", ["1.1"], {}, at(30 * DAY_S))
    store.ask_commitment("2.25.3", "PACS", at(30 * DAY_S + 1))
    assert store.commitment("2.25.1") is None
    assert not store.note_commitment("2.25.1", "PACS", ["1.1"], {}, at(30 * DAY_S + 1))
    assert store.note_commitment("2.25.2", "PACS", ["1.1"], {}, at(30 * DAY_S + 1))
