"""From a job's label map to its encoded results; runs in the stage worker."""

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from app.config import application_version
from app.dicom.volume import load
from app.faults import crash_point
from app.files import durable, make_folder
from app.models import load_card
from app.pipeline.infer import LABELS, VOLUMES
from app.results.check import check_seg
from app.results.identity import Identity
from app.results.result import result_of
from app.results.segmentation import SEG, write_seg


def encode(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Encode the job's label map unless that was done before."""
    folder = Path(arguments["folder"])
    path = folder / SEG
    if not path.exists():
        volume = load(folder / VOLUMES, arguments["role"])
        crash_point("encode")
        result = result_of(
            np.load(folder / LABELS, allow_pickle=False),
            volume,
            [arguments["files"][uid] for uid in dict.fromkeys(volume.sop_uids)],
            card=load_card(Path(arguments["card"])),
            identity=Identity(**arguments["identity"]),
            version=arguments["version"],
            node_version=application_version(),
            now=datetime.now(UTC),
        )
        make_folder(path.parent)
        with durable(path) as file:
            write_seg(file, result)
            file.flush()
            check_seg(Path(file.name), result)
    return {"seg": f"{path.stat().st_size / 1e6:.1f} MB"}
