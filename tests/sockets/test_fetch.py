"""A real fetcher asks a real server: what is fetched, what is left, and what becomes of faults.

Covered: route before fetch by the server's own list of requests; faults of each kind of answer,
after which nothing is lost or fetched twice; refusals; what grows; what comes on two ways; bounded
memory. Not covered: thousands of studies and kills (test_fetch_many), a real Orthanc with jobs
(tests/acceptance), DIMSE archives.
"""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from app.store.jobs import RemoteState
from tests import asked_archive
from tests.asked_archive import (
    AskedArchive,
    Fault,
    claims,
    ct_series,
    cut,
    cut_after,
    new_uid,
    other_study,
    running_asked_archive,
    short,
    status,
    without_end,
    xml,
)
from tests.sockets.fetchers import ROUTE, Fetcher
from tests.waiting import wait_until


@pytest.fixture
def archive() -> Iterator[AskedArchive]:
    """Give an archive that is honest until it is told otherwise."""
    with running_asked_archive() as archive:
        yield archive


def ct_study(archive: AskedArchive, number: int = 5) -> str:
    """Put a study of one series there."""
    uid = new_uid()
    return archive.add(ct_series(uid, number), study_uid=uid)


def sop_uids(archive: AskedArchive, study_uid: str) -> set[str]:
    """Return the objects of a study in the archive."""
    return {uid for series in archive.studies[study_uid] for uid in series.objects}


def test_only_the_series_that_a_route_needs_is_fetched(
    tmp_path: Path, archive: AskedArchive
) -> None:
    """A report is left by its modality, a short and a smaller series by their headers."""
    uid = new_uid()
    report = ct_series(uid, 1, Modality="SR", SeriesDescription="dose report")
    scout, thick, thin = ct_series(uid, 2), ct_series(uid, 4), ct_series(uid, 9)
    archive.add(report, scout, thick, thin, study_uid=uid)
    with Fetcher(tmp_path, archive) as fetcher:
        fetcher.start()
        fetcher.reaches(uid, RemoteState.FETCHED)
        assert fetcher.sop_uids(uid) == set(thin.objects)
        assert archive.of("retrieve") == [thin.series_uid]
        assert set(archive.of("metadata")) == {s.series_uid for s in (scout, thick, thin)}
        assert fetcher.store.study(uid).complete_signal == (
            "fetched from pacs: 1 of 4 series are needed, 9 objects came"
        )
        assert "never an input" in fetcher.trace(uid) or "no images" in fetcher.trace(uid)
    assert "ZZPHI" not in fetcher.output()
    assert "ZZID" not in fetcher.output()


def test_a_study_that_no_route_takes_is_not_fetched(tmp_path: Path, archive: AskedArchive) -> None:
    """Not even its metadata, when the list of series says enough; the reason is kept."""
    uid = new_uid()
    archive.add(ct_series(uid, 5, Modality="MR"), study_uid=uid)
    with Fetcher(tmp_path, archive) as fetcher:
        fetcher.start()
        fetcher.reaches(uid, RemoteState.UNWANTED)
        assert "Modality equals CT" in fetcher.trace(uid)
        assert "found MR" in fetcher.trace(uid)
        assert (archive.number("metadata"), archive.number("retrieve")) == (0, 0)
        assert fetcher.store.studies() == []


def test_a_route_that_asks_of_the_whole_study_gets_the_whole_study(
    tmp_path: Path, archive: AskedArchive
) -> None:
    """Else the node would decide otherwise about the part than was decided about the whole."""
    uid = new_uid()
    archive.add(ct_series(uid, 5), ct_series(uid, 3, Modality="MR"), study_uid=uid)
    study = {"study": [{"op": "contains_all", "tag": "Modality", "values": ["CT", "MR"]}]}
    with Fetcher(tmp_path, archive, routes=[ROUTE | study]) as fetcher:
        fetcher.start()
        fetcher.reaches(uid, RemoteState.FETCHED)
        assert fetcher.sop_uids(uid) == sop_uids(archive, uid)


@pytest.mark.parametrize(
    ("kind", "fault", "words"),
    [
        ("count", status(503), "HTTP 503"),
        ("count", xml, "application/dicom+xml"),
        ("series", cut, "connection failed"),
        ("series", status(500), "HTTP 500"),
        ("series", xml, "application/dicom+xml instead of JSON"),
        ("metadata", status(503, Retry_After="1"), "it asks to wait 1 s"),
        ("metadata", xml, "another kind of content"),
        ("metadata", cut, "connection failed"),
        ("metadata", asked_archive.drip, "no answer within"),
        ("metadata", asked_archive.bomb, "packed"),
        ("retrieve", status(307, Location="http://127.0.0.1:1/"), "redirections are not followed"),
        ("retrieve", status(404), "does not have"),
        ("retrieve", status(401), "check its credentials"),
        ("retrieve", xml, "another kind of content"),
        ("retrieve", cut_after(0), "connection failed"),
        ("retrieve", without_end, "cut short"),
        ("retrieve", short, "1 of them did not come"),
        ("retrieve", other_study, "it is of another study"),
        ("retrieve", claims, "UIDs of command and data set differ"),
    ],
)
def test_after_a_fault_the_study_is_fetched_whole(
    tmp_path: Path, archive: AskedArchive, kind: str, fault: Fault, words: str
) -> None:
    """The first try fails with its reason, the next one brings what is missing, once."""
    uid = ct_study(archive)
    archive.faults[kind].append(fault)
    with Fetcher(tmp_path, archive, timeout_s=1) as fetcher:
        fetcher.start()
        fetcher.reaches(uid, RemoteState.FETCHED)
        assert words in fetcher.output()
        assert fetcher.sop_uids(uid) == sop_uids(archive, uid)
        assert len(fetcher.spooled()) == 5
        assert fetcher.peak_mb() < 300
        assert fetcher.quarantined() == []
    assert "Traceback" not in fetcher.output()


def test_nothing_outside_the_archive_is_asked(tmp_path: Path, archive: AskedArchive) -> None:
    """Neither where it redirects nor what its metadata name; the credentials stay with it."""
    uid = ct_study(archive)
    with running_asked_archive() as elsewhere:
        archive.faults["retrieve"].append(status(302, Location=f"{elsewhere.url}/studies"))
        with Fetcher(tmp_path, archive) as fetcher:
            fetcher.start(http_proxy=elsewhere.url)
            fetcher.reaches(uid, RemoteState.FETCHED)
        assert elsewhere.asked == []
    assert archive.number("other") == 0


def test_what_came_before_a_break_is_not_asked_for_again(
    tmp_path: Path, archive: AskedArchive
) -> None:
    """Seven of ten are here: three are asked for one by one. Two of ten: the series again."""
    many, few = ct_study(archive, 10), ct_study(archive, 10)
    archive.faults["retrieve"] += [cut_after(7), cut_after(2)]
    with Fetcher(tmp_path, archive) as fetcher:
        fetcher.start()
        for uid in (many, few):
            fetcher.reaches(uid, RemoteState.FETCHED)
            assert fetcher.sop_uids(uid) == sop_uids(archive, uid)
    assert archive.number("instance") == 3
    assert archive.number("retrieve") == 3


def test_a_refused_study_fails_with_the_reason_and_can_be_asked_for_again(
    tmp_path: Path, archive: AskedArchive
) -> None:
    """Five tries; then nobody asks until a person does."""
    uid = ct_study(archive)
    archive.faults["metadata"] += [status(403)] * 5
    with Fetcher(tmp_path, archive) as fetcher:
        fetcher.start()
        failed = fetcher.reaches(uid, RemoteState.FAILED)
        assert failed.attempts == 5
        assert "check its credentials and rights (tried 5 times)" in failed.reason
        fetcher.polls(2)
        assert archive.number("metadata") == 5
        fetcher.store.ask_for("pacs", uid, "somebody asked", datetime.now(UTC))
        fetcher.reaches(uid, RemoteState.FETCHED)


def test_a_list_that_cannot_be_had_is_told_and_tried_again(
    tmp_path: Path, archive: AskedArchive
) -> None:
    """The source shows the last error until it is well again."""
    uid = ct_study(archive)
    archive.faults["studies"] += [status(401)] * 3
    with Fetcher(tmp_path, archive) as fetcher:
        fetcher.start()
        wait_until(lambda: "check its credentials" in fetcher.status().error, 20, "the error")
        fetcher.reaches(uid, RemoteState.FETCHED)
        assert fetcher.status().error == ""


def test_a_study_that_still_grows_is_not_fetched(tmp_path: Path, archive: AskedArchive) -> None:
    """The count is looked at once more before anything is fetched."""
    uid = ct_study(archive, 4)
    more = ct_series(uid, 6)

    def grow(handler: "asked_archive._Handler") -> None:
        archive.add(more, study_uid=uid)
        handler._count()

    archive.faults["count"].append(grow)
    with Fetcher(tmp_path, archive, source={"quiet_s": 0.5}) as fetcher:
        fetcher.start()
        fetcher.reaches(uid, RemoteState.FETCHED)
        assert fetcher.sop_uids(uid) == set(more.objects)
    assert "it still grows" in fetcher.output()
    assert archive.of("retrieve") == [more.series_uid]


def test_a_study_that_grew_is_completed_with_the_missing_objects_alone(
    tmp_path: Path, archive: AskedArchive
) -> None:
    """Two slices came late: two requests for two objects."""
    uid = ct_study(archive, 8)
    (series,) = archive.studies[uid]
    late = dict([series.objects.popitem(), series.objects.popitem()])
    with Fetcher(tmp_path, archive) as fetcher:
        fetcher.start()
        fetcher.reaches(uid, RemoteState.FETCHED)
        series.objects |= late
        wait_until(lambda: fetcher.sop_uids(uid) == set(series.objects), 20, "the late slices")
        fetcher.reaches(uid, RemoteState.FETCHED)
        assert set(archive.of("instance")) == set(late)
        asked = len(archive.asked)
        polled = archive.number("studies")
        fetcher.polls(2)
        assert len(archive.asked) - asked == archive.number("studies") - polled  # lists, no more


def test_an_archive_that_does_not_count_is_counted(tmp_path: Path, archive: AskedArchive) -> None:
    """Series by series, object by object; a sweep finds what grew."""
    archive.counts = False
    uid = ct_study(archive, 4)
    with Fetcher(tmp_path, archive, source={"sweep_s": 1}) as fetcher:
        fetcher.start()
        assert fetcher.reaches(uid, RemoteState.FETCHED).instances == 4
        archive.add(more := ct_series(uid, 6), study_uid=uid)
        wait_until(lambda: fetcher.sop_uids(uid) >= set(more.objects), 20, "the new series")
        assert fetcher.reaches(uid, RemoteState.FETCHED).instances == 10


def test_metadata_without_end_cost_neither_memory_nor_the_study(
    tmp_path: Path, archive: AskedArchive
) -> None:
    """The series is fetched as one that may be needed; the node looks at it itself."""
    uid = ct_study(archive)
    archive.faults["metadata"].append(asked_archive.endless)
    with Fetcher(tmp_path, archive) as fetcher:
        fetcher.start()
        fetcher.reaches(uid, RemoteState.FETCHED)
        assert fetcher.sop_uids(uid) == sop_uids(archive, uid)
        assert fetcher.peak_mb() < 600
        assert "tells no headers" in fetcher.trace(uid)


def test_two_patients_in_one_study_are_not_fetched(tmp_path: Path, archive: AskedArchive) -> None:
    """An alarm, at once and without another try."""
    uid = new_uid()
    other = ct_series(uid, 4, PatientID="ZZID-4712")
    archive.add(ct_series(uid, 4), other, study_uid=uid)
    with Fetcher(tmp_path, archive) as fetcher:
        fetcher.start()
        failed = fetcher.reaches(uid, RemoteState.FAILED)
        assert "2 different patients" in failed.reason
        assert "ZZID" not in failed.reason
        assert archive.number("retrieve") == 0


def test_a_window_is_asked_for_and_left_out_by_a_sweep(
    tmp_path: Path, archive: AskedArchive
) -> None:
    """The first list has no window; the next ones have until the sweep is due again."""
    source = {"window_days": 2, "sweep_s": 3600, "query": {"ModalitiesInStudy": "CT"}}
    with Fetcher(tmp_path, archive, source=source) as fetcher:
        fetcher.start()
        fetcher.polls(3)
    queries = [each for each in archive.queries if "limit" in each]
    assert {each["ModalitiesInStudy"] for each in queries} == {"CT"}
    assert "StudyDate" not in queries[0]
    assert all(each["StudyDate"].endswith("-") for each in queries[1:])
    assert len(queries) > 2


def test_the_archive_says_how_large_an_arriving_study_is(
    tmp_path: Path, archive: AskedArchive
) -> None:
    """Asked by the fetcher, since it knows how; the node only reads the number."""
    uid = ct_study(archive, 6)
    settings = {"assemble": {"count_from": "pacs"}}
    with Fetcher(tmp_path, archive, source={"poll_s": None}, **settings) as fetcher:
        fetcher.store.ask_for("pacs", uid, "to have it here", datetime.now(UTC))
        fetcher.start()
        fetcher.reaches(uid, RemoteState.FETCHED)
        wait_until(lambda: fetcher.store.study(uid).expected == 6, 20, "the number")
        assert archive.number("studies") == 0
