"""The models that are installed here and the processes that run them."""

import os
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from app.config import Config
from app.errors import ConfigError
from app.models import ModelCard, load_card
from app.workers import Worker

ZOO = Path(__file__).parent / "models" / "zoo"


@dataclass(frozen=True, slots=True, kw_only=True)
class Installed:
    """A model as it is installed here."""

    card: ModelCard
    folder: Path


class Usage:
    """What the model worker told after its calls, since the node's start."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.loads: Mapping[str, tuple[int, float]] = {}
        """Model → how often its weights were loaded, and in how many seconds altogether."""
        self.memory: Mapping[str, Mapping[str, int]] = {}
        """GPU → its bytes, `used` and `total`, after the last call."""

    def note(self, model: str, device: str, told: Mapping[str, Any]) -> None:
        """Take what one call told."""
        with self._lock:
            if told["loaded_s"] is not None:
                number, seconds = self.loads.get(model, (0, 0.0))
                now = {model: (number + 1, seconds + told["loaded_s"])}
                self.loads = {**self.loads, **now}
            if told["memory"] is not None:
                self.memory = {**self.memory, device: told["memory"]}


@dataclass(frozen=True, slots=True, kw_only=True)
class Crew:
    """The worker processes that stages call."""

    stage: Worker
    model: Worker
    usage: Usage = field(default_factory=Usage)

    @property
    def by_name(self) -> Mapping[str, Worker]:
        """Both, as the README calls them."""
        return {"stage worker": self.stage, "model worker": self.model}

    def interrupt(self) -> None:
        """End running calls; their jobs are handed back."""
        self.stage.interrupt()
        self.model.interrupt()

    def stop(self) -> None:
        """End the processes."""
        self.stage.stop()
        self.model.stop()


def install(config: Config, root: Path | None = None) -> Mapping[str, Installed]:
    """Load the card of every model, and refuse what does not fit its routes.

    It is looked for in `root` first, else in HOLOSCAN_MODEL_PATH, as a MAP has it.
    """
    models = {}
    if root is None and (given := os.environ.get("HOLOSCAN_MODEL_PATH")):
        root = Path(given)
    for model in config.models:
        places = [place / model.folder for place in (root, Path.cwd(), ZOO) if place]
        folder = next((place for place in places if (place / "card.yaml").is_file()), None)
        if folder is None:
            tried = ", ".join(map(str, places))
            raise ConfigError(f"models.{model.name}: no card.yaml in any of {tried}")
        models[model.name] = Installed(card=load_card(folder), folder=folder)
    for route in config.routes:
        roles = {each.role for each in models[route.model].card.inputs}
        if roles != set(route.inputs):
            raise ConfigError(
                f"routes.{route.name}.inputs: model {route.model} reads {sorted(roles)},"
                f" the route fills {sorted(route.inputs)}"
            )
    return models


def start_crew(config: Config) -> Crew:
    """Name the worker processes; each starts at its first call."""
    threads = str(config.workers.threads or os.cpu_count() or 1)
    environment = {"OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads}
    memory = int(config.workers.stage_memory_gb * 2**30)
    return Crew(
        stage=Worker("stage", memory_limit_bytes=memory, environment={"OMP_NUM_THREADS": "1"}),
        model=Worker("model", memory_limit_bytes=None, environment=environment),
    )
