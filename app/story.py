"""Everything that the job log has on a study and its jobs, as one value of JSON's kinds."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from app.store.jobs import Job
from app.store.store import Store


def story_of(store: Store, study_uid: str, jobs: Sequence[Job]) -> dict[str, Any]:
    """Return the history of a study and of these jobs, with where their results are."""
    replaced = store.replaced(job.id for job in jobs)
    return {
        "study": asdict(store.study(study_uid)),
        "study_events": [asdict(event) for event in store.study_events(study_uid)],
        "trace": store.trace(study_uid),
        "jobs": [
            {
                **asdict(job),
                "replaces": replaced.get(job.id, []),
                "events": [asdict(event) for event in store.events(job.id)],
                "deliveries": [asdict(each) for each in store.deliveries([job.id])],
                "delivery_events": [asdict(line) for line in store.delivery_lines(job.id)],
            }
            for job in jobs
        ],
    }
