"""A site with results that are to be delivered, and a clock that a test moves."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, closing
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Self

from app.config import Config
from app.couriers import Courier
from app.store.delivery import Delivery, DeliveryState, NewDelivery
from app.store.store import Store
from tests.log_rows import LEASE_S, START, add_jobs
from tests.node import SETTINGS
from tests.sockets.results import result

PROVED = DeliveryState.PROVED


class Clock:
    """A time that passes when it is told to."""

    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> datetime:
        """Return the time."""
        return self.now

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self.now += timedelta(seconds=seconds)


class Site(AbstractContextManager["Site"]):
    """A data folder with a job log, and results in it as the encode stage leaves them."""

    def __init__(
        self, folder: Path, archives: Mapping[str, Any], **sections: Mapping[str, Any]
    ) -> None:
        route = SETTINGS["routes"][0] | {"deliver_to": [next(iter(archives))]}
        node = SETTINGS | {"archives": dict(archives), "routes": [route]} | sections
        self.clock = Clock()
        self.config = Config.model_validate(node).at(folder)
        self.store = Store.open(folder / "node.db")
        self._closing = closing(self.store)
        self._made = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.__exit__(None, None, None)

    def results(
        self,
        *destinations: str,
        forms: Sequence[str] = ("seg",),
        held: bool = False,
        size: int = 64,
    ) -> str:
        """Make a job whose results are handed over; return its id."""
        self._made += 1
        job_id = f"j{self._made}"
        add_jobs(self.store, job_id, now=self.clock())
        (job,) = self.store.claim("a", self.clock(), LEASE_S)
        folder = self.config.data / "jobs" / job_id / "encode"
        folder.mkdir(parents=True)
        for name in {*forms, "seg"}:
            result(folder, size=size).rename(folder / f"{name}.dcm")
        wanted = [NewDelivery(destination=d, forms=tuple(forms), held=held) for d in destinations]
        self.store.hand_over(job, wanted, 1.0, "", self.clock())
        return job_id

    def file(self, job_id: str, form: str = "seg") -> Path:
        """Return a result's file."""
        return self.config.data / "jobs" / job_id / "encode" / f"{form}.dcm"

    def courier(self, destination: str = "pacs") -> Courier:
        """Return a courier, as after a restart."""
        return Courier(destination, self.config, self.store, self.clock)

    def delivery(self, job_id: str, destination: str = "pacs") -> Delivery:
        """Return a delivery as it is by now."""
        found = {each.destination: each for each in self.store.deliveries([job_id])}
        return found[destination]

    def events(self, job_id: str) -> list[str]:
        """Return what happened to a job's deliveries, in one word each."""
        return [str(line.event) for line in self.store.delivery_lines(job_id)]

    def work(self, courier: Courier, seconds: float, step_s: float = 1.0) -> None:
        """Let a courier work for so long, by the clock of the test."""
        until = self.clock() + timedelta(seconds=seconds)
        while self.clock() < until:
            wait_s = courier.work()
            self.clock.advance(max(wait_s, step_s))
