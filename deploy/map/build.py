"""Make the MONAI Application Package: `make map`; an image, and an archive of it in build/.

    make map                            for this machine's wheel of torch, on Debian with Python
    make map CONFIG=site.yaml           with another app.yaml and the models that it names
    make map MODELS="/models/a b/c"     with these model folders
    make map BASE=IMAGE                 on another Debian-like base; Python 3.11 is added if missing
    make map ENGINE=buildah             else the first of podman, buildah and docker that is there
    make map OPTIONS="--network none"   more options of the engine's `build`

Everything that goes into the image is staged in build/map. The wheels there stay until
requirements.txt or pip's settings (PIP_…) change; which build of torch they hold, for CPU or CUDA,
is for pip's settings to say. The version stands in app.yaml alone.
"""

import hashlib
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import yaml

from app.config import Config, load_config
from app.errors import NodeError
from app.installed import install
from app.models import load_card
from deploy.map.manifest import app_manifest, application_of, pkg_manifest

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).parent
CONTEXT = ROOT / "build" / "map"
WHEELS = CONTEXT / "wheels"
ENGINES = "podman", "buildah", "docker"
PROGRAM = "app", "operators", "app.yaml", "requirements.txt"
DOCS = "README.md", "LICENSE", "deploy/CHANGES.md", "requirements.txt"
BASE = "python:3.11-slim-bookworm"


def main() -> int:
    """Build and export; 1 with a sentence when something is missing or wrong."""
    app_yaml = yaml.safe_load((ROOT / "app.yaml").read_text(encoding="utf-8"))
    try:
        application = application_of(app_yaml)
        engine = _engine()
        stage(app_yaml, Path(os.environ.get("CONFIG") or ROOT / "app.yaml"))
        collect_wheels()
        image = f"marginalia:{application['version'].replace('+', '-')}"
        with _Took() as built:
            _call(*build_command(engine, image, application))
        archive = ROOT / "build" / f"{image.replace(':', '-')}.oci.tar"
        with _Took() as written:
            export(engine, image, archive)
    except (NodeError, ValueError, OSError) as error:
        sys.stderr.write(f"map: {error}\n")
        return 1
    print(f"map: {image}{_size_of(engine, image)}, built by {engine} in {built}")
    print(f"map: {archive}: {_megabytes(archive.stat().st_size)}, written in {written}")
    return 0


def stage(app_yaml: Mapping[str, Any], config_path: Path) -> None:
    """Lay out everything but the wheels as the Containerfile copies it."""
    config = load_config(config_path)
    for name in ("program", "models", "docs"):
        shutil.rmtree(CONTEXT / name, ignore_errors=True)
        (CONTEXT / name).mkdir(parents=True)
    for name in PROGRAM:
        _copy(ROOT / name, CONTEXT / "program" / name)
    shutil.rmtree(
        CONTEXT / "program" / "app" / "models" / "zoo"
    )  # models have a place of their own
    for name in DOCS:
        _copy(ROOT / name, CONTEXT / "docs" / Path(name).name)
    models = _stage_models(config)
    _copy(ROOT / "requirements.txt", CONTEXT / "requirements.txt")
    _copy(HERE / "entry.py", CONTEXT / "entry")
    (CONTEXT / "entry").chmod(0o755)
    _copy(config_path, CONTEXT / "app.yaml")
    _write_json("app.json", app_manifest(app_yaml, _pinned("monai-deploy-app-sdk")))
    _write_json("pkg.json", pkg_manifest(app_yaml, models))


def _stage_models(config: Config) -> list[str]:
    """Copy the models and return their names; each that app.yaml names must be found again."""
    folders = [Path(each) for each in shlex.split(os.environ.get("MODELS") or "")]
    folders = folders or [each.folder for each in install(config).values()]
    root = CONTEXT / "models"
    for folder in dict.fromkeys(each.resolve() for each in folders):
        load_card(folder)
        if (root / folder.name).exists():
            raise ValueError(f"{folder}: another model has the folder name {folder.name}")
        _copy(folder, root / folder.name)
    for name, each in install(config, root).items():
        if not each.folder.is_relative_to(root):
            raise ValueError(
                f"models.{name}.folder: is not found in the image, whose models are"
                f" {', '.join(_names(root))}; write such a name, and name its folder in MODELS"
            )
    return _names(root)


def collect_wheels() -> None:
    """Have pip fetch or build every wheel that requirements.txt pins, unless they are there."""
    asked = [f"{name}={os.environ[name]}" for name in sorted(os.environ) if name.startswith("PIP_")]
    requirements = (ROOT / "requirements.txt").read_text(encoding="utf-8")
    key = hashlib.sha256("\n".join([requirements, sys.version, *asked]).encode()).hexdigest()
    stamp = WHEELS / "collected"
    if not stamp.exists() or stamp.read_text(encoding="utf-8") != key:
        print("map: collecting wheels (the first time takes minutes)", flush=True)
        shutil.rmtree(WHEELS, ignore_errors=True)
        pip = (sys.executable, "-m", "pip", "-qq", "--disable-pip-version-check", "wheel")
        _call(*pip, "--requirement", str(ROOT / "requirements.txt"), "--wheel-dir", str(WHEELS))
        stamp.write_text(key, encoding="utf-8")
    names = "\n".join(sorted(each.name for each in WHEELS.glob("*.whl"))) + "\n"
    listed = CONTEXT / "wheels.txt"
    if not listed.exists() or listed.read_text(encoding="utf-8") != names:
        listed.write_text(names, encoding="utf-8")


def build_command(engine: str, image: str, application: Mapping[str, Any]) -> list[str]:
    """Return the command that builds the image of what is staged."""
    words = {
        **{name.upper(): str(application[name]) for name in ("title", "version", "description")},
        "LICENCES": application["licences"],
        "TIMEOUT": str(application["timeout"]),
        "REVISION": _revision(),
        "BASE": os.environ.get("BASE") or BASE,
    }
    command = [engine, "build", "--tag", image, "--file", str(HERE / "Containerfile")]
    if engine != "docker":  # which writes OCI by itself, and keeps title and version as labels
        command += ["--format", "oci", "--layers"]
        for name in ("title", "version"):
            command += ["--annotation", f"org.opencontainers.image.{name}={application[name]}"]
    for name, value in words.items():
        command += ["--build-arg", f"{name}={value}"]
    return [*command, *shlex.split(os.environ.get("OPTIONS") or ""), str(CONTEXT)]


def export(engine: str, image: str, archive: Path) -> None:
    """Write the image as an OCI archive, and its digest beside it."""
    archive.unlink(missing_ok=True)
    match engine:
        case "podman":
            _call(engine, "save", "--quiet", "--format", "oci-archive", "-o", str(archive), image)
        case "buildah":
            _call(engine, "push", "--quiet", image, f"oci-archive:{archive}:{image}")
        case _:  # docker 25 and later: an OCI layout
            _call(engine, "save", "--output", str(archive), image)
    with archive.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    beside = archive.with_name(archive.name + ".sha256")
    beside.write_text(f"{digest}  {archive.name}\n", encoding="utf-8")


def _engine() -> str:
    given = os.environ.get("ENGINE")
    if given and given not in ENGINES:
        raise ValueError(f"ENGINE={given}: give one of {', '.join(ENGINES)}")
    found = [each for each in ([given] if given else ENGINES) if shutil.which(each)]
    if not found:
        wanted = given or ", ".join(ENGINES)
        raise ValueError(f"not installed: {wanted}; one engine is needed")
    return found[0]


def _copy(source: Path, target: Path) -> None:
    """Copy a file or a folder so that the image's user may read it, whatever our umask is."""
    if source.is_dir():
        shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
    else:
        shutil.copy2(source, target)
    for each in [target, *target.rglob("*")]:
        each.chmod(0o755 if each.is_dir() else 0o644)


def _write_json(name: str, content: object) -> None:
    text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
    (CONTEXT / name).write_text(text, encoding="utf-8")
    (CONTEXT / name).chmod(0o644)


def _names(root: Path) -> list[str]:
    return sorted(each.name for each in root.iterdir())


def _pinned(package: str) -> str:
    requirements = (ROOT / "requirements.txt").read_text(encoding="utf-8")
    found = re.search(rf"^{re.escape(package)}==(\S+)", requirements, re.MULTILINE)
    if found is None:
        raise ValueError(f"requirements.txt: {package} is not pinned")
    return found[1]


def _revision() -> str:
    """Return the commit that is packed, with a mark where files differ from it; or nothing."""
    if not shutil.which("git"):
        return ""
    asked = ("git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*")
    told = subprocess.run(asked, cwd=ROOT, capture_output=True, text=True, check=False)  # noqa: S603
    return told.stdout.strip()


def _size_of(engine: str, image: str) -> str:
    if engine == "buildah":  # it cannot tell
        return ""
    asked = (engine, "image", "inspect", "--format", "{{.Size}}", image)
    told = subprocess.run(asked, capture_output=True, text=True, check=True)  # noqa: S603
    return f": {_megabytes(int(told.stdout))}"


def _megabytes(number: int) -> str:
    return f"{number / 1e6:.0f} MB"


def _call(*command: str) -> None:
    done = subprocess.run(command, check=False)  # noqa: S603  # no shell
    if done.returncode:
        raise ValueError(f"{shlex.join(command[:2])} ended with status {done.returncode}")


class _Took:
    def __enter__(self) -> Self:
        self._began = time.monotonic()
        return self

    def __exit__(self, *_: object) -> None:
        self._seconds = time.monotonic() - self._began

    def __str__(self) -> str:
        return f"{self._seconds:.0f} s"


if __name__ == "__main__":
    sys.exit(main())
