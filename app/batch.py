"""The batch composition, as a MAP is called: a folder in, a folder out, an exit status.

It runs the same stages over a job log of its own in a scratch folder, so its results are the same
DICOM objects, by their UIDs, as the resident node makes.
"""

import logging
import os
import tempfile
import threading
from collections import Counter
from contextlib import ExitStack
from pathlib import Path

from app.config import Assemble, Config, Jobs
from app.config_archives import Deliver, FilesArchive
from app.config_routes import Destination
from app.dicom.series import read_header
from app.errors import DONE, INPUT_WRONG, NODE_WRONG, ConfigError, StudyError, UnreadableDicom
from app.files import make_writable
from app.installed import install, start_crew
from app.node import Node
from app.results.forms import Form
from app.runner import now
from app.signals import on_stop
from app.store.jobs import InstanceRow, Job, State
from app.store.store import Store

log = logging.getLogger(__name__)

OUTPUT = "output"
UNSETTLED = State.QUEUED, State.RUNNING, State.WAITING, State.DELIVERING


def run_batch(
    config: Config, source: Path, output: Path, models: Path | None, forms: tuple[Form, ...]
) -> int:
    """Read every study under `source`, write results to `output`; return the exit status."""
    if not source.is_dir():
        raise ConfigError(f"{source}: is not a folder; give the input folder with -i")
    make_writable(output)
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(_scratch()))
        config = _for_batch(config, scratch, output, forms)
        installed = install(config, models)
        store = Store.open(scratch / "node.db")
        stack.callback(store.close)
        unreadable = _import(source, store)
        studies = {study.study_uid for study in store.open_studies()}
        if not studies:
            log.error("%s: holds no DICOM object that can be read (%d files)", source, unreadable)
            return INPUT_WRONG
        crew = start_crew(config)
        stack.callback(crew.stop)
        node = Node(config, store, models=installed, crew=crew)
        stopped = threading.Event()

        def stop() -> None:
            log.warning("stopped before the end; what is not in %s was not made", output)
            stopped.set()
            node.stop()

        on_stop(stop)
        node.run(done=lambda: not store.open_studies() and not _unsettled(store))
        return NODE_WRONG if stopped.is_set() else _verdict(store, studies, unreadable)


def _scratch() -> "tempfile.TemporaryDirectory[str]":
    try:
        return tempfile.TemporaryDirectory(prefix="marginalia-")
    except OSError as error:
        raise ConfigError(
            f"no folder for temporary files ({error.strerror}); mount one or set TMPDIR"
        ) from error


def _for_batch(config: Config, scratch: Path, output: Path, forms: tuple[Form, ...]) -> Config:
    results = FilesArchive(kind="files", path=output.resolve(), accepts=forms)
    only = {"deliver_to": (Destination(archive=OUTPUT),)}
    routes = [route.model_copy(update=only) for route in config.routes]
    return config.model_copy(
        update={
            "data": scratch,
            "assemble": Assemble(settle_s=0),
            "jobs": Jobs(attempts=1),
            "deliver": Deliver(give_up_h=0),
            "archives": {OUTPUT: results},
            "routes": tuple(routes),
        }
    )


def _import(source: Path, store: Store) -> int:
    """Note every readable object under `source`, where it lies; return how many were not."""
    unreadable = 0
    for path in _files(source):
        try:
            header = read_header(path)
            row = InstanceRow(
                sop_uid=str(header.SOPInstanceUID),
                sop_class_uid=str(header.SOPClassUID),
                study_uid=str(header.StudyInstanceUID),
                series_uid=str(header.SeriesInstanceUID),
                transfer_syntax=str(header.file_meta.TransferSyntaxUID),
                sha256="",
                size=path.stat().st_size,
                file=str(path.resolve()),
                source="batch",
                received_at=now(),
            )
        except (UnreadableDicom, AttributeError) as error:
            log.warning("%s: left out, it is not a DICOM object (%s)", path.name, error)
            unreadable += 1
            continue
        if not store.add_instance(row, now()):
            log.warning("%s: left out, its SOP Instance UID came before", path.name)
    store.release({study.study_uid for study in store.open_studies()}, now())
    return unreadable


def _files(source: Path) -> list[Path]:
    """Return every file under `source`; a folder that we may not look into is no empty folder."""

    def refuse(error: OSError) -> None:
        raise ConfigError(
            f"{error.filename}: user {os.getuid()} cannot read it ({error.strerror});"
            " let it read the whole input"
        ) from error

    walk = os.walk(source, onerror=refuse)
    return sorted(
        path for top, _, names in walk for name in names if (path := Path(top, name)).is_file()
    )


def _unsettled(store: Store) -> bool:
    counts = store.counts()
    return any(counts.get(state) for state in UNSETTLED)


def _verdict(store: Store, studies: set[str], unreadable: int) -> int:
    jobs = []
    for study_uid in sorted(studies):
        made = store.jobs(study_uid=study_uid)
        jobs += made
        if not made:
            log.warning("study %s gave no job: %s", study_uid, _why_no_job(store, study_uid))
    counts = Counter(job.state for job in jobs)
    failed = [job for job in jobs if job.state is not State.DONE]
    for job in failed:
        log.error("job %s failed: %s", job.id, job.reason)
    log.info(
        "%d studies, %d files left out, jobs: %s",
        len(studies),
        unreadable,
        ", ".join(f"{number} {state}" for state, number in counts.items()) or "none",
    )
    if jobs and not failed:
        return DONE
    return INPUT_WRONG if all(_input_is_wrong(job) for job in failed) else NODE_WRONG


def _why_no_job(store: Store, study_uid: str) -> str:
    trace = store.trace(study_uid)
    if trace is None:
        return store.study_events(study_uid)[-1].detail
    return "; ".join(f"{each['route']}: {each['reason']}" for each in trace["routes"])


def _input_is_wrong(job: Job) -> bool:
    names = {StudyError.__name__, *(each.__name__ for each in StudyError.__subclasses__())}
    return (job.reason or "").partition(":")[0] in names
