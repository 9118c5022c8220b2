"""Retention: what is over its time goes, and nothing that anybody may still need.

Covered, on a real SQLite file and a real folder: each state of a job, a delivery and a fetching
that keeps things here; less space than wanted; power cuts between the steps; a study that comes
again, or results that are sent again, at the very moment; two that clean at once.
Not covered: random histories, see tests/properties/test_retention; the node's own thread, which
only repeats `clean`.
"""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from datetime import timedelta
from itertools import repeat
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from app.config_retain import Retain
from app.dicom.dimse import Status
from app.door.intake import Intake
from app.pipeline.receive import REMOVING, being_removed, prepare
from app.retain import clean, finish
from app.store.delivery import DeliveryEvent, DeliveryState, NewDelivery
from app.store.jobs import InstanceRow, State, StudyState
from app.store.store import Store
from tests.keeping import DAY_S, FOLDER, Kept
from tests.log_rows import LEASE_S, instance, new_job
from tests.sockets.scu import Made, image, new_study


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Kept]:
    """A site that keeps studies for 30 days and results for 90."""
    with Kept(tmp_path, FOLDER, retain={"studies_days": 30, "results_days": 90}) as made:
        yield made


def test_what_is_over_its_time_goes_and_its_history_stays(site: Kept) -> None:
    """Objects after 30 days, results after 90; rows of study and job remain."""
    uid = site.routed()
    site.finished("j1a")
    folder = site.folder("j1a")
    site.clock.advance(29 * DAY_S)
    assert site.clean() == ((), ())
    site.clock.advance(2 * DAY_S)
    assert site.clean(dry_run=True) == ((uid,), ())
    assert len(site.files(uid)) == 2
    assert site.clean() == ((uid,), ())
    assert site.files(uid) == []
    assert site.store.instances(uid) == []
    assert site.store.study(uid).state is StudyState.REMOVED
    assert site.store.study_events(uid)[-1].detail == "2 objects, 0.0 MB"
    assert folder.exists()
    site.clock.advance(60 * DAY_S)
    assert site.clean() == ((), ("j1a",))
    assert not folder.exists()
    assert site.store.job("j1a").state is State.DONE
    assert site.clean() == ((), ())


def _queued(site: Kept) -> None:
    """Leave the job where it was made."""


def _running(site: Kept) -> None:
    site.store.claim("a", site.clock(), LEASE_S)


def _waiting(site: Kept) -> None:
    (job,) = site.store.claim("a", site.clock(), LEASE_S)
    site.store.postpone(job, site.clock() + timedelta(days=900), "", site.clock())


def _failed(site: Kept) -> None:
    (job,) = site.store.claim("a", site.clock(), LEASE_S)
    site.store.give_up(job, "no", site.clock())


@pytest.mark.parametrize("state", [_queued, _running, _waiting, _failed])
def test_a_job_that_is_not_over_keeps_everything(site: Kept, state: Any) -> None:
    """A failed one too: a person may retry it."""
    uid = site.routed()
    state(site)
    site.folder("j1a")
    site.clock.advance(5000 * DAY_S)
    assert site.clean() == ((), ())
    site.store.cancel("j1a", site.clock()) if state is not _failed else None
    site.clock.advance(5000 * DAY_S)
    kept = state is _failed
    assert site.clean() == (((), ()) if kept else ((uid,), ("j1a",)))


@pytest.mark.parametrize("event", [None, "held", *DeliveryEvent])
def test_a_delivery_that_is_not_settled_keeps_everything(
    site: Kept, event: DeliveryEvent | str | None
) -> None:
    """Only what is proved, or withdrawn with its job, needs nothing any more."""
    uid = site.routed()
    (job,) = site.store.claim("a", site.clock(), LEASE_S)
    held = event == "held"
    wanted = NewDelivery(destination="pacs", forms=("seg",), held=held)
    site.store.hand_over(job, [wanted], 1.0, "", site.clock())
    site.folder("j1a")
    by_courier = {"sent", "proved", "put_off", "refused"}
    if event in by_courier:
        due = site.store.due_delivery("pacs", site.clock())
        assert due is not None
        begun = site.store.begin_delivery(due, site.clock())
        site.store.settle_delivery(begun, DeliveryEvent(event), site.clock(), detail="")
    if event == "withdrawn":
        site.store.cancel("j1a", site.clock())
    site.clock.advance(5000 * DAY_S)
    settled = {each.state for each in site.store.deliveries(["j1a"])} <= {
        DeliveryState.PROVED,
        DeliveryState.WITHDRAWN,
    }
    assert settled == (event in {"proved", "withdrawn"})
    assert site.clean() == (((uid,), ("j1a",)) if settled else ((), ()))


def test_a_study_that_grows_or_is_being_fetched_stays(site: Kept) -> None:
    """Whatever its age."""
    growing, fetched = site.study(1), site.routed(2, jobs=0)
    site.store.ask_for("pacs", fetched, "asked", site.clock())
    site.clock.advance(5000 * DAY_S)
    assert site.clean() == ((), ())
    assert site.files(growing)
    assert site.files(fetched)


def test_results_of_a_removed_study_can_be_sent_again(site: Kept) -> None:
    """They are kept longer than the objects; sending them does not wait for a routing."""
    site.routed()
    (job,) = site.store.claim("a", site.clock(), LEASE_S)
    wanted = NewDelivery(destination="pacs", forms=("seg",))
    site.store.hand_over(job, [wanted], 1.0, "", site.clock())
    due = site.store.due_delivery("pacs", site.clock())
    assert due is not None
    begun = site.store.begin_delivery(due, site.clock())
    site.store.settle_delivery(begun, DeliveryEvent.PROVED, site.clock(), detail="", proof="p")
    site.clock.advance(31 * DAY_S)
    assert site.clean()[0] != ()
    site.store.resend("j1a", None, site.clock())
    again = site.store.due_delivery("pacs", site.clock())
    assert again is not None
    assert site.store.begin_delivery(again, site.clock()).attempts == 1


def test_a_removed_study_that_comes_again_makes_no_second_job(site: Kept) -> None:
    """It is kept again and routed again; its answer is known."""
    uid = site.routed()
    site.finished("j1a")
    site.clock.advance(31 * DAY_S)
    assert site.clean() == ((uid,), ())
    assert site.study() == uid
    assert site.store.study(uid).state is StudyState.OPEN
    assert len(site.store.instances(uid)) == site.store.study(uid).instances == 2
    version = site.store.study(uid).version
    assert site.store.route_study(uid, version, {}, [new_job("j1a", uid)], site.clock()) == []
    assert [job.id for job in site.store.jobs()] == ["j1a"]


def test_with_little_space_the_oldest_go_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As many as it takes, and none that is younger than it may be."""
    retain = {"studies_days": None, "free_gb": 5, "least_hours": 24}
    with Kept(tmp_path, FOLDER, retain=retain) as site:
        uids = []
        for number in (1, 2, 3):
            uids.append(site.routed(number, jobs=0))
            site.clock.advance(DAY_S / 2 if number == 2 else DAY_S)
        disk(monkeypatch, free_gb=iter([1, 1, 9, 9, 9, 9]))
        assert site.clean() == (tuple(uids[:2]), ())
        assert site.clean() == ((), ())


def test_a_dry_run_foresees_what_a_full_disk_takes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It counts what would be free: what is over its time first, then as much as is needed."""
    retain = {"studies_days": 10, "free_gb": 5}
    with Kept(tmp_path, FOLDER, retain=retain) as site:
        uids = []
        for number, days in ((1, 9), (2, 1), (3, 1), (4, 2)):
            uids.append(site.routed(number, jobs=0))
            site.clock.advance(days * DAY_S)
        bytes_each = site.store.bytes_of(uids[0])
        disk(monkeypatch, free_gb=repeat(5 - 3 * bytes_each / 1e9))
        assert site.clean(dry_run=True) == (tuple(uids[:3]), ())
        disk(monkeypatch, free_gb=repeat(5 - bytes_each / 1e9))
        assert site.clean(dry_run=True) == (tuple(uids[:1]), ())
        assert all(len(site.files(uid)) == 2 for uid in uids)


def disk(monkeypatch: pytest.MonkeyPatch, free_gb: Iterator[float]) -> None:
    """Let the disk have so much free whenever it is asked."""

    class Disk:
        f_frsize = 1

        @property
        def f_bavail(self) -> int:
            return round(next(free_gb) * 1e9)

    monkeypatch.setattr("app.retain.os.statvfs", lambda _: Disk())


class PowerCut(BaseException):
    """What nothing may catch."""


def cut_at(point: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the process end at this point of a cleaning."""

    def cut(name: str) -> None:
        if name == point:
            raise PowerCut

    monkeypatch.setattr("app.retain.crash_point", cut)


@pytest.mark.parametrize("point", ["retain.listed", "retain.forgotten"])
def test_a_power_cut_between_the_steps_leaves_neither_half(
    site: Kept, monkeypatch: pytest.MonkeyPatch, point: str
) -> None:
    """Rows and files are both there or both gone once the next start has finished it."""
    uid = site.routed(jobs=0)
    site.clock.advance(31 * DAY_S)
    with monkeypatch.context() as patched:
        cut_at(point, patched)
        with pytest.raises(PowerCut):
            site.clean()
    listed = {str(path.relative_to(site.config.data)) for path in site.files(uid)}
    assert being_removed(site.config.data) == listed, "a door that starts now leaves them alone"
    finish(site.config, site.store)
    rows, files = site.store.instances(uid), site.files(uid)
    assert (len(rows), len(files)) == ((2, 2) if point == "retain.listed" else (0, 0))
    assert not [*(site.config.data / REMOVING).iterdir()]


def test_a_link_is_not_followed(site: Kept, tmp_path: Path) -> None:
    """Neither in the jobs' folder nor as a name that leads out of the spool."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").write_bytes(b"1")
    site.routed()
    site.finished("j1a")
    (site.config.data / "jobs").mkdir(exist_ok=True)
    (site.config.data / "jobs" / "j1a").symlink_to(outside)
    row = replace(instance("1.2.9.1.1", "1.2.9"), file="spool/../../outside/precious")
    site.store.add_instance(row, site.clock())
    site.store.route_study("1.2.9", 1, {}, [], site.clock())
    site.clock.advance(5000 * DAY_S)
    site.clean()
    assert (outside / "precious").exists()


def test_a_power_cut_leaves_no_half_of_a_folder(
    site: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody finds results that are being removed; the next start brings it to an end."""
    site.routed()
    site.finished("j1a")
    folder = site.folder("j1a")
    site.clock.advance(91 * DAY_S)
    with monkeypatch.context() as patched:
        cut_at("retain.aside", patched)
        with pytest.raises(PowerCut):
            site.clean()
    assert not folder.exists()
    assert len([*folder.parent.iterdir()]) == 1
    finish(site.config, site.store)
    assert [*folder.parent.iterdir()] == []


def test_results_that_are_sent_again_at_this_moment_stay(
    site: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A person comes between the look at the log and the removal."""
    site.routed()
    (job,) = site.store.claim("a", site.clock(), LEASE_S)
    site.store.hand_over(job, [NewDelivery(destination="p", forms=())], 1.0, "", site.clock())
    due = site.store.due_delivery("p", site.clock())
    assert due is not None
    begun = site.store.begin_delivery(due, site.clock())
    site.store.settle_delivery(begun, DeliveryEvent.PROVED, site.clock(), detail="", proof="x")
    folder = site.folder("j1a")
    site.clock.advance(91 * DAY_S)
    look = site.store.removable_results

    def look_then_resend(*asked: Any) -> set[str]:
        found = look(*asked)
        site.store.resend("j1a", None, site.clock())
        return found

    monkeypatch.setattr(site.store, "removable_results", look_then_resend)
    assert site.clean()[1] == ()
    assert (folder / "encode" / "seg.dcm").exists()
    assert site.store.job("j1a").state is State.DELIVERING


def sent(site: Kept, made: Made) -> int:
    """Bring an object in by the door and return the status."""
    claimed = (made.sop_class, made.sop_uid)
    intake = Intake(site.config.data, site.store)
    with closing(intake):
        return intake.take(made.dataset, made.syntax, claimed=claimed, source="CT@a").status


@pytest.fixture
def came(site: Kept, monkeypatch: pytest.MonkeyPatch) -> list[Made]:
    """Three objects of one study that came by the door 31 days ago and were routed."""
    prepare(site.config.data)
    monkeypatch.setattr("app.door.intake._now", site.clock)
    uid = new_study()
    objects = [image(uid) for _ in range(3)]
    assert [sent(site, each) for each in objects] == [0, 0, 0]
    site.store.route_study(uid, 3, {}, [], site.clock())
    site.clock.advance(31 * DAY_S)
    return objects


def test_a_study_that_is_being_sent_again_stays_whole(site: Kept, came: list[Made]) -> None:
    """Else what comes after the cleaning would be taken for the study, and routed."""
    uid = came[0].study_uid
    assert site.clean(dry_run=True) == ((uid,), ())
    assert sent(site, came[0]) == Status.SUCCESS
    assert site.clean() == ((), ())
    assert [sent(site, each) for each in came] == [0, 0, 0]
    assert len(site.store.instances(uid)) == 3
    assert site.store.study(uid).state is StudyState.ROUTED
    site.clock.advance(31 * DAY_S)
    assert site.clean() == ((uid,), ())


def test_a_copy_of_what_has_just_gone_is_not_said_to_be_held(
    site: Kept, came: list[Made], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The study goes between the look for a copy and the answer: the sender is to try again."""
    find = site.store.find_instance

    def find_then_clean(sop_uid: str) -> InstanceRow | None:
        found = find(sop_uid)
        site.clean()
        return found

    with monkeypatch.context() as patched:
        patched.setattr(site.store, "find_instance", find_then_clean)
        assert sent(site, came[0]) == Status.OUT_OF_RESOURCES
    assert sent(site, came[0]) == Status.SUCCESS
    [row] = site.store.instances(came[0].study_uid)
    assert (site.config.data / row.file).exists()


def test_two_that_clean_at_once_do_not_meet(site: Kept) -> None:
    """`clean` by hand beside the node: each thing goes once, and nobody stumbles."""
    uids = {site.routed(number) for number in range(1, 9)}
    for job in site.store.claim("a", site.clock(), LEASE_S, limit=9):
        site.store.finish(job, 1.0, "", site.clock())
        site.folder(job.id)
    site.clock.advance(91 * DAY_S)
    together = threading.Barrier(2, timeout=20)

    def round_of_one() -> tuple[str, ...]:
        with closing(Store.open(site.config.data / "node.db", migrate=False)) as store:
            together.wait()
            return clean(site.config, store, site.clock()).studies

    with ThreadPoolExecutor(2) as two:
        rounds = [two.submit(round_of_one) for _ in range(2)]
        gone = [uid for each in rounds for uid in each.result(30)]
    assert (len(gone), {*gone}) == (8, uids)
    assert [*(site.config.data / "jobs").iterdir()] == []
    assert [*(site.config.data / REMOVING).iterdir()] == []


@pytest.mark.parametrize("days", [0, -1, 1e9, float("nan"), float("inf"), "old"])
def test_an_age_that_means_nothing_is_refused(days: Any) -> None:
    """Nothing can be configured that would remove what came a moment ago."""
    for name in ("studies_days", "results_days", "least_hours", "every_s"):
        with pytest.raises(ValidationError):
            Retain.model_validate({name: days})
