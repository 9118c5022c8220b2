"""The MONAI Deploy application with stages that only note what they were given.

Covered: order, the right model's port, models side by side, nothing lost under bursts, a clean end
whenever the feed closes, and which libcudart is loaded. Not covered: what stages do.
"""

import random
import threading
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest

from app.graph import Feed, run
from app.pipeline.work import JobWork, StudyWork, Work

MODELS = ("lung-ct", "brain_mr")


class Noting:
    """Stages that note each call; a barrier, when given, makes models wait for one another."""

    def __init__(self, room: int = 8, barrier: threading.Barrier | None = None) -> None:
        self.calls: list[tuple[str, str]] = []
        self.room = threading.Semaphore(room)
        self.barrier = barrier

    def route(self, work: Work) -> list[tuple[str, JobWork]]:
        """Send jobs to their model; studies end here."""
        if isinstance(work, StudyWork):
            self.calls.append(("route", work.study_uid))
            self.room.release()
            return []
        return [(work.model, work)]

    def infer(self, work: JobWork) -> JobWork:
        """Note the job."""
        if self.barrier:
            self.barrier.wait(10)
        self.calls.append(("infer", work.job_id))
        return work

    def encode(self, work: JobWork) -> JobWork:
        """Note the job."""
        self.calls.append(("encode", work.job_id))
        return work

    def deliver(self, work: JobWork) -> None:
        """Note the job and make room."""
        self.calls.append(("deliver", work.job_id))
        self.room.release()


def run_all(stages: Noting, works: Sequence[Work], late: int = 0) -> None:
    """Run the graph on all works, the first `late` of them offered before it starts."""
    feed = Feed()
    graph = threading.Thread(target=run, kwargs={"stages": stages, "models": MODELS, "feed": feed})
    for number, work in enumerate(works):
        if number == late:
            graph.start()
        assert stages.room.acquire(timeout=10)
        feed.offer(work)
    if not graph.is_alive():
        graph.start()
    feed.close()
    graph.join(30)
    assert not graph.is_alive(), "the graph did not end"


def job(number: int, model: str = MODELS[0]) -> JobWork:
    """Return a job's message."""
    return JobWork(job_id=str(number), model=model)


def test_a_job_goes_through_the_stages_in_their_order() -> None:
    """Infer, encode, deliver."""
    stages = Noting()
    run_all(stages, [job(1)])
    assert stages.calls == [("infer", "1"), ("encode", "1"), ("deliver", "1")]


def test_a_study_ends_at_the_router() -> None:
    """Its jobs come in again at the top."""
    stages = Noting()
    run_all(stages, [StudyWork(study_uid="1.2", version=1, signal="")])
    assert stages.calls == [("route", "1.2")]


def test_two_models_run_side_by_side() -> None:
    """Each waits for the other: run one after the other, the barrier would break."""
    stages = Noting(barrier=threading.Barrier(2))
    run_all(stages, [job(1, MODELS[0]), job(2, MODELS[1])])
    assert Counter(call for call, _ in stages.calls) == {"infer": 2, "encode": 2, "deliver": 2}


@pytest.mark.parametrize("seed", range(6))
def test_nothing_is_lost_and_the_graph_ends_under_bursts(seed: int) -> None:
    """Works offered before the start, in bursts and at the close all come out once."""
    chance = random.Random(seed)  # noqa: S311  # not for secrets
    number = chance.choice([1, 7, 120])
    stages = Noting()
    works = [job(n, chance.choice(MODELS)) for n in range(number)]
    run_all(stages, works, late=chance.randrange(min(number, 8)))
    delivered = sorted(int(name) for call, name in stages.calls if call == "deliver")
    assert delivered == list(range(number))


def test_a_feed_that_is_closed_at_once_ends_the_graph() -> None:
    """No work is no reason to stay."""
    run_all(Noting(), [])


def test_the_environments_own_cuda_runtime_is_loaded() -> None:
    """Holoscan does not depend on it; one that happens to lie on the machine would hide that."""
    loaded = {
        line.split()[-1]
        for line in Path("/proc/self/maps").read_text().splitlines()
        if "libcudart" in line
    }
    assert loaded
    assert all("site-packages/nvidia" in each for each in loaded)
