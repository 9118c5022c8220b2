"""The trace of a study in words: what each route says of it, which series fit, and why not.

What matters most stands first: the verdict, then for each input the series that is taken, those
that fit as well, those that a gate stopped, those that fail a condition. Series of which the same
is to be said share a line.
"""

from collections.abc import Iterator, Mapping, Sequence
from textwrap import shorten
from typing import Any

from app.dicom.series import PART_MARK
from app.pipeline.conditions import tail
from app.pipeline.rehearse import verdicts_of

WIDTH = 110
"""Longer sets of reasons take a line each."""
_NAMED = 4
"""How many series are named on one line."""
_BRIEF = ("no series fits", "no series goes with the other inputs")
"""Reasons whose brackets repeat the lines of the series."""

Part = Mapping[str, Any]


def trace(routed: Part | None) -> str:
    """Return the decision trace of a study: every route, role, series and what failed."""
    if routed is None:
        return "not routed yet"
    return "\n".join(_lines(routed))


def _lines(routed: Part) -> Iterator[str]:
    routes, labels = verdicts_of(routed), routed.get("series", {})
    if routed.get("alarm"):
        yield f"ALARM: {routed['alarm']}"
    else:
        taken = [verdict["route"] for verdict in routes if verdict["taken"]]
        names = f": {', '.join(taken)}" if taken else ""
        yield f"{len(taken)} of {len(routes)} routes take it{names}"
    if routed.get("signal"):
        yield f"complete: {routed['signal']}"
    if routed.get("note"):
        yield f"note: {routed['note']}"
    for verdict in sorted(routes, key=lambda verdict: not verdict["taken"]):
        yield from _verdict_lines(verdict, labels)
    yield from _guarded_lines(routes, labels)


def _verdict_lines(verdict: Part, labels: Mapping[str, str]) -> Iterator[str]:
    mode = f", {verdict['mode']}" if verdict["taken"] and verdict["mode"] != "live" else ""
    word = f"TAKEN{mode}" if verdict["taken"] else "not taken"
    if verdict["mode"] == "off":
        word += ", the route is off"
    yield ""
    yield f"{word}: route {verdict['route']} → model {verdict['model']}"
    yield from (f"  ✗ study: {_failed(check)}" for check in verdict["study"] if not check["holds"])
    for role, told in verdict["roles"].items():
        yield f"  {role}: {_of_role(told)}"
        yield from _candidate_lines(verdict, role, labels)
        yield from (
            f"    {'✓' if each['holds'] else '✗'} pair: {_failed(each)}"
            for each in verdict["relations"]
            if each["role"] == role and each["holds"] is verdict["taken"]
        )


def _of_role(told: str) -> str:
    """Leave out what the lines below say of each series."""
    return next((brief for brief in _BRIEF if told.startswith(f"{brief} (")), told)


def _candidate_lines(verdict: Part, role: str, labels: Mapping[str, str]) -> Iterator[str]:
    chosen = {pick[role] for pick in verdict["picks"]}
    groups: dict[tuple[int, str, tuple[str, ...]], list[str]] = {}
    for each in verdict["candidates"]:
        if each["role"] == role and not each["guard"]:
            groups.setdefault(_said(each, chosen), []).append(each["series_uid"])
    for (_, word, reasons), uids in sorted(groups.items(), key=lambda group: group[0][0]):
        everyone = len(groups) == 1 and len(uids) > 1 and not chosen
        names = f"all {len(uids)} series" if everyone else _names(uids, labels)
        yield from _group_lines(word, reasons, names)


def _said(candidate: Part, chosen: set[str]) -> tuple[int, str, tuple[str, ...]]:
    """Return the place of a series among the others, and what is said of it."""
    if candidate["series_uid"] in chosen:
        return 0, "● taken", ()
    if candidate["fits"]:
        return 1, "○ fits", ()
    if candidate["gates"]:
        gates = tuple(f"{gate['code']}: {gate['reason']}" for gate in candidate["gates"])
        return 2, "✗ stopped", gates
    failed = [check for check in candidate["checks"] if not check["holds"]]
    lists = sorted({check["alternative"] for check in candidate["checks"]})
    if len(lists) < 2:  # noqa: PLR2004  # one list, whose number says nothing
        return 3 + len(failed), "✗", tuple(map(_failed, failed))
    reasons = tuple(
        f"list {number + 1}: "
        + "; ".join(_failed(check) for check in failed if check["alternative"] == number)
        for number in lists
    )
    return 3 + len(failed), "✗", reasons


def _group_lines(word: str, reasons: Sequence[str], names: str) -> Iterator[str]:
    line = f"    {word} {names}"
    told = "; ".join(reasons)
    if not told:
        yield line
    elif len(line) + len(told) <= WIDTH:
        yield f"{line}: {told}"
    else:
        yield f"{line}:"
        yield from (f"        {reason}" for reason in reasons)


def _guarded_lines(routes: Sequence[Part], labels: Mapping[str, str]) -> Iterator[str]:
    """Say of each series that is no input for anybody why it is none, once for all routes."""
    guards: dict[str, dict[str, None]] = {}
    for verdict in routes:
        for each in verdict["candidates"]:
            if each["guard"]:
                guards.setdefault(each["guard"], {})[each["series_uid"]] = None
    if guards:
        yield ""
        yield "never an input, whatever the route:"
    yield from (f"    – {_names([*uids], labels)}: {guard}" for guard, uids in guards.items())


def _failed(check: Part) -> str:
    return f"{check['condition']}, found {check['found']}"


def _names(uids: Sequence[str], labels: Mapping[str, str]) -> str:
    named = [_name(uid, labels) for uid in uids[:_NAMED]]
    more = f" and {len(uids) - _NAMED} more" if len(uids) > _NAMED else ""
    return ", ".join(named) + more


def _name(uid: str, labels: Mapping[str, str]) -> str:
    label = labels.get(uid.partition(PART_MARK)[0])
    return tail(uid) + (f" {shorten(label, 60, placeholder='…')}" if label is not None else "")
