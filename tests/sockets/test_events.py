"""What the HTTP port answers to events, and what the job log then holds.

Covered: an event for a study in every state, with and without archives to ask; its repetition; the
state of a study; Google's messages; a busy job log; places of their own beside uploads.
Not covered: what comes of a study that is asked for; hostile events, see test_events_access.
"""

import base64
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import requests

from app.store.jobs import RemoteState
from tests.log_rows import START, new_job
from tests.sockets.events import EventPort, google, google_path, received
from tests.sockets.scu import CANARY, image, new_study
from tests.sockets.stows import BEARER, StowDoor

pytestmark = pytest.mark.alone


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EventPort]:
    """One port for most tests, with two archives that can be asked."""
    with EventPort(tmp_path_factory.mktemp("two"), ("pacs", "cloud")) as one:
        yield one


@pytest.fixture(scope="module")
def only(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EventPort]:
    """One with a single archive."""
    with EventPort(tmp_path_factory.mktemp("only"), ("pacs",)) as one:
        yield one


@pytest.fixture
def port(two: EventPort) -> EventPort:
    """Give the port with two archives, of which nothing is noted."""
    two.forget()
    return two


@pytest.fixture
def single(only: EventPort) -> EventPort:
    """Give the port with a single archive, of which nothing is noted."""
    only.forget()
    return only


# -- a study is whole ------------------------------------------------------------------------------


@pytest.mark.parametrize("given", [{"params": {"source": "pacs"}}, {"json": {"source": "pacs"}}])
def test_a_study_is_asked_for_at_the_source_that_is_named(
    port: EventPort, given: dict[str, Any]
) -> None:
    """In the address or in the body; the answer says what will happen."""
    answer = port.ask(f"/api/studies/{(uid := new_study())}", **given)
    assert (answer.status_code, answer.json()["message"]) == (202, "it is fetched from pacs")
    assert port.asked() == {uid: ("pacs", RemoteState.ASKED)}
    [remote] = port.store.remotes(uid)
    assert remote.reason == "told whole by token@127.0.0.1"


def test_an_open_study_is_complete_when_somebody_says_so(port: EventPort) -> None:
    """Nothing is fetched for it."""
    uid = received(port)
    answer = port.ask(f"/api/studies/{uid}")
    assert (answer.status_code, answer.json()["study"]) == (202, uid)
    assert port.store.study(uid).complete_signal == "told complete by token@127.0.0.1"
    assert port.asked() == {}


@pytest.mark.parametrize("state", ["routed", "failed"])
def test_nothing_is_done_for_a_study_that_was_whole_before(port: EventPort, state: str) -> None:
    """200 and a sentence."""
    uid = received(port, state=state)
    answer = port.ask(f"/api/studies/{uid}")
    assert (answer.status_code, answer.json()["state"]) == (200, state)
    assert port.store.study(uid).complete_signal is None


@pytest.mark.parametrize("sources", [0, 1])
def test_a_study_that_was_removed_is_fetched_again_or_asked_for(
    port: EventPort, single: EventPort, sources: int
) -> None:
    """It is not said to be whole: nothing of it is here."""
    at = single if sources else port
    uid = received(at, state="routed")
    for job in at.store.jobs(study_uid=uid):
        at.store.cancel(job.id, START)
    assert at.store.remove_study(uid, START + timedelta(days=1), START) == 1
    answer = at.ask(f"/api/studies/{uid}")
    if sources:
        assert (answer.status_code, at.asked()[uid]) == (202, ("pacs", RemoteState.ASKED))
    else:
        assert (answer.status_code, answer.json()["state"]) == (200, "removed")
        assert "send it again" in answer.json()["message"]


def test_an_unknown_study_is_asked_for_at_the_only_source(single: EventPort) -> None:
    """There is no doubt where it lies."""
    assert single.ask(f"/api/studies/{(uid := new_study())}").status_code == 202
    assert single.asked() == {uid: ("pacs", RemoteState.ASKED)}


def test_an_unknown_study_without_a_sure_source_is_not_found(port: EventPort) -> None:
    """404 says what to name."""
    answer = port.ask(f"/api/studies/{new_study()}")
    assert (answer.status_code, "name the source" in answer.text) == (404, True)
    assert port.asked() == {}


def test_a_study_that_a_source_lists_is_asked_for_there(port: EventPort) -> None:
    """Also when a part of it is here: that part may just be on its way from there."""
    uid = received(port)
    port.store.note_listed("cloud", {uid: 12}, START)
    assert port.ask(f"/api/studies/{uid}").status_code == 202
    assert port.asked() == {uid: ("cloud", RemoteState.ASKED)}
    assert port.store.study(uid).complete_signal is None


@pytest.mark.parametrize(
    ("given", "word"),
    [
        ({"params": {"source": "other"}}, "no source has this name"),
        ({"params": {"source": ""}}, "no source has this name"),
        ({"json": {"source": 7}}, "no source has this name"),
        ({"json": {"source": ["pacs"]}}, "no source has this name"),
        ({"params": {"souce": "pacs"}}, "one key"),
        ({"json": {"source": "pacs", "study": "1.2"}}, "one key"),
        ({"params": {"source": "pacs"}, "json": {"source": "cloud"}}, "two sources"),
    ],
)
def test_a_source_that_is_not_sure_is_refused(
    port: EventPort, given: dict[str, Any], word: str
) -> None:
    """400, and nothing is noted."""
    answer = port.ask(f"/api/studies/{received(port)}", **given)
    assert (answer.status_code, word in answer.text) == (400, True), answer.text
    assert port.asked() == {}


def test_the_same_event_again_makes_no_second_job(port: EventPort) -> None:
    """Before and after the study is routed."""
    uid = received(port)
    assert [port.ask(f"/api/studies/{uid}").status_code for _ in range(2)] == [202, 202]
    assert port.store.route_study(uid, 1, None, [new_job("again", uid)], START) == ["again"]
    assert port.ask(f"/api/studies/{uid}").status_code == 200
    assert [job.id for job in port.store.jobs(study_uid=uid)] == ["again"]
    assert uid not in {each.study_uid for each in port.store.open_studies()}


# -- where a study is on its way -------------------------------------------------------------------


def test_the_state_of_a_study_can_be_followed(port: EventPort) -> None:
    """From asked to its job; nothing from its headers is in it."""
    uid = new_study()
    port.ask(f"/api/studies/{uid}", params={"source": "pacs"})
    state = port.ask(f"/api/studies/{uid}", "GET").json()
    assert (state["state"], state["objects"], state["jobs"]) == (None, 0, [])
    told = "told whole by token@127.0.0.1"
    assert state["sources"] == [{"source": "pacs", "state": "asked", "reason": told}]
    made = image(uid)
    assert port.store_object(made) == 200
    assert port.store.route_study(uid, 1, None, [new_job("j", uid)], datetime.now(UTC)) == ["j"]
    answer = port.ask(f"/api/studies/{uid}", "GET")
    state = answer.json()
    assert (answer.status_code, state["state"], state["objects"]) == (200, "routed", 1)
    job = {"id": "j", "route": "phantom-ct", "state": "queued", "stage": "infer", "reason": ""}
    assert state["jobs"] == [job]
    assert CANARY not in answer.text


def test_the_state_of_an_unknown_study_is_not_found(port: EventPort) -> None:
    """And asking changes nothing."""
    assert port.ask(f"/api/studies/{(uid := new_study())}", "GET").status_code == 404
    assert (port.asked(), port.store.find_study(uid)) == ({}, None)


# -- Google's messages -----------------------------------------------------------------------------


def test_a_study_that_grows_at_google_is_fetched_when_it_is_quiet(single: EventPort) -> None:
    """Each message begins the quiet time anew, also after a fetch."""
    message = google(google_path(uid := new_study()), action="StoreInstances")
    assert single.ask("/api/events/google", json=message).status_code == 204
    assert single.asked() == {uid: ("pacs", RemoteState.LISTED)}
    now = datetime.now(UTC)
    assert single.store.due_remotes("pacs", now, 60) == []
    [remote] = single.store.due_remotes("pacs", now, 0)
    assert single.store.settle_remote(remote, RemoteState.FETCHED)
    single.ask("/api/events/google", json=message)
    assert [each.study_uid for each in single.store.due_remotes("pacs", datetime.now(UTC), 0)]


def test_the_source_of_a_message_is_named_in_the_address(port: EventPort) -> None:
    """With two of them it has to be."""
    message = google(google_path(uid := new_study()))
    assert port.ask("/api/events/google", json=message).status_code == 400
    path = "/api/events/google?source=cloud"
    assert port.ask(path, json=message).status_code == 204
    assert port.asked() == {uid: ("cloud", RemoteState.LISTED)}


def test_what_is_deleted_at_google_is_not_fetched(single: EventPort) -> None:
    """The message is taken all the same, or it would come again."""
    message = google(google_path(new_study()), action="DeleteInstance")
    assert single.ask("/api/events/google", json=message).status_code == 204
    assert single.asked() == {}


@pytest.mark.parametrize(
    "message",
    [
        {},
        {"message": []},
        {"message": {"data": 1}},
        {"message": {"data": "%%%"}},
        {"message": {"data": "é"}},
        {"message": {"data": base64.b64encode(b"\xff").decode()}},
        google(""),
        google("1.2.3"),
        google(google_path("1..2")),
        google(google_path("1" * 65)),
        google(google_path("../../1.2")),
        google(google_path("1.2") + "/rendered"),
        google(google_path("1.2") + "\n"),
        google("/" + google_path("1.2")),
    ],
)
def test_a_message_that_names_no_instance_is_refused(
    single: EventPort, message: dict[str, Any]
) -> None:
    """400: Pub/Sub sends it again and then to its dead letter topic."""
    assert single.ask("/api/events/google", json=message).status_code == 400
    assert single.asked() == {}


def test_a_busy_job_log_asks_for_another_try(single: EventPort) -> None:
    """503 with Retry-After, and nothing about where the log lies."""
    uid = new_study()
    with single.busy():
        answer = single.ask(f"/api/studies/{uid}")
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "30")
    assert answer.text == "the job log is busy; send again later\n"
    assert single.ask(f"/api/studies/{uid}").status_code == 202


# -- the real door ---------------------------------------------------------------------------------


def test_an_event_finds_its_place_while_uploads_take_all_of_theirs(tmp_path: Path) -> None:
    """The door as a process: objects by STOW-RS, then the event, beside a stalled upload."""
    with StowDoor(tmp_path, max_requests=1) as door:
        door.start()
        made = image(new_study())
        assert door.store_objects([made]).status == 200
        url = f"http://127.0.0.1:{door.http_port}/api/studies/{made.study_uid}"
        with door.raw() as stalled:
            stalled.head(Content_Length="1000000").send(b"--a")
            assert door.refuses_one_more()
            began = time.monotonic()
            assert requests.post(url, headers=BEARER, timeout=10).status_code == 202
            assert time.monotonic() - began < 1
        signal = door.store.study(made.study_uid).complete_signal
        assert signal == "told complete by token@127.0.0.1"
        door.said(f"says that study {made.study_uid} is whole")
