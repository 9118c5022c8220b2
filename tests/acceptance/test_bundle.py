"""deploy/bundle: what goes to a site without a network, proved there and installed from.

Covered: a bundle of the release and a real model, without an image; the same bytes twice; its
`verify` without our program, also on spoiled ones; installing from it below a folder, with no
network at all. Not covered: its packages, 570 MB and more, which `pip` alone judges; the
image's content, see the tests of the image.
"""

import hashlib
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from app.config import application_version
from app.installed import ZOO
from tests.node import ROOT
from tests.peers import require

NAME = f"marginalia-{application_version()}"


def bundle(output: Path, *options: str | Path) -> "subprocess.CompletedProcess[str]":
    """Make a bundle without packages."""
    call = [ROOT / "deploy/bundle", "--no-wheels", "--output", output, *options]
    return subprocess.run(call, capture_output=True, text=True, check=False, timeout=100)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle, unpacked."""
    output = tmp_path_factory.mktemp("bundle")
    told = bundle(output, "--no-image", "--model", ZOO / "phantom")
    assert told.returncode == 0, told.stderr
    assert f"{NAME}.bundle.tar, " in told.stdout
    subprocess.run(["tar", "xf", output / f"{NAME}.bundle.tar", "-C", output], check=True)
    return output / NAME


def verify(folder: Path) -> "subprocess.CompletedProcess[str]":
    """Prove a bundle as a site does: with its own script and coreutils."""
    return subprocess.run(
        [folder / "verify"],
        env={"PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def test_it_has_what_a_site_needs(made: Path) -> None:
    """The release as it lies here, nothing that was made from it, and a model of one's choice."""
    assert {each.name for each in made.iterdir()} == {
        *("INSTALL", "SHA256SUMS", "models", "source", "verify"),
    }
    assert (made / "models/phantom/card.yaml").is_file()
    for path in ("app/__main__.py", "deploy/install", "README.md", "tests/check"):
        assert (made / "source" / path).read_bytes() == (ROOT / path).read_bytes()
    assert not {".venv", "build", ".git"} & {each.name for each in (made / "source").iterdir()}
    assert NAME.removeprefix("marginalia-") in (made / "INSTALL").read_text()


def test_the_same_things_make_the_same_file(made: Path, tmp_path: Path) -> None:
    """Neither order, owner nor hour is in it; its digest lies beside it."""
    again = bundle(tmp_path, "--no-image", "--model", ZOO / "phantom")
    assert again.returncode == 0
    first, second = (each / f"{NAME}.bundle.tar" for each in (made.parent, tmp_path))
    digests = [hashlib.sha256(each.read_bytes()).hexdigest() for each in (first, second)]
    assert digests[0] == digests[1]
    assert (tmp_path / f"{NAME}.bundle.tar.sha256").read_text().startswith(digests[0])


def _flip(folder: Path) -> None:
    path = folder / "source/app/cli.py"
    content = bytearray(path.read_bytes())
    content[100] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (lambda _: None, "are what they were"),
        (_flip, "source/app/cli.py: FAILED"),
        (lambda at: (at / "source/LICENSE").unlink(), "source/LICENSE"),
        (lambda at: (at / "source/more.py").write_text(""), "fetch the bundle again"),
        (lambda at: (at / "SHA256SUMS").write_text(""), "fetch"),
    ],
)
def test_a_spoiled_bundle_is_refused(
    made: Path, tmp_path: Path, spoil: Callable[[Path], object], sentence: str
) -> None:
    """One byte, a file too few or too many, no list."""
    copy = tmp_path / "copy"
    shutil.copytree(made, copy)
    spoil(copy)
    told = verify(copy)
    assert sentence in told.stdout + told.stderr
    assert (told.returncode == 0) == ("what they were" in told.stdout)


def test_what_is_not_there_is_said(tmp_path: Path) -> None:
    """An image that was never made, a folder that is no model, an unknown option."""
    if not (ROOT / f"build/{NAME}.oci.tar").exists():
        assert "run make map before" in bundle(tmp_path).stderr
    assert "no card.yaml" in bundle(tmp_path, "--no-image", "--model", tmp_path).stderr
    assert "is none of" in bundle(tmp_path, "--colour").stderr
    assert not [*tmp_path.iterdir()], "nothing is left behind"


@pytest.mark.slow
def test_a_site_without_a_network_is_installed_from_it(made: Path, tmp_path: Path) -> None:
    """In a network of its own that leads nowhere, not even to itself."""
    require("unshare")
    call = ["unshare", "--net", made / "source/deploy/install", "--prefix", tmp_path]
    done = subprocess.run(
        [*call, "--python-env", sys.prefix],
        capture_output=True,
        text=True,
        check=False,
        timeout=250,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "opt/marginalia/current/app/cli.py").is_file()
