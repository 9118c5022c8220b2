"""The door's HTTP port in this process, with archives that can be asked, for tests of events."""

import base64
from collections.abc import Collection, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Self

import pytest
import requests
from pysqlite3 import dbapi2
from sqlalchemy import delete

from app.config_door import Http, Limits, Tls
from app.door.intake import Intake
from app.door.web import WebServer
from app.pipeline.receive import prepare
from app.store.store import Store
from app.store.tables import RemoteStudies
from tests.log_rows import START, instance, new_job
from tests.sockets.scu import Made, new_study
from tests.sockets.stows import BEARER, RELATED, SECRETS, Raw, part10, related

LIMITS = Limits(free_gb=0, header_s=1, idle_s=2)


class EventPort:
    """One HTTP port with a job log; it can be closed and opened again on the same port."""

    def __init__(
        self, folder: Path, sources: Collection[str] = ("pacs",), tls: Tls | None = None
    ) -> None:
        self._data = folder / "data"
        prepare(self._data)
        self.store = Store.open(self._data / "node.db", timeout_s=0.5)
        self.intake = Intake(self._data, self.store, LIMITS)
        self._sources = sources
        self._tls = tls
        self._server: WebServer | None = None
        self.port = 0

    def __enter__(self) -> Self:
        self.open()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
        self.intake.close()
        self.store.close()

    def open(self) -> None:
        """Listen, at first on any port and then on the same one."""
        config = Http(port=self.port, token_env="STOW_TOKEN", tls=self._tls)  # noqa: S106  # a name
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("STOW_TOKEN", SECRETS["STOW_TOKEN"])
            self._server = WebServer(
                config, LIMITS, intake=self.intake, store=self.store, sources=self._sources
            )
        self.port = self._server.open()

    def close(self) -> None:
        """Answer nobody any more."""
        if self._server is not None:
            self._server.close(3)
        self._server = None

    @property
    def url(self) -> str:
        """Root of the port."""
        return f"http{'s' if self._tls else ''}://127.0.0.1:{self.port}"

    def ask(self, path: str, method: str = "POST", **given: Any) -> requests.Response:
        """Send one request with the right credentials, unless others are given."""
        headers = BEARER | given.pop("headers", {})
        return requests.request(method, self.url + path, headers=headers, timeout=20, **given)

    def store_object(self, made: Made) -> int:
        """Send an object by STOW-RS and return the status."""
        kind = {"Content-Type": RELATED}
        return self.ask(
            "/dicom-web/studies", data=related([part10(made)]), headers=kind
        ).status_code

    def raw(self) -> Raw:
        """Open a bare connection."""
        return Raw(self.port)

    @contextmanager
    def busy(self) -> Iterator[None]:
        """Let nobody write to the job log inside the block, as another process could."""
        with closing(dbapi2.connect(str(self._data / "node.db"), isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            yield

    def forget(self) -> None:
        """Forget what is noted of archives."""
        with self.store._database.writing() as connection:
            connection.execute(delete(RemoteStudies))

    def asked(self) -> dict[str, tuple[str, str]]:
        """Return study → source and state of what lies in archives."""
        return {each.study_uid: (each.source, each.state) for each in self.store.remotes()}


def received(port: EventPort, *, state: str = "open") -> str:
    """Return a study that is here, in a state."""
    study_uid = new_study()
    port.store.add_instance(instance(f"{study_uid}.1.1", study_uid), START)
    if state == "routed":
        port.store.route_study(study_uid, 1, None, [new_job(study_uid[-8:], study_uid)], START)
    if state == "failed":
        port.store.fail_study(study_uid, 1, "no pixels", START)
    return study_uid


def google(path: str, **attributes: str) -> dict[str, Any]:
    """Return a Pub/Sub message about a path."""
    data = base64.b64encode(path.encode()).decode()
    message = {"data": data, "messageId": "1", "attributes": attributes}
    return {"message": message, "subscription": "projects/p/subscriptions/s"}


def google_path(study_uid: str) -> str:
    """Return the path of an instance in a DICOM store."""
    store = "projects/p/locations/l/datasets/d/dicomStores/s"
    return f"{store}/dicomWeb/studies/{study_uid}/series/1.2/instances/1.3"
