"""What becomes of files that an earlier door left behind, with a real job log and real files.

Covered: every state in which a process may have died between file and row. Not covered: objects
that come in while the door runs (tests/sockets/test_door.py).
"""

import hashlib
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from pydicom.uid import ExplicitVRLittleEndian

from app.dicom.part10 import header
from app.door.intake import Intake
from app.pipeline.receive import prepare, put_aside, spool_name
from app.store.store import Store
from tests.sockets.scu import Made, image, new_study


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A data folder as the door prepares it."""
    prepare(tmp_path)
    return tmp_path


@pytest.fixture
def store(data: Path) -> Iterator[Store]:
    """Its job log."""
    store = Store.open(data / "node.db")
    yield store
    store.close()


def leave(data: Path, made: Made) -> str:
    """Leave a file without a row, as a killed process does; return its path in the data folder."""
    file = spool_name()
    head = header(made.sop_class, made.sop_uid, made.syntax)
    (data / file).write_bytes(head + made.dataset)
    return file


def take(data: Path, store: Store, made: Made) -> Path:
    """Bring an object in and return its file."""
    claimed = (made.sop_class, made.sop_uid)
    outcome = Intake(data, store).take(
        made.dataset, made.syntax, claimed=claimed, source="PEER@127.0.0.1"
    )
    assert outcome.status == 0
    row = store.find_instance(made.sop_uid)
    assert row is not None
    return data / row.file


def test_a_file_without_a_row_gets_one(data: Path, store: Store) -> None:
    """With all that the row would have said."""
    made = image(new_study())
    file = leave(data, made)
    assert Intake(data, store).adopt_orphans() == 1
    [row] = store.instances(made.study_uid)
    assert (row.file, row.size) == (file, len(made.dataset))
    assert row.sha256 == hashlib.sha256(made.dataset).hexdigest()
    assert (row.sop_uid, row.transfer_syntax) == (made.sop_uid, ExplicitVRLittleEndian)
    assert Intake(data, store).adopt_orphans() == 0


def test_a_second_copy_without_a_row_is_removed(data: Path, store: Store) -> None:
    """The answer of the first was lost, and the sender came again."""
    made = image(new_study())
    held = take(data, store, made)
    file = leave(data, made)
    assert Intake(data, store).adopt_orphans() == 0
    assert held.exists()
    assert not (data / file).exists()


def test_a_copy_takes_the_place_of_a_lost_file(data: Path, store: Store) -> None:
    """The row keeps its promise."""
    made = image(new_study())
    held = take(data, store, made)
    held.unlink()
    leave(data, made)
    assert Intake(data, store).adopt_orphans() == 0
    assert held.read_bytes().endswith(made.dataset)
    assert len(store.instances(made.study_uid)) == 1


def test_other_content_without_a_row_is_put_aside(data: Path, store: Store) -> None:
    """Two associations brought the same UID, and the process died in between."""
    made = image(new_study())
    held = take(data, store, made)
    other = replace(made, dataset=made.dataset[:-1] + b"!")
    file = leave(data, other)
    assert Intake(data, store).adopt_orphans() == 0
    assert held.read_bytes().endswith(made.dataset)
    assert not (data / file).exists()
    [aside] = (data / "quarantine").iterdir()
    assert aside.read_bytes().endswith(other.dataset)
    [alarm] = [e for e in store.study_events(made.study_uid) if e.event == "quarantined"]
    assert aside.name in alarm.detail


def test_a_broken_file_is_left_alone(data: Path, store: Store) -> None:
    """It is nobody's, but it may say something to a person; the others are noted."""
    made = image(new_study())
    leave(data, made)
    broken = data / "spool" / "00" / ("0" * 32 + ".dcm")
    broken.write_bytes(b"broken")
    assert Intake(data, store).adopt_orphans() == 1
    assert broken.exists()


def test_a_file_without_a_row_is_found_however_old_it_is(data: Path, store: Store) -> None:
    """A clock that was set back, or a start that was cut short, hides nothing."""
    old = image(new_study())
    assert Intake(data, store).adopt_orphans() == 0
    os.utime(data / leave(data, old), (0, 0))
    assert Intake(data, store).adopt_orphans() == 1
    assert store.find_instance(old.sop_uid) is not None


def test_a_file_moved_aside_leaves_nothing_behind(data: Path) -> None:
    """It has one name before and one name after."""
    made = image(new_study())
    file = leave(data, made)
    put_aside(data, file, "quarantine/x.dcm")
    assert not (data / file).exists()
    assert (data / "quarantine" / "x.dcm").read_bytes().endswith(made.dataset)
