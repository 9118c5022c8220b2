"""What our side of a DICOM association says: syntaxes, statuses and who we are."""

import logging
from enum import IntEnum

from pydicom.uid import (
    HTJ2K,
    JPEG2000,
    MPEG2MPHL,
    MPEG2MPML,
    MPEG4HP41,
    MPEG4HP41BD,
    UID,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    HTJ2KLossless,
    HTJ2KLosslessRPCL,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
)

IMPLEMENTATION_UID = UID("2.25.221385976142301966194951293035974212952")
IMPLEMENTATION_NAME = "MARGINALIA"

# Best first: an acceptor takes the first of the peer's proposals that stands in this list.
# Deflated is not offered: one megabyte on the wire can become gigabytes in memory.
TRANSFER_SYNTAXES = (
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEGLosslessSV1,
    JPEGLossless,
    JPEGLSLossless,
    JPEG2000Lossless,
    HTJ2KLossless,
    HTJ2KLosslessRPCL,
    RLELossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLSNearLossless,
    JPEG2000,
    HTJ2K,
    MPEG2MPML,
    MPEG2MPHL,
    MPEG4HP41,
    MPEG4HP41BD,
    ExplicitVRBigEndian,
)


class Status(IntEnum):
    """What we answer to a C-STORE (PS3.7 Annex C, PS3.4 B.2.3); `words` go along with it."""

    SUCCESS = 0x0000
    """Kept: the object and its row survive a power cut, or the identical one is held already."""
    OUR_FAULT = 0x0110
    """A fault of ours; sending again may help."""
    NOT_NEGOTIATED = 0x0122
    """The SOP class is not the one of the presentation context."""
    OUT_OF_RESOURCES = 0xA700
    """No space, or the job log is busy; sending again later helps."""
    UIDS_DIFFER = 0xA900
    """Command and data set name different objects or classes."""
    UNREADABLE = 0xC000
    """Not a complete data set with the four UIDs."""
    OTHER_CONTENT = 0xC0DF
    """Another object is held under this SOP Instance UID; both are kept, a person must look."""

    @property
    def words(self) -> str:
        """The sentence for the sender's log."""
        return _WORDS[self]


_WORDS = {
    Status.SUCCESS: "",
    Status.OUR_FAULT: "receiver failed, please send again",
    Status.NOT_NEGOTIATED: "SOP class differs from presentation context",
    Status.OUT_OF_RESOURCES: "receiver is out of resources, send again later",
    Status.UIDS_DIFFER: "UIDs of command and data set differ",
    Status.UNREADABLE: "data set is truncated, malformed or lacks UIDs",
    Status.OTHER_CONTENT: "this UID is held with other content, both are kept",
}


SOP_CLASS_NOT_SUPPORTED = 0x0122
"""An archive's word on an object of ours (PS3.7 Annex C, PS3.18 table I.2-2)."""
STORED_ALL_THE_SAME = {
    0xB000: "it changed elements",
    0xB006: "it left out elements",
    0xB007: "it found the data set odd",
}
"""An archive's warnings, in words (PS3.4 table B.2-1, PS3.18 table I.2-1): the object is kept."""


def printable(ae_title: str) -> str:
    """Return a peer's AE title fit for a log line: printable ASCII, at most 16 characters."""
    return "".join(c if " " < c <= "~" else "?" for c in ae_title.strip()[:16])


def silence_pynetdicom() -> None:
    """Keep the library from writing what a peer sent into the log, and from spending time on it.

    It logs unsanitised AE titles and a traceback for each broken connection.
    """
    from pynetdicom import _config  # noqa: PLC0415  # importing it configures logging

    _config.LOG_HANDLER_LEVEL = "none"
    _config.LOG_REQUEST_IDENTIFIERS = False
    _config.LOG_RESPONSE_IDENTIFIERS = False
    logger = logging.getLogger("pynetdicom")
    logger.setLevel(logging.CRITICAL + 1)
    logger.propagate = False
