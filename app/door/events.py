"""What other systems tell us of studies: that one is whole, or that it grew in an archive.

An event brings no objects. It completes a study that was received, or has it fetched.
"""

import base64
import json
import logging
import re
from collections.abc import Collection, Mapping
from datetime import UTC, datetime
from functools import partial
from typing import Any, TypeVar

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from app.dicom.encoded import is_uid
from app.door.body import Body
from app.door.edge import SECURITY_HEADERS, sender
from app.door.slots import Slots, check_framing, whole
from app.store.jobs import StudyRow, StudyState
from app.store.store import Store

log = logging.getLogger(__name__)
Kind = TypeVar("Kind")

STUDY = "/api/studies/{study}"
GOOGLE = "/api/events/google"
MOST = 64 << 10
"""Bytes of a body; an event has some hundred."""

GOOGLE_PATH = re.compile(
    r"projects/[^/\s]+/locations/[^/\s]+/datasets/[^/\s]+/dicomStores/[^/\s]+"
    r"/dicomWeb/studies/([0-9.]+)/series/[0-9.]+/instances/[0-9.]+"
)
HERE = {
    StudyState.ROUTED: "it was whole before; nothing is done",
    StudyState.FAILED: "it could not be read; nothing is done until more of it arrives",
    StudyState.REMOVED: "its objects were removed when their time was over; send it again",
}


class Events:
    """The resources that events are sent to; `sources` are the archives that can be asked."""

    def __init__(self, store: Store, slots: Slots, sources: Collection[str]) -> None:
        self._store = store
        self._slots = slots
        self._sources = frozenset(sources)
        self.routes = [
            Route(STUDY, self._study, methods=["GET", "POST"]),
            Route(GOOGLE, self._google, methods=["POST"]),
        ]

    async def _study(self, request: Request) -> Response:
        study_uid = request.path_params["study"]
        if not is_uid(study_uid):
            raise HTTPException(400, "the study in the address is no valid UID")
        _check(request)
        answer = self._whole if request.method == "POST" else self._state
        return await self._slots.take(request, MOST, partial(answer, request, study_uid))

    async def _google(self, request: Request) -> Response:
        _check(request)
        return await self._slots.take(request, MOST, partial(self._grew, request))

    # -- in a thread -----------------------------------------------------------------------------

    def _whole(self, request: Request, study_uid: str, body: Body) -> Response:
        """Note that the study is whole: here, or in an archive that it is to be fetched from."""
        named = self._named(request, _told(request, whole(body)))
        now, found = datetime.now(UTC), self._store.find_study(study_uid)
        source = named or self._source_of(study_uid, found)
        if source is not None:
            self._store.ask_for(source, study_uid, f"told whole by {sender(request)}", now)
            return _accepted(request, study_uid, f"it is fetched from {source}")
        if found is None:
            raise HTTPException(404, "this study is not here; name the source to get it from")
        if self._store.complete(study_uid, f"told complete by {sender(request)}", now):
            return _accepted(request, study_uid, "it is routed as it is here")
        state = self._store.study(study_uid).state
        words = HERE.get(state, HERE[StudyState.ROUTED])
        return _json(200, {"study": study_uid, "state": state, "message": words})

    def _state(self, _request: Request, study_uid: str, _body: Body) -> Response:
        """Say where the study is on its way, without anything from its headers."""
        found = self._store.find_study(study_uid)
        remotes = self._store.remotes(study_uid)
        if found is None and not remotes:
            raise HTTPException(404, "nothing is known of this study")
        jobs = self._store.jobs(study_uid=study_uid)
        state = {
            "study": study_uid,
            "state": found and found.state,
            "objects": found.instances if found else 0,
            "jobs": [
                {name: getattr(job, name) for name in ("id", "route", "state", "stage", "reason")}
                for job in jobs
            ],
            "sources": [
                {"source": each.source, "state": each.state, "reason": each.reason}
                for each in remotes
            ],
        }
        return _json(200, state)

    def _grew(self, request: Request, body: Body) -> Response:
        """Note what Google tells of one instance: the study is whole when no more is told."""
        study_uid, action = _google_event(_object(whole(body)))
        source = self._named(request, {}) or self._only_source()
        if source is None:
            raise HTTPException(400, "name the source of the event in the address: ?source=NAME")
        if not action.startswith("Delete"):
            self._store.touch(source, study_uid, datetime.now(UTC))
        return Response(status_code=204, headers=SECURITY_HEADERS)

    # -- which archive ---------------------------------------------------------------------------

    def _named(self, request: Request, told: Mapping[str, Any]) -> str | None:
        """Return the source that the event names, in its address or its body."""
        given = [*request.query_params.multi_items(), *told.items()]
        if not all(key == "source" for key, _ in given):
            raise HTTPException(400, "an event has one key, source, and no other")
        names = {value if isinstance(value, str) else "" for _, value in given}
        if len(names) > 1:
            raise HTTPException(400, "the event names two sources; name one")
        if names - self._sources:
            raise HTTPException(400, "no source has this name; app.yaml lists them under sources:")
        return next(iter(names), None)

    def _source_of(self, study_uid: str, found: StudyRow | None) -> str | None:
        """Return the source of an event that names none: where the study lies, if that is sure.

        What a source lists is asked for there also when a part of it is here: that part may be on
        its way right now.
        """
        listed = {each.source for each in self._store.remotes(study_uid)} & self._sources
        if len(listed) == 1:
            return listed.pop()
        here = found is not None and found.state is not StudyState.REMOVED
        return None if here else self._only_source()

    def _only_source(self) -> str | None:
        return next(iter(self._sources)) if len(self._sources) == 1 else None


def _check(request: Request) -> None:
    """Refuse by its headers what is no event."""
    check_framing(request.headers, MOST, f"{MOST} bytes")
    if request.method == "POST" and "origin" in request.headers:
        raise HTTPException(403, "events come from systems, not from pages in a browser")


def _told(request: Request, content: bytes) -> dict[str, Any]:
    """Return the JSON object of a body that may be empty."""
    if not content:
        return {}
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise HTTPException(415, "send application/json, or no body")
    return _object(content)


def _object(content: bytes) -> dict[str, Any]:
    try:
        found = json.loads(content)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise HTTPException(400, "the body is no JSON object")
    return found


def _google_event(envelope: Mapping[str, Any]) -> tuple[str, str]:
    """Return the study and the action of a Pub/Sub message of the Cloud Healthcare API."""
    message = _part(envelope, "message", dict)
    try:
        path = base64.b64decode(_part(message, "data", str), validate=True).decode("ascii")
    except ValueError:
        path = ""
    found = GOOGLE_PATH.fullmatch(path)
    if found is None or not is_uid(found[1]):
        raise HTTPException(400, "message.data is not the path of an instance in a DICOM store")
    return found[1], _part(_part(message, "attributes", dict), "action", str)


def _part(whole_of_it: Mapping[str, Any], key: str, kind: type[Kind]) -> Kind:
    """Return a part of a JSON object; an empty one where it is missing or of another kind."""
    found = whole_of_it.get(key)
    return found if isinstance(found, kind) else kind()


def _accepted(request: Request, study_uid: str, words: str) -> Response:
    log.info("%s says that study %s is whole: %s", sender(request), study_uid, words)
    return _json(202, {"study": study_uid, "message": words})


def _json(status: int, content: Mapping[str, Any]) -> Response:
    return JSONResponse(content, status, SECURITY_HEADERS)
