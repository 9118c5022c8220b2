"""The numbers for monitors, from a job log and from values; no process is started.

Covered: the histogram from the history's lines and its growth, ages, a GPU's memory, labels that
stay few, a job log that cannot be read. Not covered: a real node (tests/acceptance/test_metrics),
how long a large log takes (`make bench-log`).
"""

import time
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from app.children import Vitals
from app.errors import StoreError
from app.installed import Usage
from app.pipeline import Stage
from app.store.jobs import Job
from app.store.store import Store
from app.web.metrics import METRICS
from app.web.numbers import BUCKETS_S, Numbers, Sources, StageTimes
from app.web.part import Report
from app.workers import Condition
from tests.log_rows import add_jobs
from tests.waiting import wait_until

NOW = datetime.now(UTC)
IDLE = Condition(pid=None, doing="", began_at=0, limit_s=0, starts=0, losses=0, ended="")


def numbers(store: Store, usage: Usage | None = None, **counts: int) -> Numbers:
    """Return the numbers of a node that has nothing but this job log."""
    vitals = Vitals(alive=True, starts=1, counts=counts)
    sources = Sources(
        version="1",
        models={},
        routes=("phantom-ct",),
        destinations=("pacs",),
        report=lambda: Report(parts=()),
        children=lambda: {"door": vitals},
        workers=lambda: {"model worker": IDLE},
        usage=usage or Usage(),
        free_bytes=lambda: 10,
        least_free_bytes=5,
        answer_seconds=lambda: {"pacs": 0.5, "new": None},
        clock=time.monotonic,
    )
    return Numbers(sources, store)


def samples(told: bytes) -> dict[str, float]:
    """Return samples by name and the values of their labels."""
    return {
        " ".join([sample.name, *sample.labels.values()]): sample.value
        for family in text_string_to_metric_families(told.decode())
        for sample in family.samples
    }


def one_job(store: Store) -> Job:
    """Return a job that somebody works on."""
    add_jobs(store, "first", now=NOW - timedelta(minutes=10))
    (job,) = store.claim("me", NOW, 600)
    return job


def test_stages_are_a_histogram_of_the_history(tmp_path: Path) -> None:
    """A bound belongs to its bucket; only new lines are read the second time."""
    with closing(Store.open(tmp_path / "node.db")) as store:
        job, times = one_job(store), StageTimes()
        job = store.passed(job, Stage.INFER, Stage.ENCODE, 3.0, "", NOW)
        times.read(store)
        store.passed(job, Stage.ENCODE, Stage.DELIVER, 0.05, "", NOW)
        times.read(store)
        times.read(store)
    infer = dict(times.buckets(("infer", job.route)))
    assert (infer["1.0"], infer["3.0"], infer["10.0"], infer["+Inf"]) == (0, 1, 1, 1)
    assert dict(times.buckets(("encode", job.route)))["0.1"] == 1
    assert times.sums == {("infer", job.route): 3.0, ("encode", job.route): 0.05}
    assert len(infer) == len(BUCKETS_S) + 1


def test_the_queue_has_a_length_and_an_age(tmp_path: Path) -> None:
    """What is not due yet has no age."""
    with closing(Store.open(tmp_path / "node.db")) as store:
        add_jobs(store, "first", "second", now=datetime.now(UTC) - timedelta(minutes=10))
        told = numbers(store)
        found = wait_until(
            lambda: f if "marginalia_queue_jobs" in (f := samples(told.text())) else 0
        )
        assert found["marginalia_queue_jobs"] == 2
        assert 600 <= found["marginalia_queue_oldest_age_seconds"] < 3600
        assert found["marginalia_jobs phantom-ct failed"] == 0
        assert found["marginalia_deliveries pacs refused"] == 0
        figures = store.figures(NOW - timedelta(days=36500))
        assert figures.queued_since is None


def test_a_gpu_and_loads_are_told_as_the_worker_told_them(tmp_path: Path) -> None:
    """The last memory, and the loads added up."""
    usage = Usage()
    gigabyte = 10**9
    for loaded_s, used in ((2.5, 3), (None, 4), (1.5, 5)):
        told: dict[str, Any] = {"used": used * gigabyte, "total": 16 * gigabyte}
        usage.note("lesions", "cuda:0", {"loaded_s": loaded_s, "memory": told})
    usage.note("phantom", "cpu", {"loaded_s": 0.5, "memory": None})
    with closing(Store.open(tmp_path / "node.db")) as store:
        found = samples(numbers(store, usage).text())
    assert found["marginalia_gpu_memory_used_bytes cuda:0"] == 5 * gigabyte
    assert found["marginalia_gpu_memory_capacity_bytes cuda:0"] == 16 * gigabyte
    assert found["marginalia_model_loads_total lesions"] == 2
    assert found["marginalia_model_load_seconds_total lesions"] == 4
    assert found["marginalia_model_loads_total phantom"] == 1
    assert "marginalia_gpu_memory_used_bytes cpu" not in found


def test_what_the_door_counts_is_told_by_codes(tmp_path: Path) -> None:
    """An archive that never answered has no seconds."""
    counts = {"kept": 7, "bytes": 99, "refused A900": 2, "rejected 1 1 3": 4, "associations": 1}
    with closing(Store.open(tmp_path / "node.db")) as store:
        found = samples(numbers(store, **counts).text())
    assert found["marginalia_received_objects_total door"] == 7
    assert found["marginalia_received_bytes_total door"] == 99
    assert found["marginalia_refused_objects_total door A900"] == 2
    assert found["marginalia_refused_objects_total door A700"] == 0
    assert found["marginalia_rejected_associations_total 1 1 3"] == 4
    assert found["marginalia_archive_answer_seconds pacs"] == 0.5
    assert "marginalia_archive_answer_seconds new" not in found


def test_a_job_log_that_cannot_be_read_hides_nothing_else(tmp_path: Path) -> None:
    """Its own numbers are absent, which an alert notices; they are not told as nothing."""

    class Broken(Store):
        def figures(self, now: datetime) -> Any:  # noqa: ARG002  # as the real one
            raise StoreError("damaged")

    with closing(Broken.open(tmp_path / "node.db")) as store:
        found = samples(numbers(store).text())
    assert found["marginalia_disk_free_bytes"] == 10
    assert not [name for name in found if name.startswith("marginalia_jobs")]


def test_names_follow_the_conventions() -> None:
    """A unit at the end, `_total` for what only grows, and nothing else so."""
    for name, meaning in METRICS.items():
        assert name.startswith("marginalia_")
        assert name.endswith("_total") == (meaning.kind == "counter"), name
        assert "_ms" not in name
        assert meaning.words
