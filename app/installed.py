"""The models that are installed here and the processes that run them."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

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


@dataclass(frozen=True, slots=True, kw_only=True)
class Crew:
    """The worker processes that stages call."""

    stage: Worker
    model: Worker

    def interrupt(self) -> None:
        """End running calls; their jobs are handed back."""
        self.stage.interrupt()
        self.model.interrupt()

    def stop(self) -> None:
        """End the processes."""
        self.stage.stop()
        self.model.stop()


def install(config: Config, root: Path | None = None) -> Mapping[str, Installed]:
    """Load the card of every model, from `root` first, and refuse what does not fit its routes."""
    models = {}
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
