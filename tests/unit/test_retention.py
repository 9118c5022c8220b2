"""Retention: what is over its time goes, and nothing that anybody may still need.

Covered, on a real SQLite file and a real folder: each state of a job, a delivery and a fetching
that keeps things here; less space than wanted; power cuts between the steps; a study that comes
again; random histories. Not covered: the node's own thread, which only repeats `clean`.
"""

import os
import shutil
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.pipeline.receive import REMOVING, being_removed
from app.retain import clean, finish
from app.store.delivery import DeliveryEvent, DeliveryState, NewDelivery
from app.store.jobs import State, StudyState
from tests.delivering import Site
from tests.log_rows import LEASE_S, instance, new_job

DAY_S = 86400.0
FOLDER = {"local": {"kind": "folder", "path": "archive"}}


class Kept(Site):
    """A site whose objects and results are real files."""

    def study(self, number: int = 1, objects: int = 2) -> str:
        """Receive a study of files in the spool; return its UID."""
        uid = f"1.2.{number}"
        for each in range(1, objects + 1):
            row = instance(f"{uid}.1.{each}", uid)
            path = self.config.data / row.file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"object")
            self.store.add_instance(row, self.clock())
        return uid

    def routed(self, number: int = 1, jobs: int = 1) -> str:
        """Receive a study and make its jobs `jN`; return its UID."""
        uid = self.study(number)
        made = [new_job(f"j{number}{'abc'[each]}", uid) for each in range(jobs)]
        version = self.store.study(uid).version
        self.store.route_study(uid, version, {}, made, self.clock())
        return uid

    def files(self, uid: str) -> list[Path]:
        """Return the spooled files of a study."""
        return sorted((self.config.data / "spool").glob(f"{uid}.*"))

    def folder(self, job_id: str) -> Path:
        """Return a job's folder, with a result in it."""
        folder = self.config.data / "jobs" / job_id
        (folder / "encode").mkdir(parents=True, exist_ok=True)
        (folder / "encode" / "seg.dcm").write_bytes(b"result")
        return folder

    def clean(self, **how: Any) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Clean; return what went."""
        gone = clean(self.config, self.store, self.clock(), **how)
        return gone.studies, gone.jobs

    def finished(self, job_id: str) -> None:
        """Let a job be done, without anything to deliver."""
        (job,) = self.store.claim("a", self.clock(), LEASE_S)
        assert job.id == job_id
        self.store.finish(job, 1.0, "", self.clock())


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
        free = iter([1, 1, 9, 9, 9, 9])
        real = os.statvfs(tmp_path)
        block = real.f_frsize

        class Disk:
            f_frsize = block

            @property
            def f_bavail(self) -> int:
                return next(free) * 10**9 // block

        monkeypatch.setattr("app.retain.os.statvfs", lambda _: Disk())
        assert site.clean() == (tuple(uids[:2]), ())
        assert site.clean() == ((), ())


@pytest.mark.parametrize("point", ["retain.listed", "retain.forgotten"])
def test_a_power_cut_between_the_steps_leaves_neither_half(
    site: Kept, monkeypatch: pytest.MonkeyPatch, point: str
) -> None:
    """Rows and files are both there or both gone once the next start has finished it."""

    class PowerCut(BaseException):
        pass

    def cut(name: str) -> None:
        if name == point:
            raise PowerCut

    uid = site.routed(jobs=0)
    site.clock.advance(31 * DAY_S)
    with monkeypatch.context() as patched:
        patched.setattr("app.retain.crash_point", cut)
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


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["receive", "route", "claim", "finish", "deliver", "prove", "clean"]),
        st.integers(1, 3),
        st.floats(0, 40),
    ),
    max_size=30,
)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(STEPS)
def test_whatever_happens_nothing_that_is_needed_is_gone(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, int, float]]
) -> None:
    """No row without its file, no job that is not over without its objects, in any history."""
    folder = tmp_path_factory.mktemp("site")
    retain = {"studies_days": 10, "results_days": 10}
    with Kept(folder, FOLDER, retain=retain) as site:
        for step, number, days in steps:
            _do(site, step, number)
            site.clock.advance(days * DAY_S)
            for uid in (f"1.2.{n}" for n in (1, 2, 3)):
                for row in site.store.instances(uid):
                    assert (site.config.data / row.file).exists()
            for job in site.store.jobs():
                unsettled = job.state not in {State.DONE, State.CANCELLED, State.SUPERSEDED}
                if unsettled:
                    held = {row.sop_uid for row in site.store.instances(job.study_uid)}
                    assert {uid for uids in job.instances.values() for uid in uids} <= held
    shutil.rmtree(folder)


def _do(site: Kept, step: str, number: int) -> None:
    now, uid = site.clock(), f"1.2.{number}"
    if step == "receive":
        site.study(number)
    elif step == "route":
        study = site.store.find_study(uid)
        if study is not None:
            jobs = [new_job(f"j{number}", uid)] if len(site.store.instances(uid)) == 2 else []
            site.store.route_study(uid, study.version, {}, jobs, now)
    elif step == "clean":
        site.clean()
    elif step == "prove":
        due = site.store.due_delivery("pacs", now)
        if due is not None:
            begun = site.store.begin_delivery(due, now)
            site.store.settle_delivery(begun, DeliveryEvent.PROVED, now, detail="", proof="p")
    else:
        for job in site.store.claim("a", now, 10**9):
            site.folder(job.id)
            if step == "finish":
                site.store.finish(job, None, "", now)
            elif step == "deliver":
                to = NewDelivery(destination="pacs", forms=("seg",))
                site.store.hand_over(job, [to], None, "", now)
