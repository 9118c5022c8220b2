"""Results of a synthetic patient, to be delivered."""

from pathlib import Path

from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage

from tests.sockets.scu import new_study


def result(folder: Path, *, size: int = 64, private: bytes = b"") -> Path:
    """Write a result of a synthetic patient; `private` bytes lie inside the object."""
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.SOPClassUID, ds.SOPInstanceUID = SecondaryCaptureImageStorage, new_study()
    ds.StudyInstanceUID, ds.SeriesInstanceUID = new_study(), new_study()
    ds.PatientName, ds.PatientID, ds.Modality = "PHANTOM^RESULT", "PHANTOM", "OT"
    if private:
        block = ds.private_block(0x0099, "PHANTOM", create=True)
        block.add_new(1, "OB", private + b"\0" * (len(private) % 2))
    ds.Rows, ds.Columns, ds.SamplesPerPixel = size // 64, 64, 1
    ds.BitsAllocated = ds.BitsStored = 8
    ds.HighBit, ds.PixelRepresentation, ds.PhotometricInterpretation = 7, 0, "MONOCHROME2"
    ds.PixelData = bytes(size)
    path = folder / f"{ds.SOPInstanceUID}.dcm"
    ds.save_as(path, enforce_file_format=True)
    return path


def uid_of(path: Path) -> str:
    """Return the SOP Instance UID of a result."""
    return path.name.removesuffix(".dcm")
