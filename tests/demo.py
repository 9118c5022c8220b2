"""Show the whole way once: a phantom study in by C-STORE, a segmentation back in an archive.

Everything that a person would look at is printed, and the exit status is not 0 if any part of it
did not happen. `--orthanc` delivers to a real Orthanc on this machine instead of a folder.
"""

import argparse
import shutil
import sys
import time
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import highdicom as hd
import numpy as np
import yaml
from dicomweb_client import DICOMfileClient, DICOMwebClient
from numpy.typing import NDArray
from pydicom import Dataset, dcmread
from pynetdicom import AE
from pynetdicom.sop_class import CTImageStorage

from app import show
from app.config import DEFAULT_PATH
from app.installed import ZOO
from app.models import ModelCard, load_card
from app.store.jobs import Job, State
from app.store.store import Store
from app.trace_words import trace
from tests.node import ROOT, running
from tests.peers import Orthanc
from tests.phantoms.dicom import StudyFiles, write_study
from tests.phantoms.picture import draw
from tests.waiting import wait_until

JOB_S = 110.0
GOOD_DICE = 0.85


class DemoFailed(Exception):
    """A part of the demo did not happen."""


def main() -> int:
    """Run the demo; 0 when every part of it happened."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--folder", type=Path, default=ROOT / "demo", help="emptied first")
    arguments.add_argument("--orthanc", action="store_true", help="deliver to a real Orthanc")
    arguments.add_argument("--size", type=int, default=512, help="rows and columns")
    arguments.add_argument("--slices", type=int, default=100)
    args = arguments.parse_args()
    started = time.monotonic()
    try:
        with ExitStack() as stack:
            _run(args, stack)
    except (DemoFailed, AssertionError) as error:
        print(f"\nThe demo failed: {error}", file=sys.stderr)
        return 1
    print(f"\nEverything happened, in {time.monotonic() - started:.0f} s.")
    return 0


def _run(args: argparse.Namespace, stack: ExitStack) -> None:
    shutil.rmtree(args.folder, ignore_errors=True)
    args.folder.mkdir(parents=True)
    archive: dict[str, Any] = {"kind": "folder", "path": str(args.folder / "archive")}
    if args.orthanc:
        orthanc = stack.enter_context(Orthanc(args.folder / "orthanc"))
        archive = {"kind": "dicomweb", "url": orthanc.dicomweb_url}
    _say(f"1. A synthetic study: {args.size}×{args.size}×{args.slices}")
    study = write_study(
        args.folder / "study", seed=2026, shape=(args.size, args.size), slices=args.slices
    )
    print(f"   {len(study.paths)} CT images in {args.folder / 'study'}")
    _say("2. The node")
    node = stack.enter_context(running(args.folder, _settings(archive)))
    print(f"   listens on 127.0.0.1:{node.port}; its log: {node.log}")
    store = stack.enter_context(node.store())
    _say("3. In by C-STORE")
    _send(study, node.port)
    _say("4. On its way")
    job = _follow(store, study)
    _say("5. Why each route took it or not")
    print(trace(store.trace(study.study_uid)))
    _say("6. What happened to the job")
    print("\n".join(show.job_lines(store.events(job.id))))
    _say("7. What the archive holds")
    client = _client(archive)
    seg = _fetch(client, study, job)
    _say("8. Against the truth")
    card = load_card(ZOO / "phantom")
    labels = _labels(seg, study)
    _compare(labels, study, card)
    picture = draw(study, labels, card, args.folder / "demo.png")
    print(f"\n   picture: {picture}")
    if (status := node.stop()) != 0:
        raise DemoFailed(f"the node ended with status {status}, see {node.log}")


def _say(words: str) -> None:
    print(f"\n{words}", flush=True)


def _settings(archive: Mapping[str, Any]) -> dict[str, Any]:
    """Return what app.yaml says, but for the ports and the archive."""
    shipped: dict[str, Any] = yaml.safe_load(DEFAULT_PATH.read_text(encoding="utf-8"))["node"]
    changes = {
        "archives": {"local": dict(archive)},
        "door": {"port": 0, "open": True, "limits": {"free_gb": 0}},
        "web": {"port": 0},
    }
    return {key: value for key, value in shipped.items() if key != "data"} | changes


def _send(study: StudyFiles, port: int) -> None:
    entity = AE("DEMO")
    entity.add_requested_context(CTImageStorage, "1.2.840.10008.1.2.1")
    assoc = entity.associate("127.0.0.1", port, ae_title="MARGINALIA")
    if not assoc.is_established:
        raise DemoFailed("the node refused the association")
    started = time.monotonic()
    for path in study.paths:
        status = assoc.send_c_store(dcmread(path)).get("Status")
        if status != 0:
            raise DemoFailed(f"{path.name} was answered with status {status}")
    assoc.release()
    seconds = time.monotonic() - started
    print(f"   {len(study.paths)} images, each acknowledged, in {seconds:.1f} s")


def _follow(store: Store, study: StudyFiles) -> Job:
    """Print the events of the study's job as they come; return it when it is done."""
    seen = 0

    def ended() -> Job | None:
        nonlocal seen
        for job in store.jobs(study_uid=study.study_uid):
            lines = show.job_lines(store.events(job.id))
            print(*[f" {line}\n" for line in lines[seen:]], sep="", end="", flush=True)
            seen = len(lines)
            if job.state in {State.DONE, State.FAILED}:
                return job
        return None

    job = wait_until(ended, JOB_S, "the end of the job")
    if job is None or job.state is State.FAILED:
        raise DemoFailed(job.reason if job else "no job was made")
    return job


def _client(archive: Mapping[str, Any]) -> DICOMwebClient | DICOMfileClient:
    if archive["kind"] == "dicomweb":
        return DICOMwebClient(archive["url"])
    return DICOMfileClient(f"file://{archive['path']}", update_db=True)


def _fetch(client: DICOMwebClient | DICOMfileClient, study: StudyFiles, job: Job) -> Dataset:
    """Return the one segmentation that the archive holds of the study."""
    found = client.search_for_instances(study.study_uid, search_filters={"Modality": "SEG"})
    if len(found) != 1:
        raise DemoFailed(f"the archive holds {len(found)} segmentations of the study, not 1")
    uids = Dataset.from_json(found[0])
    seg = client.retrieve_instance(study.study_uid, uids.SeriesInstanceUID, uids.SOPInstanceUID)
    referenced = {each.SeriesInstanceUID for each in seg.ReferencedSeriesSequence}
    if referenced != {study.series_uid}:
        raise DemoFailed("the segmentation refers to another series than the one that was sent")
    print(f"   {seg.SeriesDescription!r}, {seg.NumberOfFrames} frames, of job {job.id}")
    print(f"   instance {seg.SOPInstanceUID}")
    return seg


def _labels(seg: Dataset, study: StudyFiles) -> NDArray[np.uint8]:
    """Return the segments as a label map on the grid of the series that was sent."""
    segmentation = hd.seg.Segmentation.from_dataset(seg)
    labels = segmentation.get_pixels_by_source_instance(
        list(study.sop_uids), combine_segments=True, assert_missing_frames_are_empty=True
    )
    return np.asarray(labels, np.uint8)


def _compare(labels: NDArray[np.uint8], study: StudyFiles, card: ModelCard) -> None:
    truth = study.truth()
    worst = 1.0
    for label in card.labels:
        ours, theirs = labels == label.value, truth == label.value
        dice = 2 * (ours & theirs).sum() / max(ours.sum() + theirs.sum(), 1)
        worst = min(worst, dice)
        print(f"   {label.name:14} Dice {dice:.3f}   {theirs.sum():9,} voxels")
    if worst < GOOD_DICE:
        raise DemoFailed(f"the worst Dice is {worst:.3f}, under {GOOD_DICE}")


if __name__ == "__main__":
    sys.exit(main())
