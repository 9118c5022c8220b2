"""The README names everything that a person can configure, call or meet.

Covered: that each word stands there as code (`word`), taken from the program itself. Not covered:
whether what is said about it is true and clear; that is for review.
"""

import argparse
import inspect
import re
import types
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import pydantic
import pytest

from app import cli, errors
from app.config import Config
from app.config_routes import STUDY_FACTS, Asking, Gates, Preference, Relation
from app.dicom.facts import FACTS
from app.log import FILE_VARIABLE, KEEP_VARIABLE, LEVEL_VARIABLE, MAX_MB_VARIABLE
from app.pipeline import STAGES
from app.pipeline.gates import KINDS, LIMITS
from app.results.forms import Form
from app.store.delivery import DeliveryState
from app.store.jobs import Event, State
from app.web.metrics import METRICS
from app.web.part import PartState

README = Path(__file__).resolve().parent.parent / "README.md"


def config_keys(model: type[pydantic.BaseModel], above: str = "") -> Iterator[str]:
    """Yield the dotted path of every key; lists and dictionaries add no part of their own."""
    for name, field in model.model_fields.items():
        key = field.alias or name
        path = f"{above}.{key}" if above else key
        yield path
        for inner in models_in(field.annotation):
            yield from config_keys(inner, path)


def models_in(annotation: object) -> Iterator[type[pydantic.BaseModel]]:
    """Yield the models that a key's value may hold, at any depth of its type."""
    if isinstance(annotation, type) and not isinstance(annotation, types.GenericAlias):
        if issubclass(annotation, pydantic.BaseModel):
            yield annotation
        return
    for inner in get_args(annotation):
        yield from models_in(inner)


def config_table() -> str:
    """Return the README's table of configuration keys; print it to renew the table there."""
    rows = dict.fromkeys(_rows(Config, ""))
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _rows(model: type[pydantic.BaseModel], above: str) -> Iterator[tuple[str, str, str]]:
    for name, field in model.model_fields.items():
        # Conditions and gates have tables of their own.
        inner = [m for m in models_in(field.annotation) if m not in {*get_args(Asking | Relation)}]
        if field.description:
            yield f"`{above}{name}`", _default(field), field.description
        for part in inner:
            if part is not Gates:
                yield from _rows(part, f"{above}{name}.")


def gate_table() -> str:
    """Return the README's table of gates; print it to renew the table there."""
    rows = (
        (f"`{name}`", _default(field) or "none", field.description or "")
        for name, field in Gates.model_fields.items()
    )
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _default(field: pydantic.fields.FieldInfo) -> str:
    value = field.get_default()
    if field.is_required():
        return "required"
    if value in {None, ()} or field.default_factory:
        return ""
    return f"`{', '.join(map(str, value)) if isinstance(value, tuple) else value}`"


def test_the_table_of_keys_is_what_the_code_says() -> None:
    """Key, default and meaning stand once, in app/config.py."""
    text = README.read_text(encoding="utf-8")
    for row in config_table().splitlines():
        assert row in text, f"README.md lacks this row: {row}"


def test_the_table_of_gates_is_what_the_code_says() -> None:
    """Code, default and meaning stand once, in app/config_routes.py."""
    text = README.read_text(encoding="utf-8")
    lacking = [row for row in gate_table().splitlines() if row not in text]
    assert not lacking, f"README.md lacks these rows: {lacking}"
    assert {*Gates.model_fields} == {*LIMITS, *KINDS}


def test_the_table_of_metrics_is_what_the_code_says() -> None:
    """Name, kind, labels and meaning stand once, in app/web/metrics.py."""
    text = README.read_text(encoding="utf-8")
    rows = [
        f"| `{name}` | {each.kind} | {', '.join(f'`{label}`' for label in each.labels)} |"
        f" {each.words} |"
        for name, each in METRICS.items()
    ]
    lacking = [row for row in rows if row not in text]
    assert not lacking, "README.md lacks these rows:\n" + "\n".join(lacking)
    named = set(re.findall(r"`(marginalia_\w+)`", text))
    assert named == {*METRICS}, "README.md names metrics that are not told"


def test_the_table_of_facts_is_what_the_code_says() -> None:
    """Name and meaning stand once, in app/dicom/facts.py."""
    text = README.read_text(encoding="utf-8")
    rows = [f"| `{name}` | {meaning} |" for name, meaning in FACTS.items()]
    lacking = [row for row in rows if row not in text]
    assert not lacking, "README.md lacks these rows:\n" + "\n".join(lacking)


def commands(parser: argparse.ArgumentParser) -> list[str]:
    """Return the names of the parser's sub-commands."""
    (choices,) = (
        action.choices
        for action in parser._actions
        if isinstance(action, argparse._SubParsersAction)
    )
    return [*choices]


def error_names() -> list[str]:
    """Return every class of the error tree."""
    return [
        name
        for name, kind in inspect.getmembers(errors, inspect.isclass)
        if issubclass(kind, errors.NodeError)
    ]


TOLD = {
    "configuration key": sorted({*config_keys(Config)}),
    "command": commands(cli.parser()),
    "state": [*State],
    "event": [*Event],
    "delivery state": [*DeliveryState],
    "form": [*Form],
    "state of a part": [*PartState],
    "error": error_names(),
    "stage": [*STAGES],
    "fact": [*FACTS, *STUDY_FACTS],
    "operator": [
        get_args(kind.model_fields["op"].annotation)[0] for kind in get_args(Asking | Relation)
    ],
    "preference": [*Preference],
    "environment variable": [
        *(LEVEL_VARIABLE, FILE_VARIABLE, MAX_MB_VARIABLE, KEEP_VARIABLE),
        "HOLOSCAN_CONFIG_PATH",
    ],
}


def missing(words: list[str], text: str) -> list[str]:
    """Return the words that do not stand in the text as code."""
    code = " ".join(re.findall(r"`([^`\n]+)`", text))
    told = set(re.findall(r"[\w.-]+", code))
    return [word for word in words if word not in told and word.rpartition(".")[2] not in told]


@pytest.mark.parametrize("kind", TOLD)
def test_the_readme_names_every(kind: str) -> None:
    """It fails with the list of what is missing."""
    text = README.read_text(encoding="utf-8") if README.exists() else ""
    assert len(TOLD[kind]) > 1
    lacking = missing(TOLD[kind], text)
    assert not lacking, f"README.md must name, as `code`, each {kind}: {', '.join(lacking)}"


def test_keys_are_found_at_every_depth() -> None:
    """Sections, dictionaries of unions, tuples in dictionaries, and plain values."""
    keys = set(TOLD["configuration key"])
    assert {"data", "door.port", "archives.token_env", "routes.inputs", "models.folder"} <= keys
    assert {"routes.inputs.where.op", "routes.study.not", "routes.inputs.gates.tilt"} <= keys
    assert "jobs.retry_delays_s" in keys


@pytest.mark.parametrize(
    ("text", "lacking"),
    [
        ("", ["door.port", "serve"]),
        ("door.port and serve, but not as code", ["door.port", "serve"]),
        ("`door.port` and `python -m app serve`", []),
        ("| `port` | the port |\n| `serve` | … |", []),
        ("`door.ports` `server`", ["door.port", "serve"]),
    ],
)
def test_a_word_counts_as_named_only_as_code(text: str, lacking: list[str]) -> None:
    """The whole word, or the last part of a dotted one, between backquotes."""
    assert missing(["door.port", "serve"], text) == lacking


def test_every_link_inside_the_readme_leads_somewhere() -> None:
    """An anchor is a heading in small letters, with hyphens for spaces and no other signs."""
    text = README.read_text(encoding="utf-8")
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    anchors = {re.sub(r"[^\w -]", "", each.lower()).replace(" ", "-") for each in headings}
    links = {*re.findall(r"\]\(#([^)]+)\)", text)}
    assert links, "no link is found any more"
    assert not links - anchors, f"no heading for: {sorted(links - anchors)}"


def test_every_file_that_the_readme_links_to_is_there() -> None:
    """Paths are relative to the README."""
    text = README.read_text(encoding="utf-8")
    paths = {*re.findall(r"\]\(([\w./-]+)\)", text)}
    assert paths, "no link is found any more"
    assert not [each for each in paths if not (README.parent / each).exists()]
