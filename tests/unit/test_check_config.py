"""What `check` warns of beside routes: modes, what nobody names, models that never ran here.

Covered: each warning and its absence. Not covered: contradicting and overlapping routes
(test_overlaps.py), the peers (tests/sockets/test_connect.py), what makes the node refuse to start
(tests/acceptance/test_start.py).
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from app.check import warnings
from app.config import Config
from app.installed import install
from app.store.jobs import Job
from app.store.store import Store
from tests.log_rows import LEASE_S, START, at, instance, new_job
from tests.node import SETTINGS


def told(data: Path, **changes: Any) -> list[str]:
    """Return the warnings for the settings of the tests, changed."""
    settings = {**SETTINGS, "data": data, **changes}
    config = Config.model_validate(settings)
    return [*warnings(config, install(config))]


def begun(store: Store, identity: str) -> Job:
    """Let a job of this model begin."""
    store.add_instance(instance("1.1"), START)
    store.route_study("1.2", 1, None, [replace(new_job("j1"), model=identity)], START)
    (job,) = store.claim("a", START, LEASE_S)
    return job


def test_a_model_of_which_no_job_has_finished_here_is_untested(tmp_path: Path) -> None:
    """By its exact identity; a job that is still running counts for nothing."""
    assert len(told(tmp_path)) == 1
    assert "models.phantom: untested, no job of phantom@1.0+" in told(tmp_path)[0]
    identity = told(tmp_path)[0].split("no job of ")[1].split()[0]
    store = Store.open(tmp_path / "node.db")
    job = begun(store, identity)
    assert "untested" in told(tmp_path)[0]
    store.finish(job, 1.0, "delivered", at(1))
    store.close()
    assert told(tmp_path) == []


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"routes": [SETTINGS["routes"][0] | {"mode": "off"}]}, "is off, so it takes no study"),
        ({"routes": [SETTINGS["routes"][0] | {"mode": "shadow"}]}, "so nothing is sent"),
        (
            {"models": [*SETTINGS["models"], {"name": "spare", "folder": "phantom"}]},
            "models.spare: no route names it",
        ),
        (
            {"archives": SETTINGS["archives"] | {"old": {"kind": "files", "path": "old"}}},
            "archives.old: neither a route nor a source names it",
        ),
    ],
)
def test_what_is_there_for_nothing_is_told(
    tmp_path: Path, changes: dict[str, Any], sentence: str
) -> None:
    """And nothing else about it."""
    found = [each for each in told(tmp_path, **changes) if "untested" not in each]
    assert len(found) == 1
    assert sentence in found[0]


def test_an_archive_that_is_only_asked_is_named_by_its_source(tmp_path: Path) -> None:
    """It needs no route."""
    pacs = {"kind": "dicomweb", "url": "http://127.0.0.1:1/dicom-web"}
    archives = SETTINGS["archives"] | {"pacs": pacs}
    found = told(tmp_path, archives=archives, sources=[{"archive": "pacs"}])
    assert not any("archives.pacs" in each for each in found)


def test_a_log_that_cannot_be_read_is_a_warning_and_no_error(tmp_path: Path) -> None:
    """After an update `check` runs before the node has brought the tables up to date."""
    (tmp_path / "node.db").write_bytes(b"")
    assert any("not known: the job log" in each for each in told(tmp_path))
