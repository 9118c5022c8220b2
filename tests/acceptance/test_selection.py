"""The right series to the model, from files to the job log, and what is told of all the others.

Covered: a routine CT and a real head CT with gantry tilt through a running node, as `explain` tells
them then and by changed rules; the head CT against every shipped route; a dynamic series that a
route lets in although no volume can be made of it. Not covered: PET/CT and MR by files
(tests/unit/test_route_studies.py), archives (test_polled_orthanc.py).
"""

from pathlib import Path

import pytest

from app import explain
from app.config import DEFAULT_PATH, load_config
from tests.node import SETTINGS, Node, python_m_app, running
from tests.phantoms import studies
from tests.real import REAL_TILT, needs_real_tilt
from tests.sending import send
from tests.waiting import wait_until

SPACING = "spacing: slices lie up to 22.78 mm from their place on a regular grid of 4.0019 mm"
TILT = "tilt: the slices are sheared by 18.5° (gantry tilt)"

PLAIN = SETTINGS["routes"][0] | {
    "name": "plain",
    "inputs": {
        "CT": {
            "where": [
                {"op": "equals", "tag": "Modality", "value": "CT"},
                {"op": "equals", "fact": "orientation", "value": "axial"},
            ],
            "prefer": ["soft_kernel", "thinnest"],
        }
    },
}


def traced(node: Node, files: list[Path]) -> str:
    """Send files and wait until their study is routed; return its UID."""
    (told,) = explain.of_files(files[0], ())
    study_uid = str(told["study"])
    send(files, node.port)
    with node.store() as store:
        wait_until(lambda: store.trace(study_uid), 30, f"the verdict; see {node.log}")
    return study_uid


def test_a_received_ct_gives_a_job_on_its_thin_soft_series_and_explains_the_rest(
    tmp_path: Path,
) -> None:
    """With what was decided, and with what a stricter rule would decide, which changes nothing."""
    written = studies.write(tmp_path / "files", "received", studies.CT_TRUNK)
    files = [path for paths in written.values() for path in paths]
    with running(tmp_path / "node", {"routes": [PLAIN]}) as node:
        study_uid = traced(node, files)
        with node.store() as store:
            (job,) = store.jobs()
        assert job.inputs == {"CT": studies.series_uid("received", "thin soft")}
        assert len(job.instances["CT"]) == 96
    told = node.command("explain", study_uid).stdout
    assert told.startswith(f"study {study_uid}: 1 of 1 routes take it: plain\n")
    assert "soft kernel, thinnest of 3 that fit (1.25 mm)" in told
    assert "SR “dose report” 1 image: holds objects that are no images (SR)" in told
    strict = {"routes": [PLAIN | {"inputs": {"CT": {"where": [], "gates": {"min_slices": 500}}}}]}
    changed = Node(tmp_path / "changed", strict)
    now = changed.command("explain", study_uid, "--now", "--data", str(node.data)).stdout
    assert now.startswith(f"study {study_uid}: 0 of 1 routes take it\n")
    assert "min_slices: 96 slice position(s), fewer than 500" in now
    assert node.command("explain", study_uid).stdout == told
    rehearsed = changed.command("replay", "--since", "2020-01-01", "--data", str(node.data)).stdout
    assert "plain, no longer taken: 1" in rehearsed


@needs_real_tilt
def test_a_real_tilted_ct_gives_no_job_and_both_reasons(tmp_path: Path) -> None:
    """Tilt and uneven slices, from a scanner; nothing is tried and nothing fails later."""
    with running(tmp_path / "node", {"routes": [PLAIN]}) as node:
        study_uid = traced(node, sorted(REAL_TILT.glob("*.dcm")))
        with node.store() as store:
            assert store.jobs() == []
    told = node.command("explain", study_uid).stdout
    assert told.startswith(f"study {study_uid}: 0 of 1 routes take it\n")
    assert SPACING in told
    assert TILT in told


@needs_real_tilt
@pytest.mark.parametrize(
    "path",
    [DEFAULT_PATH, *sorted((DEFAULT_PATH.parent / "deploy" / "examples").glob("*.yaml"))],
    ids=lambda path: path.stem,
)
def test_no_shipped_route_takes_the_real_tilted_ct_or_is_silent_of_it(path: Path) -> None:
    """Each role of each route says what failed; those that ask for any CT name tilt and spacing."""
    rules = load_config(path).routes
    (told,) = explain.of_files(REAL_TILT, rules)
    assert [each["route"] for each in told["routes"]] == [each.name for each in rules]
    for verdict in told["routes"]:
        assert not verdict["taken"]
        for each in verdict["candidates"]:
            failed = [check for check in each["checks"] if not check["holds"]]
            codes = {gate["code"] for gate in each["gates"]}
            assert failed or {"tilt", "spacing"} <= codes


def test_a_dynamic_series_that_a_route_lets_in_fails_with_its_reason(tmp_path: Path) -> None:
    """No volume is made of five points in time, and the job says so."""
    studies.write(tmp_path / "in", "dynamic", studies.DCE)
    let_in = {"where": [], "gates": {"several_per_position": "allow"}}
    node = Node(tmp_path / "node", {"routes": [PLAIN | {"inputs": {"CT": let_in}}]})
    told = python_m_app(
        *("run", "-i", str(tmp_path / "in"), "-o", str(tmp_path / "out")),
        *("--config", str(node.config)),
    )
    assert told.returncode == 1
    assert "UnsupportedGeometry: every position holds 5 different slices" in told.stdout
    assert not [*(tmp_path / "out").rglob("*.dcm")]
