"""The batch, as a hosting service starts it: a folder in, a folder out, an exit status.

Covered: a study that is segmented with everything taken from the container that can be, inputs that
are wrong, the time limit, being stopped at work, a fault of the program's. Not covered: a GPU.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydicom import dcmread

from tests.map.conftest import ROOT
from tests.map.containers import USER, Image, bind, owned
from tests.peers import require
from tests.phantoms.dicom import StudyFiles, write_study
from tests.validators import dciodvfy
from tests.waiting import wait_until

INPUT, OUTPUT = "/var/holoscan/input", "/var/holoscan/output"


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> StudyFiles:
    """Write a study small enough to be segmented in a moment, for everybody to read."""
    folder = tmp_path_factory.mktemp("study")
    folder.chmod(0o755)
    return write_study(folder, seed=51, shape=(48, 48), slices=24)


@pytest.fixture
def output(tmp_path: Path) -> Path:
    """Return an empty folder for results."""
    return owned(tmp_path / "output")


def mounted(study: StudyFiles, output: Path) -> tuple[str, ...]:
    """Return the options that mount both folders."""
    folder = study.paths[0].parent
    return *bind(folder, INPUT), *bind(output, OUTPUT, writable=True)


def settings(tmp_path: Path, **changes: Any) -> tuple[str, ...]:
    """Return the options that mount the shipped app.yaml with changes, as a site does."""
    whole = yaml.safe_load((ROOT / "app.yaml").read_text(encoding="utf-8"))
    whole["node"] |= changes
    path = tmp_path / "app.yaml"
    path.write_text(yaml.safe_dump(whole))
    return bind(path, "/var/holoscan/app.yaml")


def test_a_study_goes_in_and_its_results_come_out(
    image: Image, study: StudyFiles, output: Path
) -> None:
    """No network, no capability, nothing to write to but /tmp and the output."""
    require("dciodvfy")
    done = image.run(options=mounted(study, output))
    assert done.returncode == 0, done.stdout + done.stderr
    made = {str(dcmread(path).Modality): path for path in output.iterdir()}
    assert {*made} == {"SEG", "SR"}
    for path in made.values():
        assert path.stat().st_uid == USER
        assert [line for line in dciodvfy(path) if line.startswith("Error")] == []
    seg = dcmread(made["SEG"])
    assert seg.StudyInstanceUID == study.study_uid
    (referenced,) = seg.ReferencedSeriesSequence
    assert referenced.SeriesInstanceUID == study.series_uid


@pytest.fixture(params=["empty", "garbage"])
def wrong(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """Give a folder without a study: nothing in it, or what is no DICOM."""
    folder = tmp_path / "wrong"
    folder.mkdir()
    if request.param == "garbage":
        (folder / "noise.dcm").write_bytes(b"\0" * 128 + b"DICM" + bytes(range(256)))
        (folder / "letter.txt").write_text("no image")
    return folder


def test_an_input_without_a_study_is_the_inputs_fault(
    image: Image, wrong: Path, output: Path
) -> None:
    """Status 1, a line that says so, no output."""
    options = (*bind(wrong, INPUT), *bind(output, OUTPUT, writable=True))
    done = image.run(options=options)
    assert done.returncode == 1
    assert "holds no DICOM object that can be read" in done.stdout + done.stderr
    assert [*output.iterdir()] == []


def test_a_batch_that_takes_too_long_is_stopped(
    image: Image, study: StudyFiles, output: Path, tmp_path: Path
) -> None:
    """124 and a sentence; what is there is whole."""
    quick = settings(tmp_path, workers={"stop_s": 0.5})
    limit = ("--env", "HOLOSCAN_TIMEOUT=3")
    done = image.run(options=(*mounted(study, output), *quick, *limit))
    assert done.returncode == 124, done.stdout + done.stderr
    assert "longer than HOLOSCAN_TIMEOUT=3 seconds and is stopped" in done.stderr
    assert [*output.iterdir()] == []


def test_a_batch_that_is_told_to_stop_while_it_computes_leaves_nothing_half_done(
    image: Image, study: StudyFiles, output: Path, tmp_path: Path
) -> None:
    """It ends by itself, long before it would be killed, and says with 2 that it did not finish."""
    quick = settings(tmp_path, workers={"stop_s": 0.5})
    with image.started(options=("--network", "none", *mounted(study, output), *quick)) as batch:
        wait_until(lambda: "route took" in batch.log, 120, "the study's routing")
        assert batch.state["Running"]
        assert batch.stop(grace_s=120) == 2, batch.log
        assert "stopped before the end" in batch.log
        assert "infer took" not in batch.log
    assert [*output.iterdir()] == []


def test_a_fault_of_the_programs_is_the_containers_status(
    image: Image, study: StudyFiles, output: Path, tmp_path: Path
) -> None:
    """A wrong app.yaml, an input or output that is not the user's, a wrong option."""
    wrong = image.run(options=(*mounted(study, output), *settings(tmp_path, dor={})))
    assert wrong.returncode == 2
    assert "node.dor: Extra inputs are not permitted" in wrong.stderr
    refused = image.run(options=bind(study.paths[0].parent, INPUT))
    assert refused.returncode == 2
    assert f"{OUTPUT}: user {USER} cannot write there" in refused.stderr
    (tmp_path / "secret").mkdir(mode=0o700)
    options = (*bind(tmp_path / "secret", INPUT), *bind(output, OUTPUT, writable=True))
    unreadable = image.run(options=options)
    assert unreadable.returncode == 2
    assert f"{INPUT}: user {USER} cannot read it" in unreadable.stderr
    usage = image.run("--no-such-option")
    assert usage.returncode == 1
    assert "--no-such-option" in usage.stderr
