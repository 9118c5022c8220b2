"""One picture of a result as a Secondary Capture (PS3.3 A.8.1), for all who cannot show a SEG."""

from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage

from app.results.derived import derived, instance_references
from app.results.describe import content
from app.results.forms import Form
from app.results.montage import montage
from app.results.result import Result

_LOSS = ("LossyImageCompression", "LossyImageCompressionRatio", "LossyImageCompressionMethod")


def encode_overview(result: Result) -> Dataset:
    """Return the picture; no pixel of it says whose it is, and it is not to be measured."""
    ds = derived(
        result,
        Form.OVERVIEW,
        sop_class=SecondaryCaptureImageStorage,
        transfer_syntax=ExplicitVRLittleEndian,
        modality="OT",  # a picture of CT slices is no CT: no route may take it for one
    )
    ds.Laterality = ""
    ds.ConversionType = "WSD"
    ds.ImageType = ["DERIVED", "SECONDARY"]
    ds.ImageComments = content(result.version)
    ds.DerivationDescription = "Axial slices with the outlines of segments"
    ds.SourceImageSequence = instance_references(result)
    ds.PatientOrientation = ["L", "P"]
    ds.BurnedInAnnotation = "NO"  # of what identifies the patient, PS3.3 C.7.6.1
    ds.RecognizableVisualFeatures = "NO"
    for keyword in _LOSS:  # a source that lost something has lost it here
        if keyword in (first := result.sources.headers[0]):
            ds[keyword] = first[keyword]
    ds.setdefault("LossyImageCompression", "00")
    picture = montage(result)
    ds.Rows, ds.Columns = picture.shape[:2]
    ds.SamplesPerPixel, ds.PhotometricInterpretation, ds.PlanarConfiguration = 3, "RGB", 0
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 8, 8, 7, 0
    pixels = picture.tobytes()
    ds.PixelData = pixels + b"\0" * (len(pixels) % 2)
    ds["PixelData"].VR = "OB"
    result.sources.identify(ds)
    return ds
