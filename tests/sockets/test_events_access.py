"""Who may send events over HTTP, and what a hostile one may take of us, each case by its number.

Covered: no credentials (S33), other methods and pages in a browser (S35), paths elsewhere (S1),
lengths and nesting (S9), packed bodies (S7), slow ones (S40), lines in the log (S29), addresses
inside an event (S31), memory.
Not covered: a flood from many machines at once.
"""

import json
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import requests

from tests.sockets.events import EventPort, google, received
from tests.sockets.scu import new_study
from tests.sockets.stows import BEARER, StowDoor, resident_mb
from tests.waiting import wait_until

DEEP = b"[" * 60_000
WRONG_UIDS = ["..", "1.2.x", "1..2", "1" * 65, "%00", "1.2%0d%0aevil: 1", "1.2;x", "%D9%A1", "-1"]


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EventPort]:
    """One port for most tests, with two archives that can be asked."""
    with EventPort(tmp_path_factory.mktemp("two"), ("pacs", "cloud")) as one:
        yield one


@pytest.fixture
def port(two: EventPort) -> EventPort:
    """Give the port, of which nothing is noted."""
    two.forget()
    return two


@pytest.mark.parametrize("path", ["/api/studies/1.2.3", "/api/events/google", "/api"])
@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "DELETE", "OPTIONS"])
def test_s33_nobody_unknown_is_told_anything(port: EventPort, path: str, method: str) -> None:
    """401 for every path and method."""
    answer = requests.request(method, port.url + path, timeout=10)
    assert answer.status_code == 401
    wrong = {"Authorization": "Bearer wrong"}
    assert port.ask(path, method, headers=wrong).status_code == 401
    assert port.asked() == {}


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH"])
def test_s35_no_other_method_does_anything(port: EventPort, method: str) -> None:
    """405 says which do; a header that would change the method does nothing."""
    answer = port.ask(f"/api/studies/{received(port)}", method)
    assert (answer.status_code, set(answer.headers["Allow"].split(", "))) == (
        405,
        {"GET", "HEAD", "POST"},
    )
    override = {"X-HTTP-Method-Override": "POST"}
    uid = new_study()
    port.ask(f"/api/studies/{uid}?source=pacs", "GET", headers=override)
    assert port.asked() == {}
    assert port.ask("/api/events/google", "GET").status_code == 405


@pytest.mark.parametrize("path", ["/api/studies/1.2.3?source=pacs", "/api/events/google"])
def test_s35_a_page_in_a_browser_sends_no_events(port: EventPort, path: str) -> None:
    """A browser adds the credentials that it knows, but says which page it was."""
    answer = port.ask(path, headers={"Origin": "http://evil.example"})
    assert (answer.status_code, port.asked()) == (403, {})


@pytest.mark.parametrize("uid", WRONG_UIDS)
def test_s1_a_study_must_be_a_uid(port: EventPort, uid: str) -> None:
    """400 or 404, and what was written there is not repeated."""
    with port.raw() as peer:
        line = f"POST /api/studies/{uid}?source=pacs HTTP/1.1"
        said = peer.head(line, Content_Length="0", Connection="close").everything()
    assert said.split()[1] in {b"400", b"404"}
    assert b"evil" not in said
    assert port.asked() == {}


@pytest.mark.parametrize(
    "path",
    [
        "/api",
        "/api/studies",
        "/api/studies/",
        "/api/studies/1.2/",
        "/api/studies/1.2/series/1.3",
        "/api/studies/..%2F..%2Fetc%2Fpasswd",
        "/api/../api/studies/1.2",
        "/api/events",
        "//api/studies/1.2",
        "/API/studies/1.2",
    ],
)
def test_s1_other_addresses_do_not_exist(port: EventPort, path: str) -> None:
    """404 and no redirection."""
    with port.raw() as peer:
        assert peer.head(f"POST {path} HTTP/1.1", Content_Length="0").status() == 404


@pytest.mark.parametrize(
    ("body", "kind", "status"),
    [
        (b"x" * 65_537, "application/json", 413),
        (b"{}" + b" " * 65_534, "application/json", 202),
        (b"source=pacs", "application/x-www-form-urlencoded", 415),
        (b"{}", "text/plain", 415),
        (b"<source>pacs</source>", "application/xml", 415),
        (b"pacs", "application/json", 400),
        (b'"pacs"', "application/json", 400),
        (b"[]", "application/json", 400),
        (b"\xff\xfe{", "application/json", 400),
        (DEEP, "application/json", 400),
        (b'{"source":' * 5000, "application/json", 400),
        (b"1" * 60_000, "application/json", 400),
    ],
)
def test_a_body_that_is_no_event_is_refused(
    port: EventPort, body: bytes, kind: str, status: int
) -> None:
    """S9 and nesting: by its length before it is read, and never by an error of ours."""
    answer = port.ask(f"/api/studies/{received(port)}", data=body, headers={"Content-Type": kind})
    assert answer.status_code == status, answer.text


def test_s9_a_body_without_a_length_is_not_read_on_and_on(port: EventPort) -> None:
    """It is ended at the first byte too many."""
    path = f"/api/studies/{new_study()}?source=pacs"
    with port.raw() as peer:
        peer.head(f"POST {path} HTTP/1.1", Transfer_Encoding="chunked")
        chunk = b"2000\r\n%b\r\n" % (b" " * 8192)
        assert peer.send(chunk * 9).status() == 413
    assert port.asked() == {}


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br"])
def test_s7_an_encoded_event_is_refused(port: EventPort, encoding: str) -> None:
    """415 before it is read."""
    answer = port.ask(
        f"/api/studies/{new_study()}", data=b"x", headers={"Content-Encoding": encoding}
    )
    assert answer.status_code == 415


def test_s40_a_slow_event_is_dropped_and_keeps_nobody_waiting(port: EventPort) -> None:
    """More than there are places, each with half a body; then an honest one."""
    with ExitStack() as stack:
        peers = [stack.enter_context(port.raw()) for _ in range(12)]
        for peer in peers:
            line = f"POST /api/studies/{new_study()}?source=pacs HTTP/1.1"
            peer.head(line, Content_Type="application/json", Content_Length="20").send(b"{")
        statuses = {peer.status() for peer in peers}
        assert statuses == {408, 503}
    uid = received(port)
    wait_until(lambda: port.ask(f"/api/studies/{uid}").status_code == 202, 5, "a free place")
    assert port.asked() == {}


def test_s29_nothing_of_what_was_sent_is_in_the_log(
    port: EventPort, caplog: pytest.LogCaptureFixture
) -> None:
    """A line names the study by its UID and the sender by our name; all else is not repeated."""
    caplog.set_level("DEBUG", "app")
    evil = "x\nevil\x1b[31m"
    port.ask(f"/api/studies/{(uid := new_study())}", params={"source": evil})
    port.ask(f"/api/studies/{uid}", json={evil: evil})
    port.ask("/api/events/google", json=google(evil))
    port.ask(f"/api/studies/{uid}?source=pacs", headers={"User-Agent": "evil"})
    assert "evil" not in caplog.text
    assert f"token@127.0.0.1 says that study {uid} is whole" in caplog.text


def test_s31_no_address_in_an_event_is_followed(port: EventPort) -> None:
    """A source is a name from app.yaml; nothing else in an event says where to go."""
    for source in ("http://169.254.169.254/", "file:///etc/passwd", "pacs/../x"):
        answer = port.ask(f"/api/studies/{new_study()}", json={"source": source})
        assert (answer.status_code, "169.254" in answer.text) == (400, False)


def test_a_flood_of_large_events_takes_no_memory(tmp_path: Path) -> None:
    """Hundreds of bodies at their limit."""
    with StowDoor(tmp_path) as door:
        door.start()
        url = f"http://127.0.0.1:{door.http_port}/api/events/google"
        body = json.dumps(google("x" * 40_000)).encode()
        requests.post(url, data=body, headers=BEARER, timeout=10)
        before = resident_mb(door)
        for _ in range(300):
            assert requests.post(url, data=body, headers=BEARER, timeout=10).status_code == 400
        assert resident_mb(door) - before < 20
