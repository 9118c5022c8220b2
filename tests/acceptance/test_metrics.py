"""The numbers of a real node after a real study, as Prometheus reads them, and after a restart.

Covered: every metric that the code names is there, or absent for a reason; what was sent, repeated,
refused and rejected is counted; counts of the job log survive a restart; a model worker that is
lost; promtool's opinion of the names. Not covered: a GPU (tests/unit/test_metrics has its numbers).
"""

import os
import signal
import subprocess
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families
from pydicom import dcmread
from pynetdicom import AE
from pynetdicom.sop_class import Verification

from app.config import application_version
from app.web.metrics import METRICS
from tests.node import Node
from tests.peers import require
from tests.phantoms.dicom import write_study
from tests.sending import send
from tests.sockets.test_health import worker_of
from tests.waiting import wait_until

WEB = {"web": {"port": 0, "probe_s": 0.5}}
ABSENT = {"marginalia_gpu_memory_used_bytes", "marginalia_gpu_memory_capacity_bytes"}
"""Without a GPU."""


def scraped(node: Node) -> dict[str, float]:
    """Return every sample by its name and labels, as they stand in the text."""
    answer = node.ask("/metrics")
    assert answer.status_code == 200
    assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
    return {
        f"{sample.name}{labels(sample.labels)}": sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }


def labels(values: dict[str, str]) -> str:
    """Return labels as Prometheus writes them."""
    inner = ",".join(f'{name}="{value}"' for name, value in sorted(values.items()))
    return f"{{{inner}}}" if inner else ""


def of_the_log(samples: dict[str, float]) -> dict[str, float]:
    """Return what a restart must not change."""
    kept = ("studies{", "jobs{", "deliveries{", "stage_seconds_count{", "stage_seconds_sum{")
    names = tuple(f"marginalia_{name}" for name in kept)
    return {name: value for name, value in samples.items() if name.startswith(names)}


def counted(node: Node, wanted: dict[str, float]) -> dict[str, float]:
    """Wait until the numbers are these; a door tells its own every second."""

    def others() -> dict[str, float | None]:
        found = scraped(node)
        return {n: found.get(n) for n, number in wanted.items() if found.get(n) != number}

    try:
        wait_until(lambda: not others(), 30)
    except AssertionError:
        assert others() == {}, "instead of the numbers that were wanted"
    return scraped(node)


@pytest.mark.slow
def test_numbers_of_a_study_are_there_and_survive_a_restart(tmp_path: Path) -> None:
    """24 slices in, one of them twice, one with other content, a caller of another title."""
    require("promtool")
    study = write_study(tmp_path / "study", seed=91, shape=(48, 48), slices=24)
    other = dcmread(study.paths[0])
    other.PixelData = bytes(len(other.PixelData))
    other.save_as(tmp_path / "other-content.dcm")
    node = Node(tmp_path / "node", WEB)
    try:
        node.start()
        send(study.paths, node.port)
        (job,) = node.settled()
        assert job.state == "done", job.reason
        send([study.paths[0], tmp_path / "other-content.dcm"], node.port)
        stranger = AE("SENDER")
        stranger.add_requested_context(Verification)
        assert stranger.associate("127.0.0.1", node.port, ae_title="ELSEWHERE").is_rejected
        samples = counted(
            node,
            {
                'marginalia_received_objects_total{process="door"}': 24,
                'marginalia_repeated_objects_total{process="door"}': 1,
                'marginalia_refused_objects_total{process="door",status="C0DF"}': 1,
                "marginalia_associations_total": 2,
                'marginalia_rejected_associations_total{code="1 1 7"}': 1,
                'marginalia_jobs{route="phantom-ct",state="done"}': 1,
                'marginalia_deliveries{destination="local",state="proved"}': 1,
                'marginalia_delivery_oldest_age_seconds{destination="local"}': 0,
                'marginalia_stage_seconds_count{route="phantom-ct",stage="infer"}': 1,
                'marginalia_stage_seconds_count{route="phantom-ct",stage="encode"}': 1,
                'marginalia_model_loads_total{model="phantom"}': 1,
                'marginalia_process_starts_total{process="door"}': 1,
                'marginalia_process_starts_total{process="model worker"}': 1,
                'marginalia_worker_losses_total{process="model worker"}': 0,
                'marginalia_worker_busy_seconds{process="stage worker"}': 0,
                'marginalia_part_up{part="archive local"}': 1,
                "marginalia_queue_jobs": 0,
                "marginalia_queue_oldest_age_seconds": 0,
                "marginalia_ready": 1,
                f'marginalia_build_info{{version="{application_version()}"}}': 1,
                f'marginalia_model_info{{identity="{job.model}",model="phantom"}}': 1,
            },
        )
        assert samples['marginalia_received_bytes_total{process="door"}'] > 24 * 48 * 48 * 2
        assert sum(v for k, v in samples.items() if k.startswith("marginalia_studies{")) == 1
        seconds = samples['marginalia_stage_seconds_sum{route="phantom-ct",stage="infer"}']
        assert 0 < seconds < 300
        assert samples['marginalia_model_load_seconds_total{model="phantom"}'] <= seconds
        assert samples["marginalia_disk_free_bytes"] > 0
        assert samples["process_resident_memory_bytes"] > 0
        check_names(node)
        os.kill(worker_of(node, "model"), signal.SIGKILL)
        counted(node, {'marginalia_worker_losses_total{process="model worker"}': 1})
        before = of_the_log(scraped(node))
        assert node.stop() == 0
        node.start()
        after = wait_until(lambda: found if (found := of_the_log(scraped(node))) else None)
        assert after == before
    finally:
        node.end()


def check_names(node: Node) -> None:
    """Nothing is told that the code does not name, nor the other way round."""
    text = node.ask("/metrics").text
    named = {line.split()[2] for line in text.splitlines() if line.startswith("# TYPE")}
    filled = {line.partition("{")[0].partition(" ")[0] for line in text.splitlines()}
    ours = {name for name in named if name.startswith("marginalia_")}
    assert ours == {*METRICS}
    empty = {name for name in ours if not {name, f"{name}_count"} & filled}
    assert empty == ABSENT
    verdict = subprocess.run(
        ["promtool", "check", "metrics"], input=text, capture_output=True, text=True, check=False
    )
    assert (verdict.returncode, verdict.stdout, verdict.stderr) == (0, "", "")
