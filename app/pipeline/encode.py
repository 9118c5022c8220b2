"""From a job's label map to its results in every form that is asked for; in the stage worker."""

import logging
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from app.config import application_version
from app.dicom.volume import load
from app.faults import crash_point
from app.files import make_folder
from app.models import load_card
from app.pipeline.infer import LABELS, VOLUMES
from app.results.forms import ENCODED, Form, file_name
from app.results.identity import Identity
from app.results.result import Result, result_of
from app.results.segmentation import write_seg

log = logging.getLogger(__name__)


def encode(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Make each form of the job's result that was not made before; all are checked first."""
    folder = Path(arguments["folder"])
    make_folder(folder / ENCODED)
    bundles = [[Form(form) for form in forms] for forms in arguments["bundles"]]
    wanted = {file_name(form, forms): (form, forms) for forms in bundles for form in forms}
    missing = {n: each for n, each in wanted.items() if not (folder / ENCODED / n).exists()}
    if missing:
        result = _result(folder, arguments)
        for name, (form, forms) in missing.items():
            crash_point("encode")
            write_seg(folder, result)
    sizes = {name: (folder / ENCODED / name).stat().st_size for name in sorted(wanted)}
    return {name: f"{size / 1e6:.1f} MB" for name, size in sizes.items()}


def _result(folder: Path, arguments: Mapping[str, Any]) -> Result:
    volume = load(folder / VOLUMES, arguments["role"])
    return result_of(
        np.load(folder / LABELS, allow_pickle=False),
        volume,
        [arguments["files"][uid] for uid in dict.fromkeys(volume.sop_uids)],
        card=load_card(Path(arguments["card"])),
        identity=Identity(**arguments["identity"]),
        version=arguments["version"],
        node_version=application_version(),
        now=datetime.now(UTC),
    )
