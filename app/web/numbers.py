"""What `/metrics` tells, in Prometheus' format; read when it is asked for.

Numbers of the job log count since the log began; those of processes count since the process did.
"""

from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import product

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from app.children import Vitals
from app.dicom.dimse import Status
from app.door.tally import ASSOCIATIONS, BYTES, HELD, KEPT, REFUSED, REJECTED
from app.installed import Usage
from app.store.delivery import DeliveryState
from app.store.figures import Figures
from app.store.jobs import State
from app.store.store import Store
from app.web.metrics import METRICS, counter, gauge
from app.web.part import Overall, PartState, Report
from app.web.probe import Reading
from app.workers import Condition

LOG_S = 2.0
"""How long the job log is waited for; without it the rest is told."""
BUCKETS_S = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0)
ROWS = 10_000


class StageTimes:
    """The histogram of all stages that the job log knows, grown by its new lines."""

    def __init__(self) -> None:
        self._last = 0
        self.counts: dict[tuple[str, str], list[int]] = {}
        """Stage and route → how many took at most as long as each bucket, and longer."""
        self.sums: dict[tuple[str, str], float] = {}

    def read(self, store: Store) -> None:
        """Take the lines that came since the last time."""
        while lines := store.stage_times(self._last, ROWS):
            for line in lines:
                key = (line.stage, line.route)
                counts = self.counts.setdefault(key, [0] * (len(BUCKETS_S) + 1))
                counts[bisect_left(BUCKETS_S, line.seconds)] += 1
                self.sums[key] = self.sums.get(key, 0.0) + line.seconds
            self._last = lines[-1].id
            if len(lines) < ROWS:
                return

    def buckets(self, key: tuple[str, str]) -> list[tuple[str, float]]:
        """Return the cumulative counts as Prometheus has them."""
        bounds, total = [*map(str, BUCKETS_S), "+Inf"], 0
        found: list[tuple[str, float]] = []
        for bound, number in zip(bounds, self.counts[key], strict=True):
            total += number
            found.append((bound, total))
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Sources:
    """Where the numbers come from; nothing here waits."""

    version: str
    models: Mapping[str, str]
    """Name → exact identity."""
    routes: tuple[str, ...]
    destinations: tuple[str, ...]
    report: Callable[[], Report]
    children: Callable[[], Mapping[str, Vitals]]
    workers: Callable[[], Mapping[str, Condition]]
    usage: Usage
    free_bytes: Callable[[], int | None]
    least_free_bytes: float
    answer_seconds: Callable[[], Mapping[str, float | None]]
    clock: Callable[[], float]
    """The monotonic one."""


@dataclass(slots=True, eq=False)  # Prometheus keeps collectors by their hash
class Numbers(Collector):
    """All of it, made when Prometheus asks."""

    sources: Sources
    store: Store
    times: StageTimes = field(default_factory=StageTimes)
    reading: Reading[Figures] = field(init=False)

    def __post_init__(self) -> None:
        """Begin with the history: the first reading of a long one takes seconds."""
        self.reading = Reading("the job log for monitors", self._read)
        self.reading.get(0)

    def text(self) -> bytes:
        """Return all of it as Prometheus reads it."""
        registry = CollectorRegistry()
        registry.register(self)
        ProcessCollector(registry=registry)
        return generate_latest(registry)

    def describe(self) -> list[Metric]:
        """Return nothing: what is told is known when it is asked for."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Yield every metric of ours."""
        yield from self._of_the_node()
        yield from self._of_processes()
        figures = self.reading.get(LOG_S)
        if figures is not None:
            yield from self._of_the_log(figures, datetime.now(UTC))

    def _read(self) -> Figures:
        self.times.read(self.store)
        return self.store.figures(datetime.now(UTC))

    def _of_the_node(self) -> Iterator[Metric]:
        sources, report = self.sources, self.sources.report()
        yield gauge("marginalia_build_info", {(sources.version,): 1})
        yield gauge("marginalia_model_info", dict.fromkeys(sources.models.items(), 1))
        yield gauge("marginalia_ready", {(): report.overall is not Overall.NOT_READY})
        up = {(each.name,): each.state is not PartState.FAILING for each in report.parts}
        yield gauge("marginalia_part_up", up)
        free = sources.free_bytes()
        yield gauge("marginalia_disk_free_bytes", {} if free is None else {(): free})
        yield gauge("marginalia_disk_least_free_bytes", {(): sources.least_free_bytes})
        seconds = {(name,): s for name, s in sources.answer_seconds().items() if s is not None}
        yield gauge("marginalia_archive_answer_seconds", seconds)
        loads, memory = sources.usage.loads, sources.usage.memory
        yield counter("marginalia_model_loads_total", {(m,): n for m, (n, _) in loads.items()})
        yield counter(
            "marginalia_model_load_seconds_total", {(m,): s for m, (_, s) in loads.items()}
        )
        used = {(device,): each["used"] for device, each in memory.items()}
        yield gauge("marginalia_gpu_memory_used_bytes", used)
        total = {(device,): each["total"] for device, each in memory.items()}
        yield gauge("marginalia_gpu_memory_capacity_bytes", total)

    def _of_processes(self) -> Iterator[Metric]:
        children, workers = self.sources.children(), self.sources.workers()
        starts = {(name,): each.starts for name, each in children.items()}
        starts |= {(name,): each.starts for name, each in workers.items()}
        yield counter("marginalia_process_starts_total", starts)
        losses = {(name,): each.losses for name, each in workers.items()}
        yield counter("marginalia_worker_losses_total", losses)
        now = self.sources.clock()
        busy = {(n,): now - each.began_at if each.doing else 0 for n, each in workers.items()}
        yield gauge("marginalia_worker_busy_seconds", busy)
        for name, what in (
            ("marginalia_received_objects_total", KEPT),
            ("marginalia_received_bytes_total", BYTES),
            ("marginalia_repeated_objects_total", HELD),
        ):
            counts = {(n,): each.counts.get(what, 0) for n, each in children.items()}
            yield counter(name, counts)
        statuses = [f"{status:04X}" for status in Status if status is not Status.SUCCESS]
        refused = dict.fromkeys(product(children, statuses), 0) | {
            (name, status): number
            for name, each in children.items()
            for status, number in _by_answer(each.counts, REFUSED)
        }
        yield counter("marginalia_refused_objects_total", refused)
        door = children["door"].counts
        yield counter("marginalia_associations_total", {(): door.get(ASSOCIATIONS, 0)})
        rejected = {(why,): number for why, number in _by_answer(door, REJECTED)}
        yield counter("marginalia_rejected_associations_total", rejected)

    def _of_the_log(self, figures: Figures, now: datetime) -> Iterator[Metric]:
        yield gauge("marginalia_studies", {(s,): n for s, n in figures.studies.items()})
        # also what there is none of: an alert on a growth needs a number to grow from
        none = dict.fromkeys(product(State, self.sources.routes), 0)
        yield gauge("marginalia_jobs", {**none, **figures.jobs})
        queued = sum(n for (state, _), n in figures.jobs.items() if state is State.QUEUED)
        yield gauge("marginalia_queue_jobs", {(): queued})
        since = figures.queued_since or now
        age = {(): (now - since).total_seconds()}
        yield gauge("marginalia_queue_oldest_age_seconds", age)
        unsent = dict.fromkeys(product(self.sources.destinations, DeliveryState), 0)
        deliveries = {**unsent, **figures.deliveries}
        yield gauge("marginalia_deliveries", deliveries)
        oldest = {
            (name,): (now - figures.unproved_since.get(name, now)).total_seconds()
            for name, _ in deliveries
        }
        yield gauge("marginalia_delivery_oldest_age_seconds", oldest)
        name = "marginalia_stage_seconds"
        family = HistogramMetricFamily(name, METRICS[name].words, labels=METRICS[name].labels)
        for key in sorted(self.times.counts):
            family.add_metric(key, self.times.buckets(key), self.times.sums[key])
        yield family


def _by_answer(counts: Mapping[str, int], name: str) -> Iterator[tuple[str, int]]:
    """Yield what was answered and how often, of the counts that carry it behind their name."""
    for what, number in counts.items():
        counted, _, answer = what.partition(" ")
        if counted == name:
            yield answer, number
