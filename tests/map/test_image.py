"""What the image says of itself, what it gives out, and that nobody can change it.

Covered: labels and annotations, the user, `show` and `extract`, the environment's consistency and
its byte code. Not covered: other engines than podman, other platforms than this one.
"""

import json
from pathlib import Path

from tests.map.containers import USER, Image, bind, owned

EXPORT = "/var/run/holoscan/export"


def test_it_says_what_it_is(image: Image, version: str) -> None:
    """As labels, which every engine keeps, and as annotations of the archive."""
    described = image.described
    wanted = {
        "org.opencontainers.image.title": "marginalia",
        "org.opencontainers.image.version": version,
    }
    assert wanted.items() <= described["Annotations"].items()
    assert wanted.items() <= described["Labels"].items()
    assert described["Labels"]["org.opencontainers.image.licenses"] == "Apache-2.0"
    assert described["Labels"]["org.opencontainers.image.description"]
    assert described["Labels"]["org.opencontainers.image.base.name"]


def test_it_runs_as_a_user_with_a_number(image: Image) -> None:
    """Kubernetes can see that a number is not root; engines can see what to publish and send."""
    config = image.described["Config"]
    assert config["User"] == "1000:1000"
    assert config["Entrypoint"] == ["/opt/holoscan/entry"]
    assert "Cmd" not in config
    assert config["StopSignal"] == "SIGTERM"
    assert config["WorkingDir"] == "/var/holoscan"
    assert {*config["ExposedPorts"]} == {"11112/tcp", "8080/tcp", "8081/tcp"}


def test_show_prints_the_manifests(image: Image, version: str) -> None:
    """They are in the places that the specification names, and nothing else is printed."""
    both = image.run("show")
    app, pkg = image.run("show", "app"), image.run("show", "pkg")
    assert [each.returncode for each in (both, app, pkg)] == [0, 0, 0]
    assert [each.stderr for each in (both, app, pkg)] == ["", "", ""]
    assert json.loads(both.stdout) == {
        "app": json.loads(app.stdout),
        "pkg": json.loads(pkg.stdout),
    }
    assert json.loads(app.stdout)["version"] == json.loads(pkg.stdout)["version"] == version
    assert json.loads(pkg.stdout)["models"] == [{"name": "phantom", "path": "phantom"}]


def test_the_environment_is_what_app_json_tells(image: Image) -> None:
    """Of a container that was given none."""
    told = json.loads(image.run("show", "app").stdout)["environment"]
    said = dict(line.split("=", 1) for line in image.described["Config"]["Env"])
    assert told.items() <= said.items()
    assert said["HOLOSCAN_TIMEOUT"] == "0"


def test_extract_gives_everything_out(image: Image, tmp_path: Path) -> None:
    """As the image's user, to a folder that it owns."""
    export = owned(tmp_path / "export")
    done = image.run("extract", options=bind(export, EXPORT, writable=True))
    assert (done.returncode, done.stderr) == (0, "")
    for name in (
        *("app/app/__main__.py", "app/operators/__init__.py", "app/app.yaml"),
        *("config/app.json", "config/pkg.json", "config/app.yaml"),
        *("models/phantom/card.yaml", "models/phantom/nnunet/fold_0/checkpoint_final.pth"),
        *("docs/README.md", "docs/LICENSE", "docs/CHANGES.md"),
    ):
        assert (export / name).stat().st_uid == USER, name
    assert {each.name for each in export.iterdir()} == {"app", "config", "models", "docs"}


def test_extract_gives_only_what_was_asked_for(image: Image, tmp_path: Path) -> None:
    """Here the manifests and the site's file."""
    export = owned(tmp_path / "export")
    owned(export / "config")
    done = image.run("extract", options=bind(export, EXPORT, writable=True))
    assert (done.returncode, done.stdout) == (0, "extracted config\n")
    found = {each.relative_to(export).as_posix() for each in export.rglob("*") if each.is_file()}
    assert found == {"config/app.json", "config/pkg.json", "config/app.yaml"}


def test_extract_says_why_it_cannot(image: Image, tmp_path: Path) -> None:
    """Nothing is mounted, or a folder of another user."""
    missing = image.run("extract")
    assert missing.returncode == 1
    assert missing.stderr == f"{EXPORT}: nothing is mounted there to extract to\n"
    (tmp_path / "export").mkdir(mode=0o755)
    refused = image.run("extract", options=bind(tmp_path / "export", EXPORT, writable=True))
    assert refused.returncode == 1
    assert f"user {USER} cannot extract there" in refused.stderr
    assert refused.stderr.count("\n") == 1


def test_its_packages_fit_together_and_are_compiled(image: Image) -> None:
    """On a read-only root byte code that is missing would be made anew at each start."""
    program = (
        "import importlib.util as u, os, subprocess, sys\n"
        "for name in ('app.batch', 'operators.route', 'torch', 'pydicom', 'numpy'):\n"
        "    assert os.path.exists(u.find_spec(name).cached), name\n"
        "sys.exit(subprocess.call([sys.executable, '-m', 'pip', 'check']))\n"
    )
    done = image.run("-c", program, options=("--entrypoint", "python"))
    assert done.returncode == 0, done.stdout + done.stderr


def test_its_user_can_change_nothing_of_it(image: Image) -> None:
    """Even where the root is not read-only: what is the user's is what it must write to."""
    looking = ("/", "-xdev", "-writable", "-not", "-type", "l", "-print")
    done = image.run(*looking, options=("--entrypoint", "find"), hardened=False)
    within = ("/proc", "/dev", "/sys", "/tmp", "/var/tmp", "/run/lock")  # noqa: S108  # its own
    found = [each for each in done.stdout.splitlines() if not each.startswith(within)]
    wanted = {f"/var/holoscan/{name}" for name in ("input", "output", "logs")}
    assert {*found} == wanted | {"/var/lib/marginalia"}
