"""A `dimse` archive of the configuration → the line on which it is called."""

from app.config_archives import DimseArchive
from app.dicom.association import Peer
from app.dicom.calling import Line
from app.tls import client_context


def line_to(name: str, archive: DimseArchive) -> Line:
    """Return the line to the archive called `name`; nothing is sent yet."""
    tls = client_context(archive.tls, f"archives.{name}.tls") if archive.tls else None
    peer = Peer(
        name=name,
        host=archive.host,
        port=archive.port,
        called=archive.ae_title,
        calling=archive.calling_ae_title or "MARGINALIA",
        timeout_s=archive.timeout_s,
        tls=tls,
    )
    return Line(peer)
