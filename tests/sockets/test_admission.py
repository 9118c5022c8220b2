"""Who is let in, and what everybody else is told (PS3.8 table 9-21).

Covered: each rejection by its three numbers, and peers by AE title, address and network. Not
covered: certificates (test_tls) and numbers of connections (test_guard).
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.sockets.doors import Door
from tests.sockets.hostile import ASSOCIATE_RJ, Peer, associate_rq

PEERS = [
    {"ae_title": "CT1", "addresses": ["127.0.0.1"]},
    {"ae_title": "CT1", "addresses": ["127.0.1.0/24"]},
    {"ae_title": "ANYWHERE"},
]


@pytest.fixture(scope="module")
def closed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    """A door for these peers."""
    with Door(tmp_path_factory.mktemp("closed"), peers=PEERS) as door:
        yield door.start()


def told(door: Door, source: str = "127.0.0.1", **names: Any) -> tuple[int, ...] | None:
    """Return result, source and reason of the rejection; None when it was let in."""
    with Peer(door.port, source) as peer:
        answer = peer.rejection(**names)
    return None if answer is None else tuple(answer[-3:])


@pytest.mark.parametrize(
    ("source", "title", "answer"),
    [
        ("127.0.0.1", b"CT1", None),
        ("127.0.1.77", b"CT1", None),
        ("127.0.0.2", b"CT1", (1, 1, 3)),
        ("127.0.0.2", b"ANYWHERE", None),
        ("127.0.0.1", b"CT2", (1, 1, 3)),
        ("127.0.0.1", b"ct1", (1, 1, 3)),
        ("127.0.0.1", b"", (1, 1, 3)),
        ("127.0.0.1", b"CT1\n", (1, 1, 3)),
    ],
)
def test_only_peers_are_let_in(
    closed: Door, source: str, title: bytes, answer: tuple[int, ...] | None
) -> None:
    """By title and address together; a network counts as its addresses."""
    assert told(closed, source, calling=title) == answer


def test_nobody_is_let_in_unless_the_site_says_so(tmp_path: Path) -> None:
    """A door without peers is closed; an open one says so in a loud voice."""
    with Door(tmp_path, peers=[]) as door:
        assert told(door.start()) == (1, 1, 3)
        assert "OPEN" not in door.output()
        door.kill()
    with Door(tmp_path) as door:
        assert told(door.start()) is None
        assert "the door is OPEN" in door.output()


@pytest.mark.parametrize(
    ("names", "answer"),
    [
        ({"called": b"ANOTHER"}, (1, 1, 7)),
        ({"version": 2}, (1, 2, 2)),
        ({"version": 3}, None),
    ],
)
def test_a_request_for_something_else_is_rejected(
    tmp_path: Path, names: dict[str, Any], answer: tuple[int, ...] | None
) -> None:
    """Another node, a protocol or an application that we do not speak."""
    with Door(tmp_path) as door:
        assert told(door.start(), **names) == answer


def test_an_unknown_application_context_is_rejected(tmp_path: Path) -> None:
    """It is none of DICOM's."""
    other = associate_rq().replace(b"1.2.840.10008.3.1.1.1", b"1.2.840.10008.3.1.1.2")
    with Door(tmp_path) as door, Peer(door.start().port) as peer:
        assert peer.send(other)
        answer = peer.receive()
        assert answer is not None
        assert (answer.kind, tuple(answer.body[1:4])) == (ASSOCIATE_RJ, (1, 1, 2))


def test_nobody_is_let_in_without_room_on_the_disk(tmp_path: Path) -> None:
    """2/3/2: a sender comes again later."""
    with Door(tmp_path, limits={"free_gb": 1e6}) as door:
        assert told(door.start()) == (2, 3, 2)
