"""Why routes take a study or not: of files, of a received study, by the rules then and now."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from app.config_routes import Route
from app.dicom.headers import read_series
from app.dicom.series import Series, read_header
from app.errors import StudyError, UnreadableDicom
from app.pipeline.rehearse import judged, labels
from app.store.store import Store

_NAMED = 3
"""How many files that were left out are named."""


def of_files(path: Path, routes: Sequence[Route]) -> list[dict[str, Any]]:
    """Return the trace of each study of which there are files at the path."""
    files = [path] if path.is_file() else sorted(each for each in path.rglob("*") if each.is_file())
    series, note = _read(files)
    if not series:
        raise StudyError(f"{path}: holds no DICOM object that can be read ({len(files)} files)")
    return [
        {"study": uid, "note": note}
        | judged([each for each in series if each.study_uid == uid], routes)
        for uid in sorted({each.study_uid for each in series})
    ]


def of_study(store: Store, study_uid: str) -> dict[str, Any]:
    """Return the trace that was kept when the study was routed, here or in an archive's list."""
    trace = store.trace(study_uid)
    if trace is None:
        return _not_routed(store, study_uid)
    series = [Series.from_json(row.summary) for row in store.series_rows(study_uid)]
    return {"study": study_uid, "series": labels(series), **trace}


def of_study_now(store: Store, study_uid: str, routes: Sequence[Route]) -> dict[str, Any]:
    """Return the trace by these routes, from what the log keeps of the study's headers."""
    store.study(study_uid)  # or its error
    rows = store.series_rows(study_uid)
    if not rows:
        raise StudyError(
            f"study {study_uid}: the log keeps no headers of it, it was not routed yet or by an"
            " older version; give the folder of its files instead"
        )
    read = sum(row.instances for row in rows)
    there = sum(store.series_counts(study_uid).values())
    note = "by the rules as they are now"
    if read < there:
        note += f"; {there - read} of its {there} objects came later and are not in it"
    series = [Series.from_json(row.summary) for row in rows]
    return {"study": study_uid, "note": note} | judged(series, routes)


def _not_routed(store: Store, study_uid: str) -> dict[str, Any]:
    """Return what an archive's list said of it, or else what became of it here."""
    remotes = store.remotes(study_uid)
    for remote in remotes:
        if trace := store.remote_trace(remote.source, study_uid):
            note = f"nothing of it is here; it is {remote.state} in archive {remote.source}"
            return {"study": study_uid, "note": note, **trace}
    if remotes:
        first = remotes[0]
        told = f"is {first.state} in archive {first.source} and was not looked at yet"
        raise StudyError(f"study {study_uid}: {told}" + (first.reason and f": {first.reason}"))
    events = store.study_events(study_uid)
    if not events:
        raise StudyError(f"{study_uid}: neither a file, nor a folder, nor a study of the job log")
    last = events[-1]
    raise StudyError(
        f"study {study_uid}: was not routed; the last that happened to it is {last.event}:"
        f" {last.detail}"
    )


def _read(files: Sequence[Path]) -> tuple[list[Series], str]:
    """Read the headers; what is no DICOM is left out and told of."""
    try:
        return read_series(files), ""
    except UnreadableDicom:
        good = [path for path in files if _can_be_read(path)]
        bad = sorted({*files} - {*good})
        if not bad:
            raise
        named = ", ".join(each.name for each in bad[:_NAMED]) + (", …" if bad[_NAMED:] else "")
        return read_series(good), f"{len(bad)} files are no DICOM objects: {named}"


def _can_be_read(path: Path) -> bool:
    try:
        ds = read_header(path)
    except UnreadableDicom:
        return False
    uids = ("SOPInstanceUID", "SOPClassUID", "StudyInstanceUID", "SeriesInstanceUID")
    return all(ds.get(uid) for uid in uids)
