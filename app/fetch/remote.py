"""Which kind of archive is asked in which way."""

from app.config import Config, DicomwebArchive
from app.dicom.web import Web
from app.errors import ConfigError
from app.fetch.archive import Remote
from app.fetch.dicomweb import DicomwebRemote
from app.pipeline.access import connect
from app.store.store import Store


def remote(config: Config, name: str, _store: Store) -> Remote:
    """Return the archive of that name as one that can be asked; nothing is sent yet."""
    match config.archives[name]:
        case DicomwebArchive() as archive:
            return DicomwebRemote(connect(Web, name, archive))
        case archive:
            raise ConfigError(f"archives.{name}: a {archive.kind} archive cannot be asked")
