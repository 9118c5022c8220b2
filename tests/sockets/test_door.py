"""The door as its senders see it: a real process, real associations, what is on disk afterwards.

Covered: C-ECHO and C-STORE by dcmtk and pynetdicom in every offered transfer syntax, the status
table row by row, associations that end in every way, parallel senders, and that no patient's name
gets into its output. How the process begins and ends stands in test_door_process, its restart after
kill -9 in test_door_kill.
Not covered yet: caps on connections and PDU lengths, TLS and a list of known peers (there are
none), and a real power cut (needs a disk image).
"""

import hashlib
import socket
import sqlite3
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pydicom
import pytest
from pydicom import config as pydicom_config
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    MRImageStorage,
    generate_uid,
)
from pynetdicom.sop_class import CTImageStorage

from app.dicom.dimse import TRANSFER_SYNTAXES, Status, printable
from app.dicom.part10 import read_part10
from tests.peers import dcmsend, echoscu, require, storescu
from tests.sockets.doors import Door
from tests.sockets.scu import Made, associated, image, images, new_study, send, statuses
from tests.waiting import wait_until

FILES = Path(pydicom_config.__file__).parent / "data" / "test_files"


@pytest.fixture(scope="module")
def door(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    """One door for most tests; each uses a study of its own."""
    with Door(tmp_path_factory.mktemp("door")) as one:
        yield one.start()


@pytest.fixture
def study() -> str:
    """A fresh Study Instance UID."""
    return new_study()


def bytes_of(door: Door, sop_uid: str) -> bytes:
    """Return the data set of a kept object."""
    row = door.store.find_instance(sop_uid)
    assert row is not None
    path = door.data / row.file
    return path.read_bytes()[read_part10(path).dataset_at :]


# -- what is taken ---------------------------------------------------------------------------


@pytest.mark.dcmtk
def test_an_echo_is_answered(door: Door) -> None:
    """The node's AE title opens the door."""
    require("echoscu")
    assert echoscu(door.port).returncode == 0


@pytest.mark.dcmtk
def test_another_called_ae_title_is_rejected(door: Door) -> None:
    """A sender that means another node hears so (1/1/7)."""
    require("echoscu")
    answer = echoscu(door.port, called="ANOTHER")
    assert answer.returncode != 0
    assert "Called AE Title Not Recognized" in answer.stderr


def test_every_offered_transfer_syntax_is_kept_byte_by_byte(door: Door, study: str) -> None:
    """Nothing is decoded: what lies behind our header is what was sent."""
    objects = [image(study, syntax) for syntax in TRANSFER_SYNTAXES]
    assert statuses(door.port, objects) == [0] * len(objects)
    assert {row.transfer_syntax for row in door.rows(study)} == {*map(str, TRANSFER_SYNTAXES)}
    for each in objects:
        assert bytes_of(door, each.sop_uid) == each.dataset


REAL = [
    "CT_small.dcm",
    "MR_small_RLE.dcm",
    "MR_small_bigendian.dcm",
    "MR_small_implicit.dcm",
    "MR_small_jp2klossless.dcm",
    "MR_small_jpeg_ls_lossless.dcm",
    "JPEG-lossy.dcm",
    "SC_rgb_small_odd_jpeg.dcm",
    "reportsi.dcm",
    "rtplan.dcm",
    "waveform_ecg.dcm",
]


def test_real_files_are_kept_byte_by_byte(door: Door) -> None:
    """Images, a report, a plan and a waveform of real makers, as encoded by them."""
    objects = [real(FILES / name, number) for number, name in enumerate(REAL)]
    assert statuses(door.port, objects) == [0] * len(objects)
    for each in objects:
        assert bytes_of(door, each.sop_uid) == each.dataset


def real(path: Path, number: int) -> Made:
    """Read a file as something to be sent; several are the same object, so each gets a UID."""
    found = read_part10(path)
    uids = found.identifiers
    sop_uid = f"{uids.sop_uid[:-2]}{number + 10}"
    dataset = path.read_bytes()[found.dataset_at :]
    return Made(
        dataset=dataset.replace(uids.sop_uid.encode(), sop_uid.encode(), 1),
        sop_uid=sop_uid,
        study_uid=uids.study_uid,
        sop_class=uids.sop_class_uid,
        syntax=found.transfer_syntax,
    )


@pytest.mark.dcmtk
def test_dcmtk_sends_native_and_compressed_files(door: Door, tmp_path: Path) -> None:
    """The most common sender, with its own way of cutting messages into pieces."""
    require("storescu", "dcmsend")
    paths = []
    for name in ("CT_small.dcm", "MR_small_jp2klossless.dcm", "JPGExtended.dcm"):
        ds = pydicom.dcmread(FILES / name)
        ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = generate_uid()
        ds.save_as(path := tmp_path / name)
        paths.append((path, ds))
    native, compressed = [paths[0][0]], [path for path, _ in paths[1:]]
    for answer in (storescu(door.port, native), dcmsend(door.port, compressed)):
        assert answer.returncode == 0, answer.stdout + answer.stderr
    for _, ds in paths:
        row = door.store.find_instance(str(ds.SOPInstanceUID))
        assert row is not None
        assert pydicom.dcmread(door.data / row.file).PixelData == ds.PixelData


def test_a_kept_object_has_its_row(door: Door, study: str) -> None:
    """The row says what the file holds and where it came from."""
    made = image(study)
    assert statuses(door.port, [made]) == [0]
    [row] = door.rows(study)
    assert (row.sop_uid, row.sop_class_uid) == (made.sop_uid, CTImageStorage)
    assert (row.study_uid, row.series_uid) == (study, f"{study}.1")
    assert row.sha256 == hashlib.sha256(made.dataset).hexdigest()
    assert (row.size, row.source) == (len(made.dataset), "PEER@127.0.0.1")


def test_deflated_and_unknown_classes_are_not_negotiated(door: Door) -> None:
    """Others in the same association are."""
    wanted = [
        (CTImageStorage, DeflatedExplicitVRLittleEndian),
        (CTImageStorage, ExplicitVRLittleEndian),
        ("1.2.826.0.1.3680043.8.498.1", ExplicitVRLittleEndian),
    ]
    with associated(door.port, contexts=wanted) as assoc:
        accepted = [
            (each.abstract_syntax, each.transfer_syntax) for each in assoc.accepted_contexts
        ]
    assert accepted == [(CTImageStorage, [ExplicitVRLittleEndian])]


# -- the status table ------------------------------------------------------------------------


def test_an_identical_copy_is_acknowledged_and_not_kept_again(door: Door, study: str) -> None:
    """A sender that repeats a study is content, and nothing grows."""
    objects = images(study, 2)
    assert statuses(door.port, objects) == [0, 0]
    before = {*door.spooled()}
    assert statuses(door.port, objects * 2) == [0] * 4
    assert {*door.spooled()} == before
    assert len(door.rows(study)) == 2


def test_an_identical_copy_of_a_lost_file_is_kept(door: Door, study: str) -> None:
    """A row alone is no reason to acknowledge: the bytes must be there."""
    made = image(study)
    assert statuses(door.port, [made]) == [0]
    [row] = door.rows(study)
    (door.data / row.file).unlink()
    assert statuses(door.port, [made]) == [0]
    assert bytes_of(door, made.sop_uid) == made.dataset


def test_other_content_of_a_held_uid_is_put_aside(door: Door, study: str) -> None:
    """Both are kept, the sender hears of it, and the study's history has an alarm."""
    made = image(study)
    other = replace(made, dataset=made.dataset[:-1] + b"!")
    quarantined = {*door.quarantined()}
    with associated(door.port, [made]) as assoc:
        assert send(assoc, made)[0] == 0
        for _ in range(2):
            status, words = send(assoc, other)
            assert status == Status.OTHER_CONTENT
            assert "other content" in words
    assert bytes_of(door, made.sop_uid) == made.dataset
    [aside] = {*door.quarantined()} - quarantined
    assert aside.read_bytes().endswith(other.dataset)
    alarms = [e for e in door.store.study_events(study) if e.event == "quarantined"]
    assert len(alarms) == 2
    assert made.sop_uid in alarms[0].detail
    assert aside.name in alarms[0].detail


def test_uids_that_differ_between_command_and_data_set_are_refused(door: Door, study: str) -> None:
    """A900, and nothing is kept."""
    made = image(study)
    before = {*door.spooled()}
    with associated(door.port, [made], contexts=[(MRImageStorage, made.syntax)]) as assoc:
        assert send(assoc, made, sop_uid="2.25.77")[0] == Status.UIDS_DIFFER
        as_mr = replace(made, sop_class=MRImageStorage)
        assert send(assoc, as_mr)[0] == Status.UIDS_DIFFER
        assert send(assoc, made)[0] == Status.SUCCESS  # the association lives on
    assert len(door.rows(study)) == len({*door.spooled()} - before) == 1


def test_a_class_that_was_not_negotiated_is_refused(door: Door, study: str) -> None:
    """0122: the presentation context was for another one."""
    made = image(study)
    with associated(door.port, [made]) as assoc:
        status, _ = send(assoc, made, sop_class=MRImageStorage)
    assert status == Status.NOT_NEGOTIATED
    assert not door.rows(study)


def test_what_is_no_whole_data_set_is_refused(door: Door, study: str) -> None:
    """C000 for truncation, noise and missing UIDs; the association lives on."""
    made = image(study)
    lacking = image(study)
    lacking = replace(lacking, dataset=lacking.dataset.replace(b"UI", b"UX"))
    with associated(door.port, [made]) as assoc:
        for dataset in (made.dataset[:-1], made.dataset[:100], b"noise" * 99, lacking.dataset):
            status, words = send(assoc, replace(made, dataset=dataset))
            assert status == Status.UNREADABLE
            assert "truncated" in words
        assert send(assoc, made)[0] == Status.SUCCESS
    assert len(door.rows(study)) == 1


def test_a_truncated_copy_does_not_harm_the_one_that_is_held(door: Door, study: str) -> None:
    """A failed re-send must never destroy what was acknowledged."""
    made = image(study)
    cut = replace(made, dataset=made.dataset[:-500])
    assert statuses(door.port, [made, cut]) == [Status.SUCCESS, Status.UNREADABLE]
    assert bytes_of(door, made.sop_uid) == made.dataset


def test_a_wrong_transfer_syntax_is_noticed(door: Door, study: str) -> None:
    """Bytes in explicit VR, sent as implicit VR."""
    made = replace(image(study), syntax=str(ImplicitVRLittleEndian))
    assert statuses(door.port, [made]) == [Status.UNREADABLE]


def test_an_object_without_room_is_refused_and_leaves_nothing(door: Door, study: str) -> None:
    """A700: sending again later helps, and does."""
    small, large = image(study), image(study, size=20 << 20)
    with door.disk_full_beyond(16 << 20), associated(door.port, [small]) as assoc:
        before = {*door.spooled()}
        status, words = send(assoc, large)
        assert status == Status.OUT_OF_RESOURCES
        assert "again later" in words
        assert {*door.spooled()} == before
        assert send(assoc, small)[0] == Status.SUCCESS
    assert statuses(door.port, [large]) == [Status.SUCCESS]
    assert bytes_of(door, large.sop_uid) == large.dataset


def test_a_locked_job_log_is_no_success(door: Door, study: str) -> None:
    """A700 after the limit; then the same object is taken, once."""
    made = image(study)
    lock = sqlite3.connect(door.data / "node.db", isolation_level=None)
    try:
        lock.execute("BEGIN IMMEDIATE")
        assert statuses(door.port, [made]) == [Status.OUT_OF_RESOURCES]
    finally:
        lock.close()
    assert statuses(door.port, [made]) == [Status.SUCCESS]
    assert len(door.rows(study)) == 1


# -- how associations end --------------------------------------------------------------------


def released(door: Door, study: str) -> bool:
    """Return whether the job log knows that the sender has gone."""
    return door.store.study(study).released_at is not None


def test_a_release_is_noted_for_the_studies_of_the_association(door: Door) -> None:
    """For each of them, and not before."""
    studies = [new_study() for _ in range(2)]
    objects = [image(study) for study in studies]
    with associated(door.port, objects) as assoc:
        assert [send(assoc, each)[0] for each in objects] == [0, 0]
        assert not any(released(door, study) for study in studies)
    wait_until(lambda: all(released(door, study) for study in studies))


def test_an_abort_keeps_what_was_acknowledged(door: Door, study: str) -> None:
    """The sender may go on in another association."""
    objects = images(study, 4)
    with associated(door.port, objects) as assoc:
        assert [send(assoc, each)[0] for each in objects[:2]] == [0, 0]
        assoc.abort()
    wait_until(lambda: released(door, study))
    assert {row.sop_uid for row in door.rows(study)} == {each.sop_uid for each in objects[:2]}
    assert statuses(door.port, objects[2:]) == [0, 0]
    assert len(door.rows(study)) == 4


def test_a_lost_connection_is_an_end_too(door: Door, study: str) -> None:
    """In the middle of an object: what came before is kept, nothing partial is left."""
    made = image(study)
    with associated(door.port, [made]) as assoc:
        assert send(assoc, made)[0] == 0
        assoc.dul.socket.socket.send(b"\x04\0\0\0\xff\xff" + b"\0" * 100)  # half a PDU
        assoc.dul.socket.socket.shutdown(socket.SHUT_RDWR)
        assoc.kill()
    wait_until(lambda: released(door, study))
    assert len(door.rows(study)) == 1
    assert not [path for path in door.spooled() if path.suffix == ".part"]


def test_parallel_associations_lose_and_double_nothing(door: Door) -> None:
    """Four senders bring the same objects at once, and each some of its own."""
    shared = images(new_study(), 5)
    own = [images(new_study(), 3) for _ in range(4)]
    before = {*door.spooled()}
    start = threading.Barrier(4)

    def sender(number: int) -> list[int]:
        with associated(door.port, shared) as assoc:
            start.wait(30)
            return [send(assoc, each)[0] for each in [*shared, *own[number]]]

    with ThreadPoolExecutor(4) as pool:
        answers = [*pool.map(sender, range(4))]
    assert answers == [[0] * 8] * 4
    assert len(door.rows(shared[0].study_uid)) == 5
    assert [len(door.rows(each[0].study_uid)) for each in own] == [3] * 4
    wait_until(lambda: len({*door.spooled()} - before) == 5 + 12)
    assert not door.quarantined() or all(path.suffix == ".dcm" for path in door.quarantined())


@pytest.mark.dcmtk
def test_a_peer_cannot_forge_a_line_of_the_log(door: Door) -> None:
    """An AE title with what a terminal or a log reader would obey gets nowhere, and no line."""
    require("echoscu")
    assert echoscu(door.port, calling='A\n{"level"\x1b[31m').returncode != 0
    assert echoscu(door.port, calling="AFTERWARDS").returncode == 0
    door.said("AFTERWARDS@127.0.0.1")
    assert "\x1b" not in door.output()
    assert all(line.startswith('{"at": "2') for line in door.output().splitlines())
    assert printable('A\n{"level"\x1b[31m') == 'A?{"level"?[31m'


def test_no_patient_is_named_in_the_output(door: Door, study: str) -> None:
    """Whatever is sent, good or bad; every object of this file has the canary's name."""
    made = image(study)
    bad = replace(made, dataset=made.dataset[:-3])
    other = replace(made, dataset=made.dataset[:-1] + b"?")
    assert statuses(door.port, [made, bad, other]) == [
        Status.SUCCESS,
        Status.UNREADABLE,
        Status.OTHER_CONTENT,
    ]
    door.said("1 kept, 1 refused with C000, 1 refused with C0DF")
    assert b"ZZPHI" in made.dataset
    assert "ZZPHI" not in door.output()
