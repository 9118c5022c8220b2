"""STOW-RS as its senders see it: a real door, real HTTP, what is on disk and in the log afterwards.

Covered: every answer to a well-meant request, by requests, dicomweb-client and curl; the lists of
mixed requests; the statuses of C-STORE, from both doors at once; what a restart finds after
kill -9; how it starts and stops. Who is let in stands in test_stow_access, what a hostile sender
may do in test_stow_limits and test_stow_floods.
Not covered: retrieval and queries, which this door does not offer.
"""

import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import pydicom
import pytest
import requests
from dicomweb_client.api import DICOMwebClient
from dicomweb_client.session_utils import create_session
from pydicom.uid import JPEGLSLossless, MRImageStorage

from app.dicom.dimse import Status
from app.dicom.part10 import read_part10
from tests.peers import require
from tests.sockets.scu import image, images, new_study, statuses
from tests.sockets.stows import (
    BEARER,
    RELATED,
    SECRETS,
    TOKEN,
    Answer,
    StowDoor,
    part10,
    related,
)


@pytest.fixture(scope="module")
def door(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StowDoor]:
    """One door for most tests; each uses a study of its own."""
    with StowDoor(tmp_path_factory.mktemp("door")) as one:
        yield one.start()


@pytest.fixture
def study() -> str:
    """A fresh Study Instance UID."""
    return new_study()


def dataset_of(door: StowDoor, sop_uid: str) -> bytes:
    """Return the data set of a kept object."""
    row = door.store.find_instance(sop_uid)
    assert row is not None
    path = door.data / row.file
    return path.read_bytes()[read_part10(path).dataset_at :]


# -- all is well ---------------------------------------------------------------------------------


def test_objects_are_kept_as_they_were_sent(door: StowDoor, study: str) -> None:
    """200 lists each of them; every byte of every data set is on the disk, in any syntax."""
    objects = [*images(study, 3), image(study, JPEGLSLossless)]
    answer = door.store_objects(objects)
    assert answer == Answer(status=200, stored=[each.sop_uid for each in objects])
    assert {row.sop_uid for row in door.rows(study)} == {each.sop_uid for each in objects}
    assert {row.source for row in door.rows(study)} == {"token@127.0.0.1"}
    for each in objects:
        assert dataset_of(door, each.sop_uid) == each.dataset


def test_the_study_may_be_named_in_the_address(door: StowDoor, study: str) -> None:
    """Then only its objects are kept; of another's nothing remains."""
    good, other = image(study), image(new_study())
    answer = door.store_objects([good, other], study=study)
    assert answer == Answer(
        status=202, stored=[good.sop_uid], failed={other.sop_uid: Status.UIDS_DIFFER}
    )
    assert door.gone(other.study_uid)


def test_an_identical_copy_is_a_success_and_no_second_object(door: StowDoor, study: str) -> None:
    """A sender that lost our answer may ask again."""
    objects = images(study, 2)
    first, files = door.store_objects(objects), len(door.spooled())
    assert door.store_objects(objects) == first
    assert (len(door.rows(study)), len(door.spooled())) == (2, files)


def test_other_content_under_a_known_uid_is_refused_and_put_aside(
    door: StowDoor, study: str
) -> None:
    """The held copy is not touched; both are there for a person to look at."""
    made = image(study)
    changed = replace(made, dataset=made.dataset[:-2] + b"\xff\xff")
    assert door.store_objects([made]).status == 200
    put_aside = len(door.quarantined())
    assert door.store_objects([changed]) == Answer(
        status=409, failed={made.sop_uid: Status.OTHER_CONTENT}
    )
    assert dataset_of(door, made.sop_uid) == made.dataset
    assert len(door.quarantined()) == put_aside + 1


def test_a_finished_request_lets_the_study_settle(door: StowDoor, study: str) -> None:
    """It counts like the end of an association."""
    door.store_objects(images(study, 2))
    [row] = [row for row in door.store.open_studies() if row.study_uid == study]
    assert row.released_at is not None


# -- not all is well -----------------------------------------------------------------------------


def test_each_object_of_a_mixed_request_gets_its_own_verdict(door: StowDoor, study: str) -> None:
    """202: the lists say which are kept and why the others are not."""
    good, lying, cut = images(study, 3)
    mri, foreign = replace(image(study), sop_class=MRImageStorage), image(study)
    contents = [
        part10(good),
        part10(lying, sop_uid="1.2.3"),
        part10(cut)[:-100],
        part10(mri),
        part10(foreign, sop_class="1.2.840.10008.1.3.10"),
        part10(foreign, syntax="1.2.3.4.5"),
        b"not DICOM at all, but long enough to have a header" * 20,
        b"short",
        b"",
    ]
    assert Answer.of(door.post(related(contents))) == Answer(
        status=202,
        stored=[good.sop_uid],
        failed={
            "1.2.3": Status.UIDS_DIFFER,
            cut.sop_uid: Status.UNREADABLE,
            mri.sop_uid: Status.UIDS_DIFFER,
            foreign.sop_uid: 0xC122,
        },
        others=[Status.UNREADABLE] * 3,
    )
    assert [row.sop_uid for row in door.rows(study)] == [good.sop_uid]


def test_a_request_of_which_nothing_is_kept_is_a_conflict(door: StowDoor, study: str) -> None:
    """409 with the reasons; an SOP class that is not for storage is one."""
    made = image(study)
    answer = Answer.of(door.post(related([part10(made, sop_class="1.2.840.10008.1.3.10")])))
    assert answer == Answer(status=409, failed={made.sop_uid: 0x0122})


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        (b"", "closing boundary"),
        (related([]), "no parts"),
        (b"garbage without any boundary", "closing boundary"),
        (b"--a-boundary-of-a-test\r\nno header at all\r\n\r\n", "well-formed"),
        (b"--a-boundary-of-a-test\nContent-Type: application/dicom\n\n", "well-formed"),
    ],
    ids=["empty", "no parts", "no boundary", "broken header", "bare line feeds"],
)
def test_bad_syntax_is_named(door: StowDoor, body: bytes, sentence: str) -> None:
    """400 with a sentence, never 200 with nothing behind it."""
    response = door.post(body)
    assert response.status_code == 400
    assert sentence in response.text


def test_a_body_without_its_end_reports_what_is_kept(door: StowDoor, study: str) -> None:
    """The last object could be cut, so it is not kept; those before it are, and are listed."""
    first, last = images(study, 2)
    response = door.post(related([part10(first), part10(last)], end=False))
    assert Answer.of(response) == Answer(status=400, stored=[first.sop_uid])
    assert "closing boundary" in response.headers["Warning"]
    assert [row.sop_uid for row in door.rows(study)] == [first.sop_uid]


def test_a_body_that_is_broken_in_the_middle_reports_what_is_kept(
    door: StowDoor, study: str
) -> None:
    """What came before is kept, and what comes after the fault is not looked at."""
    first, last = images(study, 2)
    body = related([part10(first)], end=False) + b"--a-boundary-of-a-test\r\n\0\r\n\r\n"
    response = door.post(body + related([part10(last)]))
    assert Answer.of(response) == Answer(status=400, stored=[first.sop_uid])
    assert [row.sop_uid for row in door.rows(study)] == [first.sop_uid]


@pytest.mark.parametrize(
    "content_type",
    [
        None,
        "application/dicom",
        "application/dicom+json",
        "multipart/form-data; boundary=b",
        "multipart/related; boundary=b",
        'multipart/related; type="application/dicom+json"; boundary=b',
        'multipart/related; type="application/dicom+xml"; boundary=b',
    ],
)
def test_other_media_types_are_refused(door: StowDoor, content_type: str | None) -> None:
    """415; XML above all is never parsed (S32)."""
    response = door.post(b"<!DOCTYPE x>", content_type=content_type)
    assert response.status_code == 415
    assert "multipart/related" in response.text


@pytest.mark.parametrize(
    "content_type",
    [
        RELATED.replace('"application/dicom"', "application/dicom"),
        RELATED.replace("multipart/related", "Multipart/Related").replace("; ", ";"),
        f'multipart/related; boundary="{RELATED.split("boundary=")[1]}"; type=application/DICOM',
    ],
)
def test_the_media_type_may_be_written_in_any_allowed_way(
    door: StowDoor, study: str, content_type: str
) -> None:
    """Quoted or not, in any order and case."""
    body = related([part10(image(study))])
    assert door.post(body, content_type=content_type).status_code == 200


def test_a_part_of_another_media_type_fails_alone(door: StowDoor, study: str) -> None:
    """The object beside it is kept; encoded parts are not decoded."""
    made = image(study)
    parts = [
        related([b"{}"], headers="Content-Type: application/dicom+json\r\n", end=False),
        related([part10(made)], headers="Content-Transfer-Encoding: base64\r\n", end=False),
        related([part10(made)], headers="Content-Encoding: gzip\r\n", end=False),
        related([part10(made)], headers="content-type: application/dicom; a=b\r\nX: y\r\n"),
    ]
    answer = Answer.of(door.post(b"".join(parts)))
    assert answer == Answer(status=202, stored=[made.sop_uid], others=[Status.UNREADABLE] * 3)


def test_a_full_disk_asks_for_another_try(tmp_path: Path, study: str) -> None:
    """503 with Retry-After, before the body is read; nothing remains."""
    with StowDoor(tmp_path, limits={"free_gb": 1e6}) as full:
        full.start()
        response = full.post(related([part10(image(study))]))
        assert (response.status_code, "Retry-After" in response.headers) == (503, True)
        assert full.spooled() == []


def test_a_disk_that_is_full_at_once_asks_for_another_try(tmp_path: Path, study: str) -> None:
    """503 with the reason for each object; what was kept before stays."""
    with StowDoor(tmp_path) as full:
        full.start()
        first, second = image(study), image(study, size=1 << 20)
        assert full.store_objects([first]).status == 200
        with full.disk_full_beyond(64 * 1024):
            response = full.post(related([part10(second)]))
        assert "Retry-After" in response.headers
        assert Answer.of(response) == Answer(
            status=503, failed={second.sop_uid: Status.OUT_OF_RESOURCES}
        )
        assert full.store_objects([second]).status == 200


# -- other senders -------------------------------------------------------------------------------


def test_dicomweb_client_stores_objects(door: StowDoor, study: str) -> None:
    """A large request makes it send a chunked body."""
    objects = [image(study, size=1 << 20) for _ in range(3)]
    session = create_session()
    session.headers.update(BEARER)
    client = DICOMwebClient(door.url.removesuffix("/studies"), session=session)
    datasets = [pydicom.dcmread(BytesIO(part10(each))) for each in objects]
    listed = client.store_instances(datasets, study_instance_uid=study)
    stored = [item.ReferencedSOPInstanceUID for item in listed.ReferencedSOPSequence]
    assert stored == [each.sop_uid for each in objects]
    assert len(door.rows(study)) == 3


def test_curl_stores_an_object(door: StowDoor, study: str, tmp_path: Path) -> None:
    """It asks before it sends a large body (Expect: 100-continue)."""
    require("curl")
    made = image(study, size=3 << 20)
    body = tmp_path / "body"
    body.write_bytes(related([part10(made)]))
    call = ["curl", "-sS", "-o", "-", "-w", "%{http_code}", "--data-binary", f"@{body}"]
    headers = [
        *("-H", f"Content-Type: {RELATED}"),
        *("-H", f"Authorization: Bearer {TOKEN}"),
        *("-H", "Expect: 100-continue"),
    ]
    done = subprocess.run(
        [*call, *headers, door.url], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stdout.endswith("200"), done.stderr
    assert [row.sop_uid for row in door.rows(study)] == [made.sop_uid]


def test_both_doors_keep_what_comes_at_once(door: StowDoor, study: str) -> None:
    """The same slices by four requests and two associations: each is kept once."""
    objects = images(study, 20)
    with ThreadPoolExecutor(6) as pool:
        requests_ = [pool.submit(door.store_objects, objects[::-1]) for _ in range(4)]
        associations = [pool.submit(statuses, door.port, objects) for _ in range(2)]
        assert {each.result().status for each in requests_} == {200}
        assert {status for each in associations for status in each.result()} == {0}
    assert sorted(row.sop_uid for row in door.rows(study)) == sorted(o.sop_uid for o in objects)


# -- how it begins and ends ----------------------------------------------------------------------


def test_what_was_answered_is_there_after_kill_9(tmp_path: Path, study: str) -> None:
    """The process is killed as soon as the answer is read, several times over."""
    kept: list[str] = []
    with StowDoor(tmp_path) as door:
        for _ in range(3):
            door.start()
            kept += door.store_objects(images(study, 5)).stored
            door.kill()
        assert len(kept) == 15
        rows = {row.sop_uid: row.file for row in door.rows(study)}
        assert sorted(rows) == sorted(kept)
        for uid in kept:
            assert read_part10(door.data / rows[uid]).identifiers.sop_uid == uid


def test_an_object_killed_between_file_and_row_is_sent_again(tmp_path: Path, study: str) -> None:
    """The sender got no answer; its second try is answered like a first one."""
    objects = images(study, 3)
    marker = tmp_path / "marker"
    marker.touch()
    with StowDoor(tmp_path) as door:
        door.start(MARGINALIA_CRASH_AT=f"receive.kept:{marker}")
        with pytest.raises(requests.ConnectionError):
            door.store_objects(objects)
        door.wait()
        door.start()
        assert door.store_objects(objects).status == 200
        assert len(door.rows(study)) == 3


def test_stopping_ends_a_request_with_what_is_kept(tmp_path: Path, study: str) -> None:
    """The object on its way is forgotten; the sender is told to come again."""
    first, second = images(study, 2)
    with StowDoor(tmp_path) as door, door.start().raw() as sender:
        sender.head(Content_Length="1000000")
        sender.send(related([part10(first), part10(second)], end=False)[:-500])
        door.said_row(study)
        door.stop()
        assert sender.status() == 503
        assert door.wait() == 0, door.output()
        assert [row.sop_uid for row in door.rows(study)] == [first.sop_uid]
        assert len(door.spooled()) == 1


def test_a_port_in_use_is_named(tmp_path: Path, door: StowDoor) -> None:
    """The door does not open, and says which key of its configuration to change."""
    with StowDoor(tmp_path, port=door.http_port) as second:
        second.launch(**SECRETS)
        assert second.wait() == 2
        assert f"door.http.port: cannot listen on 127.0.0.1:{door.http_port}" in second.output()


def test_the_log_has_one_line_for_a_request_and_no_patient(door: StowDoor, study: str) -> None:
    """Who, how many, how long; the patient's name is in every object of this file."""
    good, bad = image(study), image(study)
    door.post(related([part10(good), part10(bad)[:-100], part10(bad, sop_uid="1.2")]))
    door.said("request from token@127.0.0.1 answered 202")
    door.said("1 kept, 1 refused with A900, 1 refused with C000")
    assert "ZZPHI" not in door.output()
