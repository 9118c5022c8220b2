"""Studies that lie in archives, on a real SQLite file.

Covered: what a list of an archive changes, when a study is due, what came of it, a change in the
archive meanwhile, and a restart. Not covered: who asks the archive and fetches.
"""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from app.store.jobs import RemoteState, RemoteStudy
from app.store.store import Store
from tests.log_rows import START, at, instance

QUIET_S = 60.0


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """Return an empty job log."""
    with closing(Store.open(tmp_path / "node.db", timeout_s=0.2)) as opened:
        yield opened


def due(store: Store, seconds: float, source: str = "pacs") -> list[str]:
    """Return the studies to be fetched so many seconds after the test began."""
    return [each.study_uid for each in store.due_remotes(source, at(seconds), QUIET_S)]


def only(store: Store) -> RemoteStudy:
    """Return the one study that is noted."""
    (remote,) = store.remotes()
    return remote


def test_what_is_listed_again_as_it_was_changes_nothing(store: Store) -> None:
    """The count of what is new or other is what a caller logs."""
    assert store.note_listed("pacs", {"1.1": 10, "1.2": None}, START) == 2
    assert store.note_listed("pacs", {"1.1": 10, "1.2": None}, at(5)) == 0
    assert {remote.changed_at for remote in store.remotes()} == {START}
    assert store.note_listed("pacs", {"1.1": 11}, at(6)) == 1
    assert store.note_listed("other", {"1.1": 11}, at(7)) == 1
    listed = {(each.source, each.study_uid): each.instances for each in store.remotes()}
    assert listed == {("pacs", "1.1"): 11, ("pacs", "1.2"): None, ("other", "1.1"): 11}


def test_a_listed_study_is_due_when_its_number_stood_still(store: Store) -> None:
    """A study that grows in the archive is waited for anew; each archive has its own."""
    store.note_listed("pacs", {"1.1": 10}, START)
    assert due(store, QUIET_S - 1) == []
    store.note_listed("pacs", {"1.1": 20}, at(QUIET_S - 1))
    assert due(store, QUIET_S) == []
    assert due(store, 2 * QUIET_S - 1) == ["1.1"]
    assert due(store, 2 * QUIET_S - 1, "other") == []


def test_a_study_that_was_asked_for_is_due_at_once(store: Store) -> None:
    """The oldest first and not more than wanted; the list may not know it at all."""
    store.ask_for("pacs", "1.2", "stable in pacs", at(1))
    store.ask_for("pacs", "1.1", "stable in pacs", at(2))
    assert due(store, 2) == ["1.2", "1.1"]
    assert len(store.due_remotes("pacs", at(2), QUIET_S, limit=1)) == 1
    assert {each.reason for each in store.remotes()} == {"stable in pacs"}


@pytest.mark.parametrize("state", [RemoteState.FETCHED, RemoteState.UNWANTED, RemoteState.FAILED])
def test_what_is_settled_is_left_alone_until_it_grows(store: Store, state: RemoteState) -> None:
    """The same list means nothing new; another number or a person does."""
    store.note_listed("pacs", {"1.1": 10}, START)
    trace = {"routes": []}
    assert store.settle_remote(only(store), state, reason="why", trace=trace)
    assert (only(store).state, only(store).reason) == (state, "why")
    assert store.remote_trace("pacs", "1.1") == trace
    assert store.note_listed("pacs", {"1.1": 10}, at(500)) == 0
    assert due(store, 1000) == []
    store.note_listed("pacs", {"1.1": 11}, at(1000))
    assert due(store, 1000 + QUIET_S) == ["1.1"]
    store.settle_remote(only(store), state)
    store.ask_for("pacs", "1.1", "by hand", at(2000))
    assert due(store, 2000) == ["1.1"]


def test_a_failed_try_is_put_off(store: Store) -> None:
    """It stays asked for, counts its tries and is not due before its time."""
    store.ask_for("pacs", "1.1", "by hand", START)
    put_off = {"attempts": 1, "due_at": at(30), "reason": "pacs: no answer"}
    assert store.settle_remote(only(store), RemoteState.ASKED, **put_off)
    assert due(store, 29) == []
    assert due(store, 30) == ["1.1"]
    assert (only(store).attempts, only(store).reason) == (1, "pacs: no answer")
    store.ask_for("pacs", "1.1", "by hand", at(31))
    assert (only(store).attempts, only(store).due_at) == (0, None)


def test_assembly_knows_what_is_on_its_way_until_it_came(store: Store) -> None:
    """A fetcher that ended in the midst takes it up again."""
    store.add_instance(instance("1.1.1", "1.1"), START)
    store.note_listed("pacs", {"1.1": 10, "1.2": 10}, START)
    remote = store.remotes("1.1")[0]
    assert not store.open_studies()[0].being_fetched
    store.settle_remote(remote, RemoteState.FETCHING)
    assert store.open_studies()[0].being_fetched
    store.resume_fetching("pacs")
    assert store.remotes("1.1")[0].state is RemoteState.ASKED
    assert not store.open_studies()[0].being_fetched


def test_a_change_in_the_archive_meanwhile_is_not_settled_away(store: Store) -> None:
    """What was fetched is not all any more: the newer row stays as it is."""
    store.note_listed("pacs", {"1.1": 10}, START)
    fetched = only(store)
    store.note_listed("pacs", {"1.1": 11}, at(90))
    assert not store.settle_remote(fetched, RemoteState.FETCHED)
    assert (only(store).state, only(store).instances) == (RemoteState.LISTED, 11)
    assert due(store, 90 + QUIET_S) == ["1.1"]


def test_the_rows_survive_a_restart(tmp_path: Path) -> None:
    """Nothing is missed and nothing is fetched twice after it."""
    with closing(Store.open(tmp_path / "node.db")) as store:
        store.note_listed("pacs", {"1.1": 10, "1.2": 10}, START)
        (first, _) = sorted(store.remotes(), key=lambda remote: remote.study_uid)
        store.settle_remote(first, RemoteState.FETCHED)
    with closing(Store.open(tmp_path / "node.db")) as store:
        assert store.note_listed("pacs", {"1.1": 10, "1.2": 10, "1.3": 1}, at(60)) == 1
        assert due(store, 60) == ["1.2"]
        assert len(store.remotes("1.3")) == 1
        assert store.remote_trace("pacs", "9.9") is None


def test_what_is_asked_for_stays_asked_for_and_comes_first(store: Store) -> None:
    """The archive lists it with its number meanwhile; that is no reason to wait again."""
    store.note_listed("pacs", {"1.1": 10}, START)
    store.ask_for("pacs", "1.2", "stable in pacs", at(1))
    assert store.note_listed("pacs", {"1.2": 20}, at(2)) == 1
    due = store.due_remotes("pacs", at(QUIET_S), QUIET_S)
    assert [(each.study_uid, each.state) for each in due] == [
        ("1.2", RemoteState.ASKED),
        ("1.1", RemoteState.LISTED),
    ]


def test_an_archive_that_does_not_count_says_nothing_new_of_a_known_study(store: Store) -> None:
    """Its number may have been found out otherwise."""
    store.note_listed("pacs", {"1.1": 10}, START)
    assert store.note_listed("pacs", {"1.1": None}, at(1)) == 0


def test_the_newest_come_first_where_that_is_wanted(store: Store) -> None:
    """The other order is the default."""
    for n in range(3):
        store.note_listed("pacs", {f"1.{n}": 10}, at(n))
    due = store.due_remotes("pacs", at(99 + QUIET_S), QUIET_S, newest_first=True)
    assert [each.study_uid for each in due] == ["1.2", "1.1", "1.0"]


def test_studies_are_counted_by_source_and_state(store: Store) -> None:
    """As `sources` shows them."""
    store.note_listed("pacs", {"1.1": 10, "1.2": 10}, START)
    store.ask_for("pacs", "1.3", "", START)
    store.note_listed("other", {"1.1": 10}, START)
    assert store.remote_counts() == {
        "pacs": {RemoteState.LISTED: 2, RemoteState.ASKED: 1},
        "other": {RemoteState.LISTED: 1},
    }
