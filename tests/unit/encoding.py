"""A small series and its encoding, for the tests of all that makes a SEG."""

from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from app.dicom.volume import Volume, build_volume
from app.results.check import check_seg
from app.results.result import Result, result_of
from app.results.segmentation import encode_seg, write_seg
from tests.properties.strategies import Edit, axial, identity, tiny_card, write_series

NOW = datetime(2024, 3, 4, 5, 6, 7, tzinfo=UTC)


POOR = (
    "AccessionNumber",
    "Manufacturer",
    "PatientBirthDate",
    "PatientID",
    "PatientName",
    "PatientSex",
    "PositionReferenceIndicator",
    "ReferringPhysicianName",
    "SeriesNumber",
    "SliceThickness",
    "StudyDate",
    "StudyID",
    "StudyTime",
)


def poor(ds: Dataset, _: int) -> None:
    """Take away everything that an image can be without."""
    for keyword in POOR:
        delattr(ds, keyword)


def organs() -> NDArray[np.uint8]:
    """Return a label map of the small axial series: value 1 on two slices, 2 on one."""
    labels = np.zeros((4, 5, 6), np.uint8)
    labels[1:3, 1:3, 2] = 1
    labels[3, 4, 5] = 2
    return labels


def oblique() -> NDArray[Any]:
    """Return an affine that is turned and whose pixels are oblong."""
    affine, _ = axial(spacing=(2.5, 0.8, 1.7))
    cosine, sine = np.cos(0.4), np.sin(0.4)
    affine[:3, :3] = [[cosine, -sine, 0], [sine, cosine, 0], [0, 0, 1]] @ affine[:3, :3]
    return np.asarray(affine)


class Case:
    """A small series in a folder, and its encoding with what the test does not vary filled in."""

    def __init__(self, folder: Path, edit: Edit | None = None, affine: Any = None) -> None:
        straight, voxels = axial()
        self.folder = folder
        self.paths = write_series(
            folder, straight if affine is None else affine, voxels, (2, 0, 3, 1), edit
        )
        self.volume: Volume = build_volume(self.paths)

    def result(self, labels: Any = None, **changed: Any) -> Result:
        """Return what the encoders take."""
        given = {"card": tiny_card(), "identity": identity(), "node_version": "0.1.0", "now": NOW}
        return result_of(
            organs() if labels is None else labels,
            self.volume,
            changed.pop("paths", self.paths),
            **(given | changed),
        )

    def encode(self, labels: Any = None, **changed: Any) -> Dataset:
        """Encode in memory."""
        return encode_seg(self.result(labels, **changed))

    def write(self, labels: Any = None, **changed: Any) -> Path:
        """Encode into the folder and check what was written."""
        result = self.result(labels, **changed)
        path = self.folder / "seg.dcm"
        with path.open("wb") as file:
            write_seg(file, result)
        check_seg(path, result)
        return path


def as_bytes(seg: Dataset) -> bytes:
    """Return the file that `seg` becomes."""
    file = BytesIO()
    seg.save_as(file)
    return file.getvalue()
