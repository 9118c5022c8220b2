"""The independent judges of DICOM objects: dicom3tools for each of them, PixelMed for reports.

Each function returns what a judge holds against the files, a line each; nothing to say is an
empty list. A test that calls one asks with `require` for its program first.
"""

import os
import subprocess
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.peers import find

TOOL_IS_OLDER = (
    "DeviceUID",  # in contributing equipment
    "needed to build DICOMDIR",  # what a study without a date is not
)
"""Parts of remarks that are not counted: dicom3tools of 2022 is older than that attribute."""

_JAVA = (
    # Java 17 limits XPath so far that PixelMed's style sheets are refused (JAXP0801003).
    *("-Djdk.xml.xpathExprOpLimit=0", "-Djdk.xml.xpathTotalOpLimit=0"),
    "-Djdk.xml.xpathExprGrpLimit=0",
    # It lives for seconds: compiling well and collecting in parallel costs more than it saves.
    *("-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Xshare:auto"),
)


def dciodvfy(path: Path, ignoring: Iterable[str] = TOOL_IS_OLDER) -> list[str]:
    """Return the errors and warnings of one object, without those that say a part of `ignoring`."""
    said = _said("dciodvfy", "-new", str(path))
    return [
        line
        for line in said
        if line.startswith(("Error", "Warning")) and not any(each in line for each in ignoring)
    ]


def dcentvfy(paths: Iterable[Path]) -> list[str]:
    """Return where objects contradict each other about their patient, study, series or frame."""
    return _said("dcentvfy", *map(str, paths))


def sr_validator(paths: Iterable[Path]) -> dict[Path, list[str]]:
    """Return the errors and warnings of each report, by PixelMed's DicomSRValidator.

    It takes one file at a time and seconds for it, so two are judged at once.
    """
    files = [*paths]
    with ThreadPoolExecutor(2) as pool:
        return dict(zip(files, pool.map(_judge_report, files), strict=True))


def _judge_report(path: Path) -> list[str]:
    said = _said("DicomSRValidator", str(path), JAVA_TOOL_OPTIONS=" ".join(_JAVA))
    assert any(line.startswith("IOD validation complete") for line in said), said
    return [line for line in said if line.startswith(("Error", "Warning"))]


def _said(tool: str, *arguments: str, **environment: str) -> list[str]:
    judged = subprocess.run(
        [find(tool) or tool, *arguments],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
        timeout=120,
    )
    said = [line.strip() for line in (judged.stdout + judged.stderr).splitlines()]
    return [line for line in said if line and not line.startswith("Picked up JAVA_TOOL_OPTIONS")]
