"""How the door's process begins and ends, and what it says when it cannot begin.

Covered: a port in use, a missing and a damaged job log, SIGTERM, the end of the parent. Not
covered: SIGKILL (test_door_kill), and the node that starts the door again.
"""

import socket
import sqlite3
from contextlib import closing
from pathlib import Path

from app.dicom.dimse import Status
from tests.sockets.doors import Door
from tests.sockets.scu import associated, image, new_study, send, statuses


def test_a_port_in_use_is_named_with_what_to_do(tmp_path: Path) -> None:
    """A sentence and status 2, no traceback."""
    with closing(socket.create_server(("127.0.0.1", 0))) as other:
        port = other.getsockname()[1]
        with Door(tmp_path, port=port) as door:
            door.launch()
            assert door.wait() == 2
            assert f"cannot listen on 127.0.0.1:{port}" in door.output()
            assert "free port" in door.output()
            assert "Traceback" not in door.output()


def test_the_end_does_not_wait_for_idle_peers(tmp_path: Path) -> None:
    """SIGTERM with an open association and a silent connection: a clean end at once."""
    made = image(new_study())
    limits = {"associate_s": 60}
    with (
        Door(tmp_path, limits=limits) as door,
        door.start().connect(),
        associated(door.port, [made]) as assoc,
    ):
        assert send(assoc, made)[0] == 0
        assert door.process is not None
        door.process.terminate()
        assert door.wait(30) == 0
        assert len(door.rows(made.study_uid)) == 1
        assert door.store.study(made.study_uid).released_at is not None


def test_the_door_ends_with_its_parent(tmp_path: Path) -> None:
    """The parent holds a pipe; when that is closed, however it died, nobody needs the door."""
    with Door(tmp_path) as door:
        process = door.start().process
        assert process is not None
        assert process.stdin is not None
        process.stdin.close()
        assert door.wait() == 0


def test_a_damaged_job_log_is_our_fault_and_no_success(tmp_path: Path) -> None:
    """0110 and one line for us; the sender keeps its object."""
    made = image(new_study())
    with Door(tmp_path) as door:
        door.start()
        with sqlite3.connect(door.data / "node.db") as damaged:
            damaged.execute("DROP TABLE instances")
        damaged.close()
        assert statuses(door.port, [made]) == [Status.OUR_FAULT]
        door.said("1 refused with 0110")
        assert door.output().count("ERROR") == 1
        assert "Traceback" not in door.output()


def test_a_door_without_a_job_log_does_not_open(tmp_path: Path) -> None:
    """The node makes it; a door alone would acknowledge what nobody knows of."""
    with Door(tmp_path) as door:
        door.store.close()
        (door.data / "node.db").unlink()
        door.launch()
        assert door.wait() == 2
        assert "no job log" in door.output()
