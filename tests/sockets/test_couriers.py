"""Couriers and archives that lie: what is proved is held, and held once; nothing is lost.

Covered, over real HTTP with a clock that the test moves: every way in which an archive can lie or
fail, an outage of a day, Retry-After, results that wait for a review, archives that do not know a
form, giving up, several destinations at once. Not covered: the requests themselves (test_deliver),
DIMSE (test_couriers_dimse), a whole node (acceptance/test_deliveries).
"""

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pydicom
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.couriers import Couriers
from app.errors import StoreError
from app.store.delivery import DeliveryState
from app.store.jobs import State
from tests import archive as faults
from tests.archive import Archive, Fault, running_archive
from tests.delivering import PROVED, Site
from tests.peers import Orthanc, require
from tests.waiting import wait_until

DAY_S = 86400


def dicomweb(archive: Archive, timeout_s: float = 0.5) -> dict[str, Any]:
    """Return the settings of an archive under test."""
    return {"kind": "dicomweb", "url": archive.url, "timeout_s": timeout_s}


@pytest.fixture
def archive() -> Iterator[Archive]:
    """An archive that does what it is told."""
    with running_archive() as running:
        yield running


@pytest.fixture
def site(tmp_path: Path, archive: Archive) -> Iterator[Site]:
    """A site that delivers to that archive."""
    with Site(tmp_path, {"pacs": dicomweb(archive)}) as made:
        yield made


def uid_of(path: Path) -> str:
    """Return the SOP Instance UID of a file."""
    return str(pydicom.dcmread(path, stop_before_pixels=True).SOPInstanceUID)


LIES = {
    "200 with empty lists, nothing stored": faults.LIE,
    "200 with empty lists, stored": faults.QUIET,
    "202 with a failure that passes": faults.refusal(202, 0xA700),
    "409 for want of space": faults.refusal(409, 0x0213),
    "503": faults.unavailable(503),
    "503 with Retry-After": faults.unavailable(503, "90"),
    "429": faults.unavailable(429, "30"),
    "500": faults.unavailable(500),
    "401 after a token ran out": faults.refusal(401),
    "403": faults.refusal(403),
    "an answer in XML": faults.XML,
    "cut before it stores": faults.CUT_BEFORE,
    "stored, answer lost": faults.CUT_AFTER,
    "stored, answer cut in its middle": faults.CUT_INSIDE,
    "no answer": faults.STALL,
    "an answer without an end": faults.DRIP,
}


@pytest.mark.parametrize("name", LIES)
def test_a_lie_is_never_a_proof_and_needs_no_hands(site: Site, archive: Archive, name: str) -> None:
    """After one try it is proved only if it is held; in the end it is held once, and proved."""
    job_id = site.results("pacs", size=2 << 20)
    held = {uid_of(site.file(job_id))}
    archive.faults.append(LIES[name])
    courier = site.courier()
    courier.work()
    first = site.delivery(job_id)
    assert first.state is not PROVED or {*archive.held} == held
    assert first.state is not DeliveryState.REFUSED
    site.work(courier, 600)
    assert site.delivery(job_id).state is PROVED
    assert site.store.job(job_id).state is State.DONE
    assert {*archive.held} == held
    assert archive.held[held.pop()] == site.file(job_id).read_bytes()
    assert site.events(job_id).count("proved") == 1


def test_a_refusal_after_storing_is_a_delivery(site: Site, archive: Archive) -> None:
    """400 and 409 to an object that is listed afterwards."""
    for code in (400, 409):
        job_id = site.results("pacs")
        body = b"--x\r\n\r\n" + site.file(job_id).read_bytes() + b"\r\n--x--"
        archive.faults.append(
            faults.refusal(code)
            | {"before": lambda body=body: archive.take("multipart/related; boundary=x", body)}
        )
        site.courier().work()
        assert site.delivery(job_id).state is PROVED


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (faults.refusal(409, 0xA778), "conflicting patient ID"),
        (faults.refusal(202, 0xA900), "does not match its SOP class"),
        (faults.refusal(409), "HTTP 409"),
    ],
)
def test_a_refusal_waits_for_a_person(
    site: Site, archive: Archive, fault: Fault, words: str
) -> None:
    """It is not tried again by itself; the job says why, and `resend` ends it well."""
    job_id = site.results("pacs")
    archive.faults.append(fault)
    courier = site.courier()
    site.work(courier, 7200, step_s=60)
    assert len(archive.posts) == 1
    assert site.delivery(job_id).state is DeliveryState.REFUSED
    job = site.store.job(job_id)
    assert job.state is State.FAILED
    assert job.reason.startswith("pacs: ")
    assert words in job.reason
    site.store.resend(job_id, None, site.clock())
    assert site.store.job(job_id).state is State.DELIVERING
    site.work(courier, 10)
    assert site.store.job(job_id).state is State.DONE


def test_another_patient_id_in_the_archive_is_told(site: Site, archive: Archive) -> None:
    """It holds the result, and a person should know under whose name; the log does not say."""
    archive.keeps_as = "ZZID-COERCED"
    job_id = site.results("pacs")
    site.courier().work()
    proved = site.delivery(job_id)
    assert proved.state is PROVED
    assert "with a warning: it keeps the result under another patient ID" in proved.proof
    assert "ZZID" not in proved.proof


@pytest.mark.orthanc
@pytest.mark.slow
def test_an_archive_that_stands_still_gets_it_once_when_it_goes_on(tmp_path: Path) -> None:
    """A stopped Orthanc takes the connection and says nothing; killed, it refuses it."""
    require("Orthanc", "orthanc-dicomweb")
    with Orthanc() as orthanc:
        settings = {"kind": "dicomweb", "url": orthanc.dicomweb_url, "timeout_s": 1}
        with Site(tmp_path, {"pacs": settings}) as site:
            job_id = site.results("pacs")
            courier = site.courier()
            os.kill(orthanc.pid, signal.SIGSTOP)
            try:
                courier.work()
            finally:
                os.kill(orthanc.pid, signal.SIGCONT)
            assert site.delivery(job_id).state is DeliveryState.WAITING
            site.work(courier, 120)
            assert site.delivery(job_id).state is PROVED
            later = site.results("pacs")
            orthanc.kill()
            site.work(courier, 300)
            assert site.delivery(later).state is DeliveryState.WAITING
            orthanc.start()
            site.work(courier, 120)
            assert site.delivery(later).state is PROVED
            assert orthanc.instances() == sorted(uid_of(site.file(j)) for j in (job_id, later))
            orthanc.kill()  # its orderly end takes seconds


@pytest.mark.slow
def test_a_day_without_the_archive_is_made_good_within_two_minutes(
    tmp_path: Path, archive: Archive
) -> None:
    """It refuses connections, then answers 503; all that was made meanwhile arrives, once."""
    nobody = {"kind": "dicomweb", "url": "http://127.0.0.1:9/dicom-web", "timeout_s": 1}
    with Site(tmp_path, {"pacs": nobody}) as site:
        archive.down = True
        courier, jobs = site.courier(), []
        for hour in range(24):
            jobs += [site.results("pacs"), site.results("pacs")]
            if hour == 20:
                there = site.config.archives["pacs"].model_copy(update={"url": archive.url})
                site.config.archives["pacs"] = there
            site.work(courier, 3600, step_s=30)
        states = {site.delivery(job_id).state for job_id in jobs}
        assert states <= {DeliveryState.WAITING, DeliveryState.PENDING}
        tries = sum(site.delivery(job_id).attempts for job_id in jobs)
        assert tries < 1.5 * DAY_S / site.config.deliver.longest_pause_s, "not one try for each"
        assert max(len(site.store.delivery_lines(job_id)) for job_id in jobs) < 10
        archive.down, returned = False, site.clock()
        while any(site.delivery(job_id).state is not PROVED for job_id in jobs):
            site.clock.advance(max(courier.work(), 0.1))
            assert (site.clock() - returned).total_seconds() <= 120
        assert {*archive.held} == {uid_of(site.file(job_id)) for job_id in jobs}
        assert len(archive.posts) == len(jobs)
        assert {site.store.job(job_id).state for job_id in jobs} == {State.DONE}


def test_an_archive_is_left_alone_as_long_as_it_asks(site: Site, archive: Archive) -> None:
    """Retry-After counts for all that goes there."""
    first = site.results("pacs")
    archive.faults.append(faults.unavailable(503, "90"))
    courier = site.courier()
    courier.work()
    second = site.results("pacs")
    assert 89 < courier.work() <= 90
    site.clock.advance(60)
    assert courier.work() > 0
    assert archive.posts != []
    posts = len(archive.posts)
    assert site.delivery(second).attempts == 0
    site.clock.advance(31)
    site.work(courier, 60)
    assert len(archive.posts) > posts
    assert site.delivery(first).state is site.delivery(second).state is PROVED


def test_one_result_that_an_archive_chokes_on_does_not_keep_the_others(
    site: Site, archive: Archive
) -> None:
    """It waits by itself, longer each time; the others pass."""
    choking = site.results("pacs")
    archive.chokes_on = {uid_of(site.file(choking))}
    courier = site.courier()
    site.work(courier, 30)
    others = [site.results("pacs") for _ in range(5)]
    site.work(courier, 120)
    assert {site.delivery(job_id).state for job_id in others} == {PROVED}
    assert site.delivery(choking).state is DeliveryState.WAITING
    archive.chokes_on = set()
    site.work(courier, 4000, step_s=60)
    assert site.delivery(choking).state is PROVED


def test_what_nobody_takes_for_days_waits_for_a_person(tmp_path: Path, archive: Archive) -> None:
    """After `deliver.give_up_h` of tries; what was tried before counts anew after `resend`."""
    deliver = {"give_up_h": 0.5}
    with Site(tmp_path, {"pacs": dicomweb(archive)}, deliver=deliver) as site:
        archive.down = True
        job_id, courier = site.results("pacs"), site.courier()
        site.work(courier, 3600, step_s=60)
        refused = site.delivery(job_id)
        assert refused.state is DeliveryState.REFUSED
        assert refused.reason.endswith("; gave up after 0.5 h")
        archive.down = False
        site.store.resend(job_id, "pacs", site.clock())
        site.work(courier, 120)
        assert site.delivery(job_id).state is PROVED


def test_results_held_for_review_wait_to_be_released(site: Site, archive: Archive) -> None:
    """Nothing leaves before; the job waits for a person and says so."""
    job_id = site.results("pacs", held=True)
    courier = site.courier()
    site.work(courier, DAY_S, step_s=3600)
    assert site.delivery(job_id).state is DeliveryState.HELD
    assert site.store.job(job_id).state is State.DELIVERING
    assert site.store.job(job_id).published_at is None
    assert archive.posts == []
    assert archive.asked == 0
    site.store.release_held(job_id, "pacs", site.clock())
    site.work(courier, 10)
    assert site.delivery(job_id).state is PROVED
    with pytest.raises(StoreError, match="nothing of job j1 is held for pacs"):
        site.store.release_held(job_id, "pacs", site.clock())


def test_an_archive_that_does_not_know_a_form_gets_the_binary_one(
    site: Site, archive: Archive
) -> None:
    """By reason 0122, as of one that never heard of label maps; the history tells it."""
    job_id = site.results("pacs", forms=("labelmap",))
    archive.faults.append(faults.refusal(409, 0x0122))
    site.work(site.courier(), 10)
    given = site.delivery(job_id)
    assert (given.state, given.forms) == (PROVED, ("seg",))
    assert {*archive.held} == {uid_of(site.file(job_id, "seg"))}
    told = " ".join(line.detail for line in site.store.delivery_lines(job_id))
    assert "it gets seg instead" in told


def test_a_form_without_another_is_refused(site: Site, archive: Archive) -> None:
    """The binary segmentation is the last."""
    job_id = site.results("pacs")
    archive.faults.append(faults.refusal(409, 0x0122))
    site.work(site.courier(), 10)
    assert site.delivery(job_id).state is DeliveryState.REFUSED


def test_a_slow_destination_holds_up_no_other(tmp_path: Path, archive: Archive) -> None:
    """Each has a courier of its own: one hangs, the other one's is proved meanwhile."""
    with running_archive() as hanging:
        hanging.faults.append(faults.STALL)
        archives = {"slow": dicomweb(hanging, timeout_s=20), "quick": dicomweb(archive)}
        with Site(tmp_path, archives) as site:
            job_id = site.results("slow", "quick")
            couriers = Couriers(site.config, site.store, site.clock)
            couriers.look()
            wait_until(lambda: hanging.posts, 10, "the slow archive's turn")
            wait_until(lambda: site.delivery(job_id, "quick").state is PROVED, 10)
            assert site.delivery(job_id, "slow").state is DeliveryState.PENDING
            assert site.store.job(job_id).state is State.DELIVERING
            hanging.closing.set()
            couriers.drain(5)


def test_results_that_are_gone_are_not_said_to_be_sent(site: Site, archive: Archive) -> None:
    """Somebody removed the job's folder: the sentence says what to do."""
    job_id = site.results("pacs")
    site.file(job_id).unlink()
    site.courier().work()
    assert site.delivery(job_id).state is DeliveryState.REFUSED
    assert "is not in the job's folder; `retry` the job" in site.store.job(job_id).reason


def test_an_archive_that_app_yaml_names_no_more_is_told(site: Site) -> None:
    """What was to go there waits for a person."""
    job_id = site.results("elsewhere")
    site.courier("elsewhere").work()
    assert site.delivery(job_id, "elsewhere").state is DeliveryState.REFUSED
    assert "app.yaml has no archive elsewhere any more" in site.store.job(job_id).reason


FAULTS = st.sampled_from(
    [fault for name, fault in LIES.items() if fault not in (faults.STALL, faults.DRIP)]
    + [{"kind": "none"}]
)


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(FAULTS, max_size=12), st.integers(1, 4), st.lists(st.integers(0, 3), max_size=4))
def test_whatever_an_archive_does_each_result_arrives_once(
    tmp_path_factory: pytest.TempPathFactory,
    bad: list[Fault],
    number: int,
    restarts: list[int],
) -> None:
    """Any order of faults and restarts: nothing proved that is not held, in the end all, once."""
    folder = tmp_path_factory.mktemp("site")
    with running_archive() as archive, Site(folder, {"pacs": dicomweb(archive)}) as site:
        jobs = [site.results("pacs") for _ in range(number)]
        uids = {job_id: uid_of(site.file(job_id)) for job_id in jobs}
        archive.faults.extend(bad)
        courier = site.courier()
        for step in range(400):
            if step in restarts:
                courier = site.courier()
            site.clock.advance(max(courier.work(), 30))
            proved = {j for j in jobs if site.delivery(j).state is PROVED}
            assert {uids[job_id] for job_id in proved} <= {*archive.held}
            if len(proved) == number:
                break
        assert {*archive.held} == {*uids.values()}
        assert {site.store.job(job_id).state for job_id in jobs} == {State.DONE}
