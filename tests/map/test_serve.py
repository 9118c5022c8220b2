"""The resident node in the same image, with its data in a volume.

Covered: a study by C-STORE through a published port, the commands beside the node, a clean stop,
and a second container that goes on with the same data. Not covered: GPU, orchestration.
"""

import json
from pathlib import Path
from typing import Any

import yaml

from tests.map.conftest import ROOT
from tests.map.containers import Container, Image, bind
from tests.peers import free_port
from tests.phantoms.dicom import write_study
from tests.sending import send
from tests.waiting import wait_until

DATA = "marginalia-data"


def site(folder: Path) -> tuple[str, ...]:
    """Return the options that mount a site's app.yaml: whom the door lets in, and from where."""
    whole = yaml.safe_load((ROOT / "app.yaml").read_text(encoding="utf-8"))
    whole["node"]["door"] = {"host": "0.0.0.0", "peers": [{"ae_title": "SENDER"}]}  # noqa: S104
    whole["node"]["door"]["limits"] = {"free_gb": 0}
    path = folder / "app.yaml"
    path.write_text(yaml.safe_dump(whole))
    return bind(path, "/var/holoscan/app.yaml")


def jobs(node: Container) -> list[dict[str, Any]]:
    """Ask the program in the container for its jobs."""
    asked = node.ask("jobs", "--json")
    assert asked.returncode == 0, asked.stderr + node.log
    listed: list[dict[str, Any]] = json.loads(asked.stdout)
    return listed


def is_done(node: Container) -> bool:
    """Say whether there are jobs and all of them are done."""
    states = [job["state"] for job in jobs(node)]
    assert "failed" not in states, node.log
    return bool(states) and {*states} == {"done"}


def test_a_node_takes_a_study_stops_cleanly_and_goes_on(image: Image, tmp_path: Path) -> None:
    """All that it must remember is in its volume."""
    study = write_study(tmp_path / "study", seed=52, shape=(48, 48), slices=24)
    port = free_port()
    options = (
        *site(tmp_path),
        *("--volume", f"{DATA}:/var/lib/marginalia"),
        *("--publish", f"127.0.0.1:{port}:11112"),
    )
    with image.started("serve", options=options) as node:
        wait_until(
            lambda: "ready: DICOM" in node.log or not node.state["Running"], 120, "readiness"
        )
        assert node.state["Running"], node.log
        assert {*send(study.paths, port)} == {0}
        wait_until(lambda: is_done(node), 180, "the job")
        (job,) = jobs(node)
        assert node.stop(grace_s=120) == 0, node.log
        assert '"message": "stopped"}' in node.log
    with image.started("serve", options=options) as again:
        wait_until(lambda: "ready: DICOM" in again.log or not again.state["Running"], 120, "start")
        assert [each["id"] for each in jobs(again)] == [job["id"]]
        assert again.stop(grace_s=120) == 0, again.log


def test_a_node_without_its_volume_says_what_is_missing(image: Image, tmp_path: Path) -> None:
    """On a read-only root there is nowhere to keep a study."""
    refused = image.run("serve", options=site(tmp_path))
    assert refused.returncode == 2
    assert refused.stderr.startswith("/var/lib/marginalia: user 1000 cannot write there")
