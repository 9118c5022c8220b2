"""What is staged for the container, and how the engines are called, without an engine.

Covered: the layout that the Containerfile copies, which models are packed, what is refused. Not
covered: wheels and the build itself, which tests/map does.
"""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from app.installed import ZOO
from deploy.map import build
from deploy.map.manifest import application_of
from tests.node import SETTINGS

SHIPPED = build.ROOT / "app.yaml"
APP_YAML: dict[str, Any] = yaml.safe_load(SHIPPED.read_text(encoding="utf-8"))


@pytest.fixture
def context(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Have everything staged in a folder of the test's, whatever the shell would ask for."""
    for name in ("MODELS", "BASE", "OPTIONS", "ENGINE", "CONFIG"):
        monkeypatch.delenv(name, raising=False)
    folder = tmp_path / "context"
    folder.mkdir()
    monkeypatch.setattr(build, "CONTEXT", folder)
    return folder


def site(folder: Path, model: str) -> Path:
    """Write an app.yaml whose one model lies in `model`."""
    node = SETTINGS | {"models": [{"name": "phantom", "folder": model}]}
    (folder / "site.yaml").write_text(yaml.safe_dump({"node": node}))
    return folder / "site.yaml"


def test_everything_that_the_containerfile_copies_is_staged(context: Path) -> None:
    """Readable for every user, without byte code; models have one place only."""
    build.stage(APP_YAML, SHIPPED)
    copied = [
        name
        for line in (build.HERE / "Containerfile").read_text(encoding="utf-8").splitlines()
        if line.startswith("COPY ")
        for name in line.split()[1:-1]
    ]
    assert [name for name in copied if not (context / name).exists()] == ["wheels.txt"]
    assert (context / "program/app/__main__.py").is_file()
    assert not (context / "program/app/models/zoo").exists()
    assert not [*context.rglob("__pycache__")]
    assert {each.stat().st_mode & 0o077 for each in context.rglob("*")} == {0o044, 0o055}
    assert (context / "entry").stat().st_mode & 0o777 == 0o755
    packed = json.loads((context / "pkg.json").read_text())["models"]
    assert packed == [{"name": "phantom", "path": "phantom"}]


def test_models_may_be_named(
    context: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By folders with blanks, too; the image has them under their last names."""
    mine = tmp_path / "my models" / "mine"
    shutil.copytree(ZOO / "phantom", mine)
    monkeypatch.setenv("MODELS", f"'{mine}' {ZOO / 'phantom'}")
    build.stage(APP_YAML, site(tmp_path, "mine"))
    assert (context / "models/mine/card.yaml").is_file()
    packed = json.loads((context / "pkg.json").read_text())["models"]
    assert [each["name"] for each in packed] == ["mine", "phantom"]


def test_a_model_that_the_image_would_not_find_is_refused(context: Path, tmp_path: Path) -> None:
    """A path of this machine means nothing in there."""
    shutil.copytree(ZOO / "phantom", tmp_path / "mine")
    with pytest.raises(ValueError, match=r"models.phantom.folder: is not found in the image"):
        build.stage(APP_YAML, site(tmp_path, str(tmp_path / "mine")))


def test_two_models_of_one_folder_name_are_refused(
    context: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One of them would be lost."""
    shutil.copytree(ZOO / "phantom", tmp_path / "phantom")
    monkeypatch.setenv("MODELS", f"{tmp_path / 'phantom'} {ZOO / 'phantom'}")
    with pytest.raises(ValueError, match="another model has the folder name phantom"):
        build.stage(APP_YAML, SHIPPED)


@pytest.mark.parametrize("engine", build.ENGINES)
def test_an_engine_is_told_what_to_build(
    context: Path, monkeypatch: pytest.MonkeyPatch, engine: str
) -> None:
    """Options that only some of them know are left out for the others."""
    monkeypatch.setenv("BASE", "another")
    monkeypatch.setenv("OPTIONS", "--network none --label 'a=b c'")
    command = build.build_command(engine, "marginalia:1", application_of(APP_YAML))
    assert command[:2] == [engine, "build"]
    assert command[-5:] == ["--network", "none", "--label", "a=b c", str(context)]
    assert "BASE=another" in command
    assert f"VERSION={APP_YAML['application']['version']}" in command
    assert ("--layers" in command) == (engine != "docker")


def test_an_engine_that_is_not_there_is_named(
    context: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Before anything is staged."""
    monkeypatch.setenv("PATH", str(context))
    assert build.main() == 1
    assert "not installed: podman, buildah, docker" in capsys.readouterr().err
    monkeypatch.setenv("ENGINE", "other")
    assert build.main() == 1
    assert "ENGINE=other: give one of podman, buildah, docker" in capsys.readouterr().err
