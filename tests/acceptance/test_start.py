"""Starting with something wrong: a sentence that says what, where and what to do.

Covered: a wrong app.yaml, an unknown model, roles that do not fit, a port in use, no job log,
folders that cannot be written. Not covered: a full disk.
"""

import shutil
import socket
import tempfile
from pathlib import Path
from typing import Any

import pytest

from app.batch import run_batch
from app.config import load_config
from app.errors import ConfigError
from app.installed import ZOO
from app.results.forms import Form
from app.store.store import Store
from tests.node import SETTINGS, Node, python_m_app


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"dor": {}}, "node.dor: Extra inputs are not permitted"),
        (
            {"models": [{"name": "phantom", "folder": "no-such-model"}]},
            "models.phantom: no card.yaml in any of",
        ),
        (
            {"routes": [SETTINGS["routes"][0] | {"inputs": {"MR": []}}]},
            "routes.phantom-ct.inputs: model phantom reads ['CT'], the route fills ['MR']",
        ),
    ],
)
def test_a_wrong_file_is_refused_by_check_and_serve_alike(
    tmp_path: Path, change: dict[str, Any], sentence: str
) -> None:
    """`check` exits with 1, the node with 2."""
    node = Node(tmp_path, change)
    check, serve = node.command("check", check=False), node.command("serve", check=False)
    assert check.returncode == 1
    assert serve.returncode == 2
    assert sentence in check.stderr
    assert sentence in serve.stderr


def test_a_right_file_is_said_to_be_right(tmp_path: Path) -> None:
    """With the exact model that would run."""
    checked = Node(tmp_path).command("check")
    assert "right, 1 routes" in checked.stdout
    assert "phantom@" in checked.stdout
    assert "phantom@" in Node(tmp_path).command("models").stdout


def test_a_port_in_use_is_named(tmp_path: Path) -> None:
    """The node does not start without its door."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        refused = Node(tmp_path, {"door": {"port": port, "open": True}}).command(
            "serve", check=False
        )
    assert refused.returncode == 2
    assert str(port) in refused.stderr
    assert "in use" in refused.stderr


def test_questions_to_a_node_that_never_ran_are_answered(tmp_path: Path) -> None:
    """There is no log to read, and the sentence says so."""
    asked = Node(tmp_path).command("jobs", check=False)
    assert asked.returncode == 1
    assert "there is no job log here" in asked.stderr


def test_a_form_that_nobody_knows_is_named(tmp_path: Path) -> None:
    """Before anything is read, with those that there are."""
    asked = Node(tmp_path).command("run", "-i", str(tmp_path), "--forms", "seg,pdf", check=False)
    assert asked.returncode == 1
    assert "'pdf' is none of seg," in asked.stderr


def test_show_without_a_job_says_so(tmp_path: Path) -> None:
    """The newest job is shown where none is named; here is none."""
    node = Node(tmp_path)
    Store.open(node.data / "node.db").close()
    asked = node.command("show", check=False)
    assert asked.returncode == 1
    assert "there is no job yet" in asked.stderr


def test_models_are_found_where_a_map_has_them(tmp_path: Path) -> None:
    """By every command, in HOLOSCAN_MODEL_PATH before the shipped ones."""
    shutil.copytree(ZOO / "phantom", tmp_path / "models" / "phantom")
    config = str(Node(tmp_path).config)
    checked = python_m_app("check", "--config", config, HOLOSCAN_MODEL_PATH=tmp_path / "models")
    assert f" in {tmp_path / 'models' / 'phantom'}\n" in checked.stdout
    elsewhere = python_m_app("check", "--config", config, HOLOSCAN_MODEL_PATH=tmp_path / "none")
    assert f" in {ZOO / 'phantom'}\n" in elsewhere.stdout


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    """The node's data and the batch's output, as on a read-only root with nothing mounted."""
    node, study = Node(tmp_path), tmp_path / "in"
    study.mkdir()
    served = node.command("serve", "--data", "/proc/data", check=False)
    read = node.command("run", "-i", str(study), "-o", "/proc/out", check=False)
    for refused, folder in ((served, "/proc/data"), (read, "/proc/out")):
        assert refused.returncode == 2
        assert refused.stderr.startswith(f"{folder}: user ")
        assert refused.stderr.count("\n") == 1


def test_a_batch_without_a_place_for_temporary_files_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a container with a read-only root and no tmpfs."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "gone"))
    config = load_config(Node(tmp_path).config)
    with pytest.raises(ConfigError, match="no folder for temporary files"):
        run_batch(config, tmp_path, tmp_path / "out", None, (Form.SEG,))
