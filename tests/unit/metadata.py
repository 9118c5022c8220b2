"""Headers of series as an archive tells them: no pixels, no files, obviously synthetic."""

from collections.abc import Callable
from typing import Any

from pydicom.dataset import Dataset
from pydicom.uid import CTImageStorage, MRImageStorage, PositronEmissionTomographyImageStorage

from app.dicom.facts import FACTS
from app.dicom.headers import headers_of

Edit = Callable[[Dataset, int], None]

SOP_CLASSES = {
    "CT": CTImageStorage,
    "MR": MRImageStorage,
    "PT": PositronEmissionTomographyImageStorage,
}
STEP_MM = 2.0


def header(k: int = 0, **values: Any) -> Dataset:
    """Return the header of axial image `k`; None takes an attribute away."""
    ds = Dataset()
    ds.StudyInstanceUID, ds.SeriesInstanceUID = "2.25.1", "2.25.2"
    ds.SOPInstanceUID = f"2.25.3.{k + 1}"
    ds.Modality = values.get("Modality", "CT")
    ds.SOPClassUID = SOP_CLASSES.get(ds.Modality, CTImageStorage)
    ds.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    ds.FrameOfReferenceUID = "2.25.4"
    ds.ImagePositionPatient = [-100, -80, STEP_MM * k]
    ds.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    ds.PixelSpacing = [0.5, 0.5]
    ds.Rows, ds.Columns = 400, 512
    ds.PatientID = "PHANTOM-1"
    for keyword, value in values.items():
        if value is not None:
            setattr(ds, keyword, value)
        elif keyword in ds:
            delattr(ds, keyword)
    return ds


def headers(count: int = 4, edit: Edit | None = None, **values: Any) -> list[Dataset]:
    """Return the headers of a series of axial images."""
    made = [header(k, **values) for k in range(count)]
    for k, ds in enumerate(made):
        if edit:
            edit(ds, k)
    return made


def facts(count: int = 4, edit: Edit | None = None, **values: Any) -> Any:
    """Return the facts of one series."""
    (one,) = headers_of(headers(count, edit, **values))
    found = one.series().facts
    assert found.keys() <= FACTS.keys()
    return found


def each(**values: Callable[[int], Any]) -> Edit:
    """Return an edit that sets attributes by the number of the image."""

    def edit(ds: Dataset, k: int) -> None:
        for keyword, value in values.items():
            setattr(ds, keyword, value(k))

    return edit
