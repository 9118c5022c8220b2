"""The rules of the house, read from the sources: who may import whom, and what is not written.

Covered: every rule of the tables below, each also on a tiny source that breaks it. Not covered:
whether a name says what it means; that is for review.
"""

import ast
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

# -- the rules -----------------------------------------------------------------------------------

FOR_ALL = {"errors", "files", "log", "faults"}
"""Parts that know nothing of the rest, so that everything may use them."""

MAY_IMPORT = {
    "errors": set[str](),
    "files": set[str](),
    "faults": set[str](),
    "log": set[str](),
    "config": {
        "config_archives",
        "config_door",
        "config_retain",
        "config_routes",
        "config_sources",
        "config_web",
    },
    "config_web": {"config_door"},
    "config_retain": {"config_door"},
    "config_archives": {"config_door", "results.forms"},
    "config_door": set[str](),
    "config_routes": {"config_door", "dicom.facts", "dicom.keywords"},
    "tls": {"config_door"},
    "config_sources": {"config_door"},
    "child": set[str](),
    "dicom": set[str](),
    "models": {"dicom"},
    "results": {"dicom", "models"},
    "pipeline": {"dicom", "models", "results", "config", "config_archives", "config_routes", "tls"},
    "store": set[str](),
    "door": {"child", "dicom", "store", "config", "config_door", "tls", "pipeline.receive"},
    "fetch": {
        *(
            "child",
            "config",
            "config_archives",
            "config_routes",
            "config_sources",
            "dicom",
            "door",
            "pipeline",
            "store",
        ),
    },
    "web": {
        *("children", "config", "config_web", "connect", "dicom.dimse", "fetch.status"),
        *("door.edge", "door.guard", "door.http", "door.tally", "installed", "store", "workers"),
    },
    "workers": {"pipeline", "models", "dicom", "results"},
    "operators": {"pipeline", "workers"},
    "graph": {"operators", "pipeline"},
}
"""Part of the program → parts it may import besides FOR_ALL; a part not named may import all."""

ONLY_IN = {
    "holoscan": ("operators/", "app/graph.py"),
    "monai": ("operators/", "app/graph.py"),
    "sqlalchemy": ("app/store/",),
    "alembic": ("app/store/",),
    "pysqlite3": ("app/store/",),
    "torch": ("app/models/runners/",),
    "nnunetv2": ("app/models/runners/",),
    "dynamic_network_architectures": ("app/models/runners/",),
    "pydantic": (
        "app/config.py",
        "app/config_archives.py",
        "app/config_door.py",
        "app/config_retain.py",
        "app/config_sources.py",
        "app/config_routes.py",
        "app/config_web.py",
        "app/models/",
    ),
    "re2": ("app/config_routes.py",),
    "pynetdicom": ("app/dicom/dimse.py", "app/door/"),
    "prometheus_client": ("app/web/",),
    "subprocess": ("app/workers/process.py", "app/children.py"),
}
"""Library → the only places that may import it."""

LIGHT = {
    "app.cli": {"torch", "nnunetv2", "holoscan", "monai", "highdicom"},
    "app.door.__main__": {"torch", "nnunetv2", "holoscan", "monai", "highdicom"},
    "app.fetch.__main__": {"torch", "nnunetv2", "holoscan", "monai", "highdicom"},
    "app.workers.child": {"torch", "nnunetv2", "holoscan", "monai", "highdicom", "pydicom"},
}
"""Module that starts a process → libraries too heavy or too large a target to be loaded by it."""

MAY_CATCH_EVERYTHING = {
    "app/runner.py": "the one place where a stage's errors end",
    "app/couriers.py": "the one place where a delivery's errors end",
    "app/node.py": "the main loop: raised again in the main thread",
    "app/door/association.py": "the edge of a peer's thread: it is told that it failed",
    "app/door/negotiation.py": "pynetdicom raises anything on hostile input",
    "app/web/probe.py": "a part that cannot even be asked is failing",
    "app/workers/serve.py": "the edge of the child: the parent sorts what it is told",
    "app/fetch/source.py": "what one archive says of one study must not end the others",
    "app/dicom/wado.py": "pydicom raises anything on hostile input: the element is left out",
    "app/dicom/series.py": "pydicom raises anything on hostile input",
    "app/results/sources.py": "same: an element that cannot be read is not copied",
}
"""File that may catch Exception without raising it again → why."""

LONGEST_MODULE = 400
NOT_A_NAME = {"utils.py", "util.py", "helpers.py", "helper.py", "common", "common.py", "misc.py"}
NOT_IN_COMPUTE = (
    *(ast.If, ast.For, ast.While, ast.Try, ast.With, ast.Match, ast.IfExp, ast.comprehension),
)
NOT_WRITTEN = (
    (r"shell\s*=\s*True", "", "a shell reads what a study's header says as commands"),
    (
        r"weights_only\s*=\s*False",
        r"tests/phantoms/",  # reads the checkpoint that it has just trained
        "a checkpoint is untrusted input and must not run code",
    ),
    (r"(?<![\w.>}])/(work|tmp|root|home)/", "", "a path of one machine"),
    (r"\.\./shared", "", "a path outside the project"),
)
"""Pattern that stands in no file, the folder where it may stand all the same, and why."""

# -- how they are checked ------------------------------------------------------------------------


def imports(tree: ast.AST) -> Iterator[str]:
    """Yield every dotted name that is imported, wherever in the module."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level:
            yield "." * node.level  # relative: nobody's layer allows it
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{name.name}" for name in node.names)


def part_of(path: str) -> str:
    """Return the part of the program that a file belongs to, such as `dicom` or `operators`."""
    first, *rest = Path(path).with_suffix("").parts
    return rest[0] if first == "app" else first


def wrong_imports(path: str, tree: ast.AST) -> Iterator[str]:
    """Yield what the layers forbid."""
    part = part_of(path)
    allowed = MAY_IMPORT.get(part)
    for name in imports(tree):
        if name.startswith("."):
            yield f"{path}: a relative import; write the full name"
        if allowed is None or name.split(".")[0] not in {"app", "operators"}:
            continue
        target = name.removeprefix("app.")
        if not any(
            target == may or target.startswith(f"{may}.") for may in {part, *allowed, *FOR_ALL}
        ):
            yield f"{path}: {part} may not import {name}"


def libraries_out_of_place(path: str, tree: ast.AST) -> Iterator[str]:
    """Yield imports of libraries that have a place of their own."""
    for name in imports(tree):
        places = ONLY_IN.get(name.split(".")[0])
        if places and not path.startswith(places):
            yield f"{path}: {name} may be imported only in {', '.join(places)}"


def decisions_in_compute(path: str, tree: ast.AST) -> Iterator[str]:
    """Yield operators that decide something."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef) and node.name == "compute":
            for inner in ast.walk(node):
                if isinstance(inner, NOT_IN_COMPUTE):
                    kind = type(inner).__name__
                    yield f"{path}:{node.lineno}: compute() holds a decision ({kind})"


def caught_too_much(path: str, tree: ast.AST) -> Iterator[str]:
    """Yield handlers of everything that do not raise it again."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.ExceptHandler) or path in MAY_CATCH_EVERYTHING:
            continue
        named = {each.id for each in ast.walk(node.type or node) if isinstance(each, ast.Name)}
        everything = node.type is None or named & {"Exception", "BaseException"}
        last = node.body[-1]
        if everything and not (isinstance(last, ast.Raise) and last.exc is None):
            yield f"{path}:{node.lineno}: catches everything; name what can be helped"


def bad_file(path: str, source: str) -> Iterator[str]:
    """Yield faults of the file as such: its name, its length, what is written in it."""
    if NOT_A_NAME & set(Path(path).parts):
        yield f"{path}: says nothing of what it holds; name it by its purpose"
    if path.endswith(".py") and source.count("\n") > LONGEST_MODULE:
        yield f"{path}: longer than {LONGEST_MODULE} lines"
    for pattern, excused, why in NOT_WRITTEN:
        excuse = bool(excused) and path.startswith(excused)
        if not excuse and (found := re.search(pattern, source)):
            yield f"{path}: {found.group()!r}: {why}"


def sources(*folders: str) -> dict[str, str]:
    """Return our files of text by their path."""
    kinds = {".py", ".md", ".toml", ".yaml", ".txt", ""}
    files = [file for name in folders for file in (ROOT / name).rglob("*")]
    files += [ROOT / name for name in ("Makefile", "app.yaml", "pyproject.toml", "README.md")]
    return {
        file.relative_to(ROOT).as_posix(): file.read_text(encoding="utf-8")
        for file in sorted(files)
        if file.suffix in kinds and file.is_file() and "__pycache__" not in file.parts
    }


PROGRAM = {
    path: ast.parse(source, path)
    for path, source in sources("app", "operators").items()
    if path.endswith(".py")
}
Check = Callable[[str, ast.AST], Iterator[str]]

# -- the rules hold ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "check", [wrong_imports, libraries_out_of_place, decisions_in_compute, caught_too_much]
)
def test_the_program_keeps_the_rule(check: Check) -> None:
    """All of app/ and operators/ is read; an empty reading would prove nothing."""
    assert len(PROGRAM) > 20
    faults = [fault for path, tree in PROGRAM.items() for fault in check(path, tree)]
    assert not faults, "\n".join(faults)


def test_every_file_is_named_sized_and_written_as_agreed() -> None:
    """This file is left out: it has to name what may not be written."""
    files = sources("app", "operators", "deploy", "tests", ".ci")
    del files[Path(__file__).relative_to(ROOT).as_posix()]
    faults = [fault for path, source in files.items() for fault in bad_file(path, source)]
    assert not faults, "\n".join(faults)


def test_the_allow_list_names_only_what_needs_it() -> None:
    """A file that no longer catches everything leaves the list."""
    files = {path: PROGRAM[path] for path in MAY_CATCH_EVERYTHING}
    assert [
        path for path, tree in files.items() if not [*caught_too_much(f"not/{path}", tree)]
    ] == []


@pytest.mark.parametrize("module", LIGHT)
def test_a_process_starts_without_heavy_libraries(module: str) -> None:
    """A fresh interpreter imports the module and is asked what came along."""
    program = f"import sys, {module}; print(*{sorted(LIGHT[module])!r} & sys.modules.keys())"
    program = program.replace("[", "{").replace("]", "}")
    run = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert (run.returncode, run.stdout.split()) == (0, []), run.stderr


def test_a_workers_table_names_functions_that_exist() -> None:
    """The names are text until a job asks for them; here they are looked up in the sources."""
    from app.workers.child import FUNCTIONS  # noqa: PLC0415  # its absence fails this test alone

    for target in FUNCTIONS.values():
        module, _, function = target.partition(":")
        tree = PROGRAM.get(module.replace(".", "/") + ".py", ast.Module([], []))
        found = [n for n in tree.body if isinstance(n, ast.FunctionDef) and n.name == function]
        assert len(found) == 1, f"{target} does not exist"
        assert len(found[0].args.args) == 1, f"{target} must take one dict"


def test_every_imported_library_is_required_by_name() -> None:
    """What we import must not vanish because another package stopped bringing it along."""
    required = (ROOT / "requirements.txt").read_text(encoding="utf-8").split("# -- brought by")[0]
    pinned = set(re.findall(r"^([a-z0-9-]+)==", required, re.MULTILINE))
    belongs_to = packages_distributions()
    imported = {name.split(".")[0] for tree in PROGRAM.values() for name in imports(tree)}
    for library in sorted(imported - sys.stdlib_module_names - {"app", "operators"}):
        packages = {re.sub(r"[-_.]+", "-", each).lower() for each in belongs_to[library]}
        assert packages & pinned, f"{library} is imported; pin one of {packages} as ours"


# -- the rules can fail --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("check", "path", "source"),
    [
        (wrong_imports, "app/dicom/a.py", "from app.store.jobs import Job"),
        (wrong_imports, "app/dicom/a.py", "import app.pipeline.route"),
        (wrong_imports, "app/dicom/a.py", "from app import store"),
        (wrong_imports, "app/dicom/a.py", "from . import b"),
        (wrong_imports, "app/pipeline/a.py", "def f():\n    from app.store import jobs"),
        (wrong_imports, "app/store/a.py", "from app.config import Config"),
        (wrong_imports, "app/door/a.py", "from app.models import load_card"),
        (wrong_imports, "app/door/a.py", "from app.pipeline.infer import build"),
        (wrong_imports, "app/errors.py", "from app.dicom.series import Series"),
        (wrong_imports, "operators/a.py", "from app.store.jobs import Job"),
        (wrong_imports, "app/workers/a.py", "from operators.route import RouteOperator"),
        (libraries_out_of_place, "app/node.py", "import holoscan.core"),
        (libraries_out_of_place, "app/pipeline/a.py", "from monai.deploy.core import Application"),
        (libraries_out_of_place, "app/models/card.py", "import torch"),
        (libraries_out_of_place, "app/cli.py", "def f():\n    from sqlalchemy import select"),
        (libraries_out_of_place, "app/pipeline/a.py", "import subprocess as s"),
        (decisions_in_compute, "operators/a.py", "def compute():\n    if x: pass"),
        (decisions_in_compute, "operators/a.py", "def compute():\n    for x in y: pass"),
        (decisions_in_compute, "operators/a.py", "def compute():\n    while x: pass"),
        (decisions_in_compute, "operators/a.py", "def compute():\n    with x: pass"),
        (decisions_in_compute, "operators/a.py", "def compute():\n    f([x for x in y])"),
        (decisions_in_compute, "operators/a.py", "def compute():\n    f(x if y else z)"),
        (
            decisions_in_compute,
            "operators/a.py",
            "class A:\n    def compute(self):\n        try: f()\n        finally: g()",
        ),
        (
            decisions_in_compute,
            "operators/a.py",
            "def compute():\n    match x:\n        case _: pass",
        ),
        (caught_too_much, "app/a.py", "try: f()\nexcept Exception: pass"),
        (caught_too_much, "app/a.py", "try: f()\nexcept: g()"),
        (caught_too_much, "app/a.py", "try: f()\nexcept (KeyError, Exception) as e: g(e)"),
        (caught_too_much, "app/a.py", "try: f()\nexcept BaseException as e: raise E from e"),
    ],
)
def test_a_rule_finds_what_breaks_it(check: Check, path: str, source: str) -> None:
    """One line of each kind that a reviewer would have to find otherwise."""
    assert [*check(path, ast.parse(source))] != []


@pytest.mark.parametrize(
    ("check", "path", "source"),
    [
        (wrong_imports, "app/dicom/a.py", "from app.dicom.series import Series"),
        (wrong_imports, "app/dicom/a.py", "from app.errors import NodeError"),
        (wrong_imports, "app/dicom/a.py", "import store"),
        (wrong_imports, "app/door/a.py", "from app.pipeline.receive import Arrived"),
        (wrong_imports, "app/node.py", "from app.graph import run"),
        (libraries_out_of_place, "app/models/runners/a.py", "import torch"),
        (decisions_in_compute, "operators/a.py", "def f():\n    if x: pass"),
        (caught_too_much, "app/a.py", "try: f()\nexcept OSError: pass"),
        (caught_too_much, "app/a.py", "try: f()\nexcept BaseException:\n    g()\n    raise"),
        (caught_too_much, "app/runner.py", "try: f()\nexcept Exception: g()"),
    ],
)
def test_a_rule_leaves_the_rest_alone(check: Check, path: str, source: str) -> None:
    """A rule that shouts at everything would be switched off."""
    assert [*check(path, ast.parse(source))] == []


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("app/utils.py", ""),
        ("app/common/a.py", ""),
        ("app/a.py", "x = 1\n" * 401),
        ("app/a.py", "run(command, shell = True)"),
        ("app/a.py", "torch.load(file, weights_only=False)"),
        ("tests/a.py", "torch.load(file, weights_only=False)"),
        ("tests/a.py", "open('/tmp/a')"),
        ("README.md", "see /home/me/notes"),
        ("README.md", "see ../shared/style.md"),
    ],
)
def test_a_bad_file_is_found(path: str, source: str) -> None:
    """Names, lengths and words that may not be."""
    assert [*bad_file(path, source)] != []


@pytest.mark.parametrize(
    "source", ["x = 1\n" * 400, "https://example.org/work/a", "weights_only=True", "a/tmp/b"]
)
def test_a_good_file_is_left_alone(source: str) -> None:
    """What only looks like a fault."""
    assert [*bad_file("app/a.py", source)] == []
