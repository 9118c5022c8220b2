"""Which metrics there are: their names, kinds, labels and meanings, stated once.

No label holds what a sender chose: they are names of the site's file, states and codes of ours.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

GAUGE, COUNTER, HISTOGRAM = "gauge", "counter", "histogram"


@dataclass(frozen=True, slots=True, kw_only=True)
class Meaning:
    """What one metric is; the README's table is checked against it."""

    kind: str
    words: str
    labels: tuple[str, ...] = ()


def _of(kind: str, words: str, *labels: str) -> Meaning:
    return Meaning(kind=kind, words=words, labels=labels)


METRICS = {
    "marginalia_build_info": _of(GAUGE, "1, with the version", "version"),
    "marginalia_model_info": _of(
        GAUGE, "1 for each installed model, with its exact identity", "model", "identity"
    ),
    "marginalia_ready": _of(GAUGE, "1 while `/readyz` answers 200"),
    "marginalia_part_up": _of(GAUGE, "1 while the part is not failing, else 0", "part"),
    "marginalia_studies": _of(GAUGE, "studies in the job log", "state"),
    "marginalia_jobs": _of(GAUGE, "jobs in the job log", "state", "route"),
    "marginalia_queue_jobs": _of(GAUGE, "jobs that wait to be claimed"),
    "marginalia_queue_oldest_age_seconds": _of(
        GAUGE, "how long the first of them has been due; 0 without one"
    ),
    "marginalia_stage_seconds": _of(
        HISTOGRAM, "how long stages took, since the job log began", "stage", "route"
    ),
    "marginalia_deliveries": _of(GAUGE, "deliveries in the job log", "destination", "state"),
    "marginalia_delivery_oldest_age_seconds": _of(
        GAUGE, "how long the oldest unproved delivery is under way; 0 without one", "destination"
    ),
    "marginalia_received_objects_total": _of(
        COUNTER, "objects kept, by the process that took them", "process"
    ),
    "marginalia_received_bytes_total": _of(COUNTER, "their bytes", "process"),
    "marginalia_repeated_objects_total": _of(
        COUNTER, "objects that came and were held already", "process"
    ),
    "marginalia_refused_objects_total": _of(
        COUNTER, "objects not kept, by the status of the answer", "process", "status"
    ),
    "marginalia_associations_total": _of(COUNTER, "associations let in"),
    "marginalia_rejected_associations_total": _of(
        COUNTER, "associations rejected, by result, source and reason", "code"
    ),
    "marginalia_process_starts_total": _of(
        COUNTER, "how often a process beside the node was started", "process"
    ),
    "marginalia_worker_losses_total": _of(
        COUNTER, "workers that died or had to be killed", "process"
    ),
    "marginalia_worker_busy_seconds": _of(
        GAUGE, "how long the worker's present call runs; 0 while it waits", "process"
    ),
    "marginalia_model_loads_total": _of(COUNTER, "how often weights were loaded", "model"),
    "marginalia_model_load_seconds_total": _of(COUNTER, "how long that took", "model"),
    "marginalia_gpu_memory_used_bytes": _of(
        GAUGE, "after the last job, other programs included; absent without a GPU", "device"
    ),
    "marginalia_gpu_memory_capacity_bytes": _of(GAUGE, "what there is of it", "device"),
    "marginalia_disk_free_bytes": _of(GAUGE, "free space on the disk of the data folder"),
    "marginalia_disk_least_free_bytes": _of(GAUGE, "`door.limits.free_gb`"),
    "marginalia_archive_answer_seconds": _of(
        GAUGE, "how long the archive's last good answer took", "archive"
    ),
}


def gauge(name: str, values: Mapping[Any, float]) -> Metric:
    """Return a metric with a value for each combination of its labels."""
    return _filled(GaugeMetricFamily, name, values)


def counter(name: str, values: Mapping[Any, float]) -> Metric:
    """Return a metric that only grows, with a value for each combination of its labels."""
    return _filled(CounterMetricFamily, name, values)


def _filled(
    kind: type[GaugeMetricFamily | CounterMetricFamily], name: str, values: Mapping[Any, float]
) -> Metric:
    meaning = METRICS[name]
    family = kind(name, meaning.words, labels=meaning.labels)
    for labels, value in values.items():
        family.add_metric(labels, float(value))
    return family
