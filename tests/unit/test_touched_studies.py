"""A study that grows in an archive: when it is due to be fetched.

Covered: new ones, ones that wait, and ones in each state that a fetch ended in.
Not covered: what is listed and asked for, and who fetches.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest

from app.store.jobs import RemoteState
from app.store.store import Store
from tests.log_rows import at

QUIET_S = 60


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """A job log."""
    log = Store.open(tmp_path / "node.db")
    yield log
    log.close()


def due(store: Store, seconds: float) -> list[str]:
    """Return which studies are due so many seconds after the test began."""
    return [each.study_uid for each in store.due_remotes("pacs", at(seconds), QUIET_S)]


def test_a_study_is_due_when_it_has_not_grown_for_the_quiet_time(store: Store) -> None:
    """Each time that it grows the time begins anew."""
    store.touch("pacs", "1.2", at(0))
    store.touch("pacs", "1.2", at(50))
    assert due(store, 100) == []
    assert due(store, 110) == ["1.2"]


@pytest.mark.parametrize(
    "state", [RemoteState.FETCHED, RemoteState.UNWANTED, RemoteState.FAILED, RemoteState.ASKED]
)
def test_a_study_that_grows_is_fetched_again(store: Store, state: RemoteState) -> None:
    """Whatever came of it before, tries count anew."""
    store.ask_for("pacs", "1.2", "told", at(0))
    [remote] = store.remotes()
    later = {"attempts": 3, "due_at": at(10_000), "reason": "no"}
    assert store.settle_remote(remote, state, **later)
    store.touch("pacs", "1.2", at(100))
    [touched] = store.remotes()
    assert (touched.state, touched.attempts, touched.reason) == (RemoteState.LISTED, 0, "")
    assert (due(store, 120), due(store, 160)) == ([], ["1.2"])


def test_a_fetch_does_not_end_a_study_that_grew_meanwhile(store: Store) -> None:
    """It is due again after the quiet time."""
    store.ask_for("pacs", "1.2", "told", at(0))
    [remote] = store.remotes()
    store.touch("pacs", "1.2", at(1))
    assert not store.settle_remote(remote, RemoteState.FETCHED)
    assert due(store, 61) == ["1.2"]


def test_the_number_that_was_listed_stays(store: Store) -> None:
    """So that the next listing with the same number changes nothing."""
    store.note_listed("pacs", {"1.2": 7}, at(0))
    store.touch("pacs", "1.2", at(30))
    assert store.note_listed("pacs", {"1.2": 7}, at(40)) == 0
    assert due(store, 90) == ["1.2"]
