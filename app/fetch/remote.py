"""Which kind of archive is asked in which way."""

from app.config import Config
from app.config_archives import DicomwebArchive, DimseArchive
from app.dicom.web import Web
from app.errors import ConfigError
from app.fetch.archive import Remote
from app.fetch.dicomweb import DicomwebRemote
from app.fetch.dimse import DimseRemote
from app.pipeline.access import connect
from app.store.store import Store


def remote(config: Config, name: str, store: Store | None) -> Remote:
    """Return the archive of that name as one that can be asked; nothing is sent yet.

    The store sees what C-MOVE brings; who only asks needs none.
    """
    match config.archives[name]:
        case DicomwebArchive() as archive:
            return DicomwebRemote(connect(Web, name, archive))
        case DimseArchive() as archive:
            return DimseRemote(
                name,
                archive,
                destination=config.door.ae_title,
                held=lambda study_uid: {
                    row.sop_uid for row in (store.instances(study_uid) if store else ())
                },
            )
        case archive:
            raise ConfigError(f"archives.{name}: a {archive.kind} archive cannot be asked")
