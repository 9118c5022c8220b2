"""Tells a Marginalia node that a study in this Orthanc is stable; README.md has the configuration.

Orthanc's list of changes is the queue, and a file says how far the node was told: none of them is
lost while the node is down. Runs inside Orthanc and needs nothing but Python's own library.
"""

import json
import ssl
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from pathlib import Path
from threading import Event, Thread
from typing import Any
from urllib.parse import urlsplit

import orthanc

OURS = "Marginalia"  # Manufacturer of the node's own results
PAUSES_S = (1, 2, 5, 15, 60)
FAILURES = (OSError, ValueError, KeyError, HTTPException, orthanc.OrthancException)
FOR_GOOD = {400, 404, 413}  # what the node refuses so is not told again

configuration = json.loads(orthanc.GetConfiguration())
settings = configuration["Marginalia"]
noted = Path(configuration["StorageDirectory"]) / "marginalia.json"
changed, stopping = Event(), Event()
told: dict[str, str] = {}  # study → when it last grew by something that is not ours


def follow() -> None:
    """Catch up with the list of changes, and begin again where it failed, until Orthanc stops."""
    failures = 0
    while not stopping.is_set():
        changed.clear()
        try:
            while not catch_up():
                pass
            failures, pause = 0, PAUSES_S[-1]
        except FAILURES as error:
            failures, pause = failures + 1, PAUSES_S[min(failures, len(PAUSES_S) - 1)]
            orthanc.LogWarning(f"Marginalia: {type(error).__name__}; again in {pause} s")
        changed.wait(pause)


def catch_up() -> bool:
    """Tell what is new since the number in the file; True when there is no more of it."""
    if not noted.exists():  # the first time: what is here already is old
        note(get("/changes?last")["Last"])
    page = get(f"/changes?since={json.loads(noted.read_text())['told']}&limit=500")
    for change in page["Changes"]:
        if stopping.is_set():
            return True
        if change["ChangeType"] == "StableStudy":
            tell(change["ID"])
            note(change["Seq"])
    note(page["Last"])
    return bool(page["Done"])


def note(number: int) -> None:
    """Write down how far the node was told."""
    partial = noted.with_suffix(".partial")
    partial.write_text(json.dumps({"told": number}))
    partial.replace(noted)


def tell(study: str) -> None:
    """Say that the study is whole, unless it only grew by the node's own results."""
    try:
        uid = get(f"/studies/{study}")["MainDicomTags"]["StudyInstanceUID"]
        series = [each for each in get(f"/studies/{study}/series") if not is_ours(each)]
    except orthanc.OrthancException:
        return  # it was deleted meanwhile
    newest = max((each["LastUpdate"] for each in series), default=None)
    if told.get(study) != newest:
        if "Modality" in settings:
            send([each["ID"] for each in series])
        post(uid)
        told[study] = newest


def is_ours(series: dict[str, Any]) -> bool:
    """Return whether the node made the series."""
    return series["MainDicomTags"].get("Manufacturer") == OURS


def send(series: list[str]) -> None:
    """Bring the objects to the node by C-STORE and wait for the end of that."""
    order = json.dumps({"Resources": series, "Synchronous": False})
    job = json.loads(orthanc.RestApiPost(f"/modalities/{settings['Modality']}/store", order))["ID"]
    while (state := get(f"/jobs/{job}")["State"]) in {"Pending", "Running", "Retry"}:
        if stopping.wait(0.5):
            raise InterruptedError
    if state != "Success":
        raise ConnectionError(state)


def post(uid: str) -> None:
    """Tell the node, which is asked directly: no proxy, and nowhere else than told."""
    url = urlsplit(settings["Url"])
    if url.scheme == "https":
        context = ssl.create_default_context(cafile=settings.get("Authorities"))
        node = HTTPSConnection(url.netloc, timeout=10, context=context)
    else:
        node = HTTPConnection(url.netloc, timeout=10)
    source = settings.get("Source") if "Modality" not in settings else None
    path = f"{url.path}/api/studies/{uid}" + (f"?source={source}" if source else "")
    node.request("POST", path, b"", {"Authorization": f"Bearer {settings['Token']}"})
    status = node.getresponse().status
    node.close()
    if status not in {200, 202}:
        orthanc.LogWarning(f"Marginalia: study {uid}: the node answers {status}")
        if status not in FOR_GOOD:
            raise ConnectionError(status)


def get(path: str) -> Any:
    """Ask Orthanc itself."""
    return json.loads(orthanc.RestApiGet(path))


def on_change(kind: int, _level: int, _resource: str) -> None:
    """Wake the thread and no more: Orthanc waits for us here."""
    if kind == orthanc.ChangeType.ORTHANC_STARTED:
        follower.start()
    elif kind == orthanc.ChangeType.STABLE_STUDY:
        changed.set()
    elif kind == orthanc.ChangeType.ORTHANC_STOPPED:
        stopping.set()
        changed.set()
        follower.join(15)


follower = Thread(target=follow, name="marginalia", daemon=True)
orthanc.RegisterOnChangeCallback(on_change)
