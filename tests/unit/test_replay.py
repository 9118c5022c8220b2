"""Rehearsing rules on studies of the log: what is counted, what is told, what is left alone.

Covered: each kind of change with its reasons; routes that came and went; days, pages, limits and
wrong arguments; studies that cannot be judged; that the log is the same afterwards; the command.
Not covered: archives (tests/sockets/test_connect.py), how long it takes (tests/bench_replay.py).
"""

import json
import re
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from app import replay
from app.config_routes import Route
from app.dicom.series import Series
from app.errors import ConfigError
from app.pipeline.rehearse import Change, Rehearsal, judged
from app.store.store import Store
from tests.log_rows import START, at, instance
from tests.node import Node
from tests.past import keep
from tests.unit.built import routes, series

DAYS = replay.Days.of("2030-01-01", None)


RULES = routes("""
- name: r
  inputs: {CT: [{op: equals, tag: Modality, value: CT}, {op: between, fact: slices, low: 50}]}
- name: mr
  inputs: {CT: [{op: equals, tag: Modality, value: MR}]}
- name: nine
  study: [{op: equals, fact: series, value: 9}]
  inputs: {CT: []}
- name: thick
  inputs: {CT: {where: [{op: equals, tag: Modality, value: CT}], prefer: [thickest]}}
- name: small
  inputs: {CT: {where: [{op: equals, tag: Modality, value: CT}], gates: {max_slices: 9}}}
""")


def rule(like: str = "r", name: str = "r", **more: Any) -> Route:
    """Return one of the rules by another name, changed as told."""
    return RULES[like].model_copy(update={"name": name, **more})


def of(study_uid: str, *study: Series) -> list[Series]:
    """Return the series as those of one study."""
    return [Series.from_json(each.to_json() | {"study_uid": study_uid}) for each in study]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """Give an empty job log where the command line looks for it."""
    store = Store.open(tmp_path / "data" / "node.db")
    yield store
    store.close()


def changes(then: list[Route], now: list[Route], *study: Series) -> list[Any]:
    """Return what a study gives by the rules of then and of now."""
    rehearsal = Rehearsal(now)
    rehearsal.add("2.25.1", judged(study, now), judged(study, then))
    return rehearsal.changed


THEN = "CT: series …thin, most slices of 2 that fit (300 slices) (m, live)"
THICK, THIN = series("thick", "CT", 60, spacing_mm=5.0), series("thin", "CT", 300, spacing_mm=1.0)


@pytest.mark.parametrize(
    ("then", "now", "change", "why", "was"),
    [
        (rule(), rule("mr"), Change.NO_LONGER_TAKEN, "thin: Modality equals MR, found CT", THEN),
        (rule("nine"), rule(), Change.NEWLY_TAKEN, THEN, "study: series equals 9, found 2"),
        (
            rule(),
            rule("thick"),
            Change.OTHER_SERIES,
            "CT: series …thick, thickest of 2 that fit (5 mm) (m, live)",
            THEN,
        ),
        (rule(mode="shadow"), rule(), Change.OTHER_USE, "(m, live)", "(m, shadow)"),
        (rule(), rule(model="m2"), Change.OTHER_USE, "(m2, live)", "(m, live)"),
        (rule(), rule(mode="off"), Change.NO_LONGER_TAKEN, "the route is off", "(m, live)"),
        (rule("small"), rule(), Change.NEWLY_TAKEN, "(m, live)", "send a smaller reconstruction"),
    ],
)
def test_each_change_is_told_with_both_reasons(
    then: Route, now: Route, change: Change, why: str, was: str
) -> None:
    """Of the series that is concerned, not of all that ever failed."""
    (found,) = changes([then], [now], THICK, THIN)
    assert (found.study_uid, found.route, found.change) == ("2.25.1", "r", change)
    assert found.now.endswith(why)
    assert found.then.endswith(was)


def test_what_comes_out_as_before_is_no_change() -> None:
    """Taken or not."""
    assert changes([rule()], [rule()], THIN) == []
    assert changes([rule()], [rule()], series("mr", "MR")) == []


def test_routes_that_came_and_went_are_counted() -> None:
    """A new one takes, one that is no more took."""
    came, went = changes([rule(name="old")], [rule(name="new")], THIN)
    assert (came.route, came.change, came.then) == (
        "new",
        Change.NEWLY_TAKEN,
        "there was no such route",
    )
    assert (went.route, went.change, went.now) == (
        "old",
        Change.NO_LONGER_TAKEN,
        "there is no such route any more",
    )
    chosen = Rehearsal([rule(name="new")], gone=False)
    chosen.add("2.25.1", judged([THIN], [rule(name="new")]), judged([THIN], [rule(name="old")]))
    assert [*chosen.tallies] == ["new"]


def test_a_study_that_was_never_routed_is_newly_taken() -> None:
    """Its headers were kept, its verdict was not."""
    rehearsal = Rehearsal([rule()])
    rehearsal.add("2.25.1", judged([THIN], [rule()]), None)
    (found,) = rehearsal.changed
    assert (found.change, found.then) == (Change.NEWLY_TAKEN, "the study was not routed")


def test_studies_of_the_days_are_rehearsed_page_by_page_and_nothing_is_written(
    tmp_path: Path, store: Store
) -> None:
    """More than a page of them, at times that are often the same; the newest first."""
    now = [rule()]
    for n in range(2 * replay.PAGE + 7):
        study = of(f"2.25.{n}", series(f"2.25.{n}.1", "CT", 60 if n % 2 else 4))
        keep(store, study, judged(study, []), received=START + timedelta(hours=n // 3))
    keep(store, of("2.25.999", THIN), {"routes": []}, received=START - timedelta(seconds=1))
    before = [store.studies(1000), store.jobs(limit=10), store.trace("2.25.0")]
    rehearsal = Rehearsal(now)
    replay.replay_log(store, DAYS, None, rehearsal)
    assert rehearsal.studies == 2 * replay.PAGE + 7
    seen = [each.study_uid for each in rehearsal.changed]
    assert len(seen) == len({*seen}) == replay.PAGE + 3
    assert rehearsal.tallies["r"].taken_now == rehearsal.tallies["r"].changes[Change.NEWLY_TAKEN]
    assert before == [store.studies(1000), store.jobs(limit=10), store.trace("2.25.0")]
    few = Rehearsal(now)
    replay.replay_log(store, replay.Days.of("2030-01-01", "2030-01-02"), 5, few)
    assert few.studies == 5
    assert all(int(each.study_uid.split(".")[-1]) < 3 * 48 for each in few.changed)
    one_day = Rehearsal(now)
    replay.replay_log(store, replay.Days.of("2030-01-01", "2030-01-01"), None, one_day)
    assert one_day.studies == 3 * 24


def test_a_study_without_kept_headers_is_left_out_and_counted(store: Store) -> None:
    """It was received by an older version, or is not read yet."""
    store.add_instance(instance("2.25.1"), at(1))
    rehearsal = Rehearsal([rule()])
    replay.replay_log(store, DAYS, None, rehearsal)
    assert (rehearsal.studies, dict(rehearsal.left_out)) == (
        0,
        {"the log keeps no headers of them": 1},
    )


@pytest.mark.parametrize(
    ("since", "until", "sentence"),
    [
        ("yesterday", None, "--since yesterday: is no date; give it as 2030-12-31"),
        ("2030-01-01", "2030-02-30", "--until 2030-02-30: is no date"),
        ("2030-01-02", "2030-01-01", "is before --since"),
    ],
)
def test_days_that_are_none_are_refused(since: str, until: str | None, sentence: str) -> None:
    """With how they are to be given."""
    with pytest.raises(ConfigError, match=sentence):
        replay.Days.of(since, until)


def test_the_command_prints_a_table_and_then_what_would_change(
    tmp_path: Path, store: Store
) -> None:
    """In words and as JSON, for all routes or for one."""
    node = Node(tmp_path)
    strict = rule(name="phantom-ct", model="phantom")
    for n in range(3):
        study = of(f"2.25.{n}", series(f"2.25.{n}.1", "CT", 20 * (n + 1)))
        keep(store, study, judged(study, [strict]))
    text = node.command("replay", "--since", "2030-01-01").stdout
    assert text.startswith("3 studies since 2030-01-01 by the rules as they are now (")
    table = [re.split(r"  +", line) for line in text.splitlines()[2:4]]
    assert dict(zip(*table, strict=True)) == {
        "route": "phantom-ct",
        "taken now": "3",
        "taken then": "1",
        "newly taken": "2",
        "no longer taken": "0",
        "other series": "0",
        "other model or mode": "0",
    }
    assert "phantom-ct, newly taken: 2" in text
    assert "    then: CT: series …2.25.0.1: slices at least 50, found 20" in text
    told = json.loads(
        node.command(
            "replay", "--since", "2030-01-01", "--route", "phantom-ct", "--limit", "2", "--json"
        ).stdout
    )
    assert told["studies"] == 2
    assert told["routes"]["phantom-ct"]["taken_now"] == 2
    assert told["routes"]["phantom-ct"]["taken_then"] == 1


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ((), "the following arguments are required: --since"),
        (("--since", "now"), "--since now: is no date"),
        (("--since", "2030-01-01", "--route", "x"), "app.yaml has no such route; it has phantom"),
        (("--since", "2030-01-01", "--source", "x"), "app.yaml has no such archive; it has local"),
        (("--since", "2030-01-01", "--source", "local"), "a folder archive cannot be asked"),
        (("--since", "2030-01-01", "--limit", "0"), "--limit 0: give a number above 0"),
        (("--since", "2030-01-01", "--limit", "few"), "invalid int value: 'few'"),
        (("--since", "2030-01-01"), "there is no job log here"),
    ],
)
def test_a_wrong_question_is_answered_with_a_sentence(
    tmp_path: Path, arguments: tuple[str, ...], sentence: str
) -> None:
    """And status 1: the input is wrong, not the node."""
    asked = Node(tmp_path).command("replay", *arguments, check=False)
    assert asked.returncode == 1
    assert sentence in asked.stderr
    assert "Traceback" not in asked.stderr
