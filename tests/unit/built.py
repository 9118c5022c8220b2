"""Series without files, built from a few words: what the headers of a clean stack would say."""

from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from app.config_routes import Route
from app.dicom.series import Scalar, Series

MM = {"CT": 1.5, "PT": 3.0, "MR": 1.0}
FRAME = "2.25.9000"


def several(value: Any) -> tuple[Scalar, ...]:
    """Return one value or several as a tuple."""
    return tuple(value) if isinstance(value, list | tuple) else (value,)


def series(
    uid: str,
    modality: str = "CT",
    slices: int = 100,
    *,
    frame: str | None = FRAME,
    tags: Mapping[str, Any] | None = None,
    patients: Sequence[str] = ("a",),
    **facts: Any,
) -> Series:
    """Return a clean axial stack, changed as told; a fact that is None is not known."""
    spacing_mm = facts.get("spacing_mm") or MM.get(modality, 1.0)
    known = {
        "slices": slices,
        "positions": slices,
        "per_position": 1,
        "time_points": 1,
        "duplicates": 0,
        "spacing_mm": spacing_mm,
        "spacing_deviation": 0.0,
        "missing_slices": 0,
        "orientation": "axial",
        "orientations": 1,
        "tilt_deg": 0.0,
        "extent_mm": round(slices * spacing_mm, 3),
        "sizes": 1,
        "placed": "yes",
        "frames_of_reference": 1,
        "kind": "original",
        "multi_frame": "no",
        "lossy": "no",
        "own": "no",
    }
    said = {
        "Modality": modality,
        "PhotometricInterpretation": "MONOCHROME2",
        "SliceThickness": spacing_mm,
        "FrameOfReferenceUID": frame,
        **(tags or {}),
    }
    return Series(
        study_uid="2.25.1",
        series_uid=uid,
        sop_uids=tuple(sorted(f"{uid}.{n}" for n in range(slices))),
        tags={key: several(value) for key, value in said.items() if value is not None},
        facts={key: several(v) for key, v in (known | facts).items() if v is not None},
        patients=tuple(patients),
    )


def routes(text: str) -> dict[str, Route]:
    """Return the routes of a piece of YAML by name; model and archive are filled in."""
    made = [
        Route.model_validate({"model": "m", "deliver_to": ["a"]} | each)
        for each in yaml.safe_load(text)
    ]
    return {route.name: route for route in made}
