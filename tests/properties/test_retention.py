"""Retention in random histories: whatever happens and whoever cleans, nothing needed is gone.

Covered: studies that come, come again and are routed; jobs that are done, fail, are cancelled and
retried; results that are handed over, proved and sent again; cleanings at any time between, on a
real file and a real folder. Not covered: two things at one moment, see tests/unit/test_retention.
"""

import shutil

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.store.delivery import DeliveryEvent, NewDelivery
from app.store.jobs import State
from tests.keeping import DAY_S, FOLDER, Kept
from tests.log_rows import new_job

STEPS = st.lists(
    st.tuples(
        st.sampled_from(
            [
                "receive",
                "route",
                "claim",
                "finish",
                "deliver",
                "fail",
                "prove",
                "retry",
                "cancel",
                "resend",
                "clean",
            ]
        ),
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
    """No row without its file, no job that is not over without its objects, in any history.

    Nor is a result gone of which a delivery is not settled, or whose job failed.
    """
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
                if job.state in {State.DELIVERING, State.FAILED}:
                    assert (site.config.data / "jobs" / job.id / "encode" / "seg.dcm").exists()
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
    elif step in {"retry", "cancel", "resend"}:
        _by_hand(site, step, f"j{number}")
    elif step == "prove":
        due = site.store.due_delivery("pacs", now)
        if due is not None:
            begun = site.store.begin_delivery(due, now)
            site.store.settle_delivery(begun, DeliveryEvent.PROVED, now, detail="", proof="p")
    else:
        _compute(site, step)


def _compute(site: Kept, end: str) -> None:
    """Let a node claim what is due, with results in its folder, and bring it to this end."""
    now = site.clock()
    for job in site.store.claim("a", now, 10**9):
        site.folder(job.id)
        if end == "finish":
            site.store.finish(job, None, "", now)
        elif end == "fail":
            site.store.give_up(job, "no", now)
        elif end == "deliver":
            to = NewDelivery(destination="pacs", forms=("seg",))
            site.store.hand_over(job, [to], None, "", now)


def _by_hand(site: Kept, what: str, job_id: str) -> None:
    """Let a person do this, where it can be done and what it needs is here."""
    state = next((job.state for job in site.store.jobs() if job.id == job_id), None)
    if what == "retry" and state is State.FAILED:
        site.store.retry(job_id, site.clock())
    elif what == "cancel" and state in {State.QUEUED, State.DELIVERING}:
        site.store.cancel(job_id, site.clock())
    elif what == "resend" and state is State.DONE and _has_results(site, job_id):
        site.store.resend(job_id, None, site.clock())


def _has_results(site: Kept, job_id: str) -> bool:
    sent = site.store.deliveries([job_id])
    return bool(sent) and (site.config.data / "jobs" / job_id).exists()
