"""The `node:` section of app.yaml as one frozen Config, or one ConfigError naming every fault."""

import os
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import Field, ValidationError, model_validator

from app.config_archives import (
    SENDER,
    ArchiveConfig,
    Deliver,
    DicomwebArchive,
    DimseArchive,
    FilesArchive,
    FolderArchive,
)
from app.config_door import Door, Strict
from app.config_retain import Retain
from app.config_routes import NAME, Route
from app.config_sources import Source
from app.config_web import Web
from app.errors import ConfigError


class Sender(Strict):
    """What is different about one sender; what is not given is as for all."""

    sender: str = Field(description="its AE title, or its user name at the HTTP port")
    settle_s: float | None = Field(None, ge=0, le=86400, description="as above, for this sender")
    quiet_s: float | None = Field(None, gt=0, le=86400, description="as above, for this sender")
    count_from: str | None = Field(None, pattern=NAME, description="as above, for this sender")


class Assemble(Strict):
    """When a study counts as complete."""

    settle_s: float | None = Field(
        2,
        ge=0,
        le=86400,
        description="wait after the sender released its association; null: a release says nothing",
    )
    quiet_s: float = Field(
        60, gt=0, le=86400, description="wait after the last object when nothing else is known"
    )
    count_from: str | None = Field(
        None, pattern=NAME, description="archive that is asked how many objects a study has"
    )
    senders: tuple[Sender, ...] = Field(
        (), description="senders with rules of their own; the first that matches counts"
    )


class Workers(Strict):
    """The processes that compute."""

    device: str = Field(
        "auto",
        pattern=r"^(auto|cpu|cuda(:\d+)?)$",
        description="where models run: auto, cpu, cuda:N",
    )
    threads: int = Field(
        0, ge=0, le=256, description="CPU threads a worker uses; 0 takes all cores"
    )
    stage_timeout_s: float = Field(
        600, gt=0, description="limit for reading headers, building volumes and encoding one job"
    )
    stage_memory_gb: float = Field(16, gt=0.5, description="address space of the stage worker")
    stop_s: float = Field(
        25, gt=0, le=300, description="how long a running job may go on after SIGTERM"
    )


class Jobs(Strict):
    """How jobs are kept alive."""

    lease_s: float = Field(
        30, ge=2, description="a job whose owner is silent this long is orphaned"
    )
    in_flight: int = Field(4, ge=1, le=8, description="jobs inside the graph at once")
    retry_delays_s: tuple[float, ...] = Field(
        (30, 120, 600, 3600),
        min_length=1,
        description="waits between tries; the last one repeats",
    )
    attempts: int = Field(200, ge=1, description="tries before a job fails for good")


class Model(Strict):
    """A model that the node runs."""

    name: str = Field(pattern=NAME, description="name used by routes")
    folder: Path = Field(
        description="folder with card.yaml; a bare name means a card shipped with the node"
    )


class Config(Strict):
    """Everything the node is told."""

    data: Path = Field(Path("data"), description="folder of spool, job log and job folders")
    door: Door = Field(default_factory=Door, description="where studies come in")
    assemble: Assemble = Field(
        default_factory=Assemble, description="when a study counts as complete"
    )
    workers: Workers = Field(default_factory=Workers, description="the processes that compute")
    jobs: Jobs = Field(default_factory=Jobs, description="how jobs are kept alive")
    retain: Retain = Field(default_factory=Retain, description="how long things are kept")
    deliver: Deliver = Field(default_factory=Deliver, description="how results are sent")
    web: Web | None = Field(
        None, description="where health and metrics are served; none unless given"
    )
    archives: dict[Annotated[str, Field(pattern=NAME)], ArchiveConfig] = Field(
        min_length=1, description="where results go, by name"
    )
    sources: tuple[Source, ...] = Field((), description="archives that are asked for studies")
    models: tuple[Model, ...] = Field(min_length=1, description="models the node runs")
    routes: tuple[Route, ...] = Field(min_length=1, description="which series go to which model")

    @model_validator(mode="after")
    def _names_fit_together(self) -> "Config":
        faults = [
            *(
                f"archives.{name}: this name is kept for the peer that sent a study"
                for name in self.archives
                if name == SENDER
            ),
            *_repeated("models", [model.name for model in self.models]),
            *_repeated("routes", [route.name for route in self.routes]),
            *_repeated("sources", [source.archive for source in self.sources]),
            *(
                f"sources.{source.archive}: no archive of that name can be asked"
                for source in self.sources
                if not isinstance(self.archives.get(source.archive), DicomwebArchive | DimseArchive)
            ),
            *(
                f"assemble.count_from: no archive named {name!r} can be asked"
                for name in sorted(self.counted)
                if not isinstance(self.archives.get(name), DicomwebArchive | DimseArchive)
            ),
        ]
        models = {model.name for model in self.models}
        for route in self.routes:
            if route.model not in models:
                faults.append(f"routes.{route.name}.model: no model is named {route.model!r}")
            faults += [
                f"routes.{route.name}.deliver_to: no archive is named {each.archive!r}"
                for each in route.deliver_to
                if each.archive not in {*self.archives, SENDER}
            ]
        if faults:
            raise ValueError("; ".join(faults))
        return self

    @property
    def counted(self) -> set[str]:
        """The archives that are asked how large a study is."""
        every: tuple[Assemble | Sender, ...] = (self.assemble, *self.assemble.senders)
        return {each.count_from for each in every if each.count_from is not None}

    def at(self, data: Path) -> "Config":
        """Return the same with `data` as its data folder, every path and AE title filled in."""
        data = data.resolve()
        archives = {name: self._placed(each, data) for name, each in self.archives.items()}
        return self.model_copy(update={"data": data, "archives": archives})

    def _placed(self, archive: ArchiveConfig, data: Path) -> ArchiveConfig:
        match archive:
            case FolderArchive() | FilesArchive():
                return archive.model_copy(update={"path": data / archive.path})
            case DimseArchive(calling_ae_title=None):
                return archive.model_copy(update={"calling_ae_title": self.door.ae_title})
        return archive

    def route(self, name: str) -> Route:
        """Return the route of that name, or say that it is gone."""
        for route in self.routes:
            if route.name == name:
                return route
        raise ConfigError(f"routes: no route is named {name!r} any more; put it back or cancel")


def _repeated(where: str, names: list[str]) -> list[str]:
    return [
        f"{where}: the name {n!r} is used twice" for n in sorted({*names}) if names.count(n) > 1
    ]


DEFAULT_PATH = Path(__file__).resolve().parent.parent / "app.yaml"


def config_path(given: Path | None = None) -> Path:
    """Return the file to read: the one given, else HOLOSCAN_CONFIG_PATH, else the shipped one."""
    return given or Path(os.environ.get("HOLOSCAN_CONFIG_PATH") or DEFAULT_PATH)


def load_config(path: Path) -> Config:
    """Read and check the `node:` section of the file at `path`."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read ({error}); give the right --config") from error
    try:
        loader = yaml.SafeLoader(text)
        tree = loader.get_single_node()
        document = loader.construct_document(tree) if tree else None
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: is not YAML: {error}") from error
    if not isinstance(document, dict) or not isinstance(document.get("node"), dict):
        raise ConfigError(f"{path}: has no `node:` section")
    try:
        return Config.model_validate(document["node"])
    except ValidationError as error:
        faults = [_sentence(path, tree, fault) for fault in _deepest(error.errors())]
        raise ConfigError("\n".join(faults)) from error


def application_version() -> str:
    """Return `application.version` of the shipped app.yaml, the one place where it stands."""
    document = yaml.safe_load(DEFAULT_PATH.read_text(encoding="utf-8"))
    return str(document["application"]["version"])


def _deepest(faults: list[Any]) -> list[Any]:
    """Leave out that a list is too short where that follows from faults of its items."""
    return [
        fault
        for fault in faults
        if fault["type"] != "too_short"
        or not any(
            other["loc"][: len(fault["loc"])] == fault["loc"]
            for other in faults
            if other is not fault
        )
    ]


def _sentence(path: Path, tree: Any, fault: Any) -> str:
    where = ("node", *fault["loc"])
    line, dotted = _place(tree, where)
    if fault["type"] == "missing":
        dotted += f".{where[-1]}"
    return f"{path}:{line}: {dotted}: {fault['msg'].removeprefix('Value error, ')}"


def _place(node: Any, where: tuple[str | int, ...]) -> tuple[int, str]:
    """Return the line and the path of the deepest part of `where` that stands in the file.

    Parts that only the code knows, such as the kind of a condition, are passed over.
    """
    line: int = node.start_mark.line + 1
    found = []
    for n, part in enumerate(where):
        inner = _inner(node, part, where[n + 1 : n + 2])
        if inner is not None:
            line, node = inner
            found.append(str(part))
    return line, ".".join(found)


def _inner(node: Any, part: str | int, following: tuple[str | int, ...]) -> tuple[int, Any] | None:
    if isinstance(node, yaml.MappingNode):
        found = [(key, value) for key, value in node.value if key.value == str(part)]
        return (found[0][0].start_mark.line + 1, found[0][1]) if found else None
    if not isinstance(node, yaml.SequenceNode) or not isinstance(part, int):
        return None
    if following and isinstance(following[0], int) and isinstance(node.value[0], yaml.MappingNode):
        return None  # the file has one list where the code has a list of lists
    return node.value[part].start_mark.line + 1, node.value[part]
