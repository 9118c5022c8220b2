"""A sender: C-STORE over a real association."""

from collections.abc import Iterable
from pathlib import Path

from pydicom import dcmread
from pynetdicom import AE

TITLE = "MARGINALIA"


def send(paths: Iterable[Path], port: int) -> list[int]:
    """Send the files in one association; return the statuses."""
    datasets = [dcmread(path) for path in paths]
    entity = AE("SENDER")
    for sop_class, syntax in {(ds.SOPClassUID, ds.file_meta.TransferSyntaxUID) for ds in datasets}:
        entity.add_requested_context(sop_class, syntax)
    assoc = entity.associate("127.0.0.1", port, ae_title=TITLE)
    assert assoc.is_established, "the node refused the association"
    statuses = [int(assoc.send_c_store(ds).Status) for ds in datasets]
    assoc.release()
    return statuses
