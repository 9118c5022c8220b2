"""From a job's label map to its results in every form that is asked for; in the stage worker."""

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from app.config import application_version
from app.dicom.volume import load
from app.faults import crash_point
from app.models import load_card
from app.pipeline.infer import LABELS, PROBABILITIES, VOLUMES
from app.results.forms import ENCODED, Form, file_name
from app.results.gate import judge
from app.results.identity import Identity
from app.results.make import Made, make
from app.results.measure import measure
from app.results.result import Result, result_of


def encode(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Make each form of the job's result that was not made before; all are checked first."""
    folder = Path(arguments["folder"])
    bundles = [[Form(form) for form in forms] for forms in arguments["bundles"]]
    wanted = {file_name(form, forms): (form, forms) for forms in bundles for form in forms}
    missing = [each for name, each in wanted.items() if not (folder / ENCODED / name).exists()]
    if missing:
        made = _made(folder, arguments)
        judge(made.result, made.measured)
        for form, forms in missing:
            crash_point("encode")
            make(folder, form, forms, made)
    sizes = {name: (folder / ENCODED / name).stat().st_size for name in sorted(wanted)}
    return {name: f"{size / 1e6:.1f} MB" for name, size in sizes.items()}


def _made(folder: Path, arguments: Mapping[str, Any]) -> Made:
    result = _result(folder, arguments)
    probabilities = folder / PROBABILITIES
    return Made(
        result=result,
        measured=measure(result),
        probabilities=np.load(probabilities, mmap_mode="r") if probabilities.exists() else None,
    )


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
