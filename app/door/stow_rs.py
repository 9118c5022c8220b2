"""STOW-RS: what is asked, and what is answered (PS3.18 10.5)."""

import logging
import time
from datetime import UTC, datetime
from functools import partial

from python_multipart.multipart import parse_options_header
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from app.config_door import Http
from app.dicom.encoded import is_uid
from app.door.body import Body
from app.door.edge import SECURITY_HEADERS, sender
from app.door.intake import Intake
from app.door.slots import RETRY_AFTER, Slots, check_framing, fault_of, refuse_for_now
from app.door.upload import Upload
from app.errors import NodeError
from app.store.store import Store

log = logging.getLogger(__name__)

STUDIES = "/dicom-web/studies"
GIGABYTE = 10**9


class StowRs:
    """The resource that objects are sent to."""

    def __init__(self, config: Http, intake: Intake, store: Store, slots: Slots) -> None:
        self._config = config
        self._intake = intake
        self._store = store
        self._slots = slots
        self.routes = [
            Route(STUDIES, self._store_objects, methods=["POST"]),
            Route(f"{STUDIES}/{{study}}", self._store_objects, methods=["POST"]),
        ]

    async def _store_objects(self, request: Request) -> Response:
        study_uid = request.path_params.get("study")
        if study_uid is not None and not is_uid(study_uid):
            raise HTTPException(400, "the study in the address is no valid UID")
        upload = Upload(
            self._intake,
            source=sender(request),
            study_uid=study_uid,
            boundary=self._check(request),
            max_parts=self._config.max_parts,
        )
        if not self._intake.has_room():
            refuse_for_now("the disk has no space to spare; send again later")
        work = partial(self._work, upload, sender(request), time.monotonic())
        return await self._slots.take(request, self._limit, work)

    def _work(self, upload: Upload, source: str, began: float, body: Body) -> Response:
        """Do in a thread all that may take its time."""
        refusal = upload.take(body.pieces())
        if upload.studies:
            self._release(upload.studies)
        response = _answer(upload, fault_of(body) or refusal)
        log.info(
            "request from %s answered %d after %.1f s and %.1f MB: %s",
            source,
            response.status_code,
            time.monotonic() - began,
            body.size / 1e6,
            ", ".join(f"{n} {what}" for what, n in sorted(upload.answers.items())) or "no objects",
        )
        return response

    def _release(self, studies: set[str]) -> None:
        try:
            self._store.release(sorted(studies), datetime.now(UTC))
        except NodeError as error:
            # the studies are closed by their quiet time instead
            log.error("the end of a request is not noted: %s", error)  # noqa: TRY400

    @property
    def _limit(self) -> int:
        return int(self._config.max_request_gb * GIGABYTE)

    def _check(self, request: Request) -> bytes:
        """Return the boundary of a request whose headers are in order."""
        headers = request.headers
        largest = f"{self._config.max_request_gb:g} GB; send several requests"
        check_framing(headers, self._limit, largest)
        types = headers.getlist("content-type")
        kind, options = parse_options_header(types[0] if len(types) == 1 else "")
        if kind != b"multipart/related":
            raise HTTPException(415, "send multipart/related")
        if options.get(b"type", b"").lower() != b"application/dicom":
            raise HTTPException(415, 'send multipart/related; type="application/dicom"')
        return options.get(b"boundary", b"")


def _answer(upload: Upload, refusal: HTTPException | None) -> Response:
    """Say what became of the objects, and what was wrong with the request as a whole."""
    status = refusal.status_code if refusal else upload.status
    headers = dict(SECURITY_HEADERS)
    if status == 503:  # noqa: PLR2004  # the one that asks for another try
        headers |= RETRY_AFTER
    if not upload.touched and refusal:
        return PlainTextResponse(f"{refusal.detail}\n", status, headers)
    if refusal:
        headers["Warning"] = f'299 marginalia "{refusal.detail}"'
    return Response(upload.listed(), status, headers, "application/dicom+json")
