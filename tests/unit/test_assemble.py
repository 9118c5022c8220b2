"""When a study counts as complete.

Covered: every signal and which one wins, rules for single senders, studies that arrive in any
order, one slice a minute, and a restart in the middle; `now` is an argument everywhere. Not
covered: who asks an archive for its count and who says that a study is complete.
"""

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.config import Assemble, Sender
from app.pipeline.assemble import complete_at, rules_for
from app.store.store import Store
from tests.log_rows import instance

START = datetime(2026, 1, 1, tzinfo=UTC)
RULES = Assemble(settle_s=2, quiet_s=60)


@dataclass(frozen=True)
class Arrived:
    """A study as the log has it."""

    last_received_at: datetime = START
    released_at: datetime | None = None
    instances: int = 250
    complete_signal: str | None = None
    expected: int | None = None
    being_fetched: bool = False


def at(seconds: float) -> datetime:
    """Return a time after the start."""
    return START + timedelta(seconds=seconds)


RELEASED = Arrived(released_at=at(1))
QUIET = (60.0, "no object for 60 s")
SOMEBODY = "said by hand to be complete"

TABLE: dict[str, tuple[Arrived, Assemble, tuple[float, str]]] = {
    "a release counts after the settle time": (
        RELEASED,
        RULES,
        (3, "association released 2 s ago"),
    ),
    "without a release quiet time counts": (Arrived(), RULES, QUIET),
    "a shorter quiet time wins": (RELEASED, Assemble(settle_s=600, quiet_s=60), QUIET),
    "a release may say nothing": (RELEASED, Assemble(settle_s=None, quiet_s=60), QUIET),
    "the release of a fetched series is not the end of its study": (
        replace(RELEASED, being_fetched=True),
        RULES,
        (600, "no object for 600 s, though it is being fetched"),
    ),
    "the fetcher says when its study is whole": (
        replace(RELEASED, being_fetched=True, complete_signal=SOMEBODY),
        RULES,
        (0, SOMEBODY),
    ),
    "somebody says so": (Arrived(complete_signal=SOMEBODY), RULES, (0, SOMEBODY)),
    "somebody knows better than the archive": (
        Arrived(complete_signal=SOMEBODY, expected=300),
        RULES,
        (0, SOMEBODY),
    ),
    "all that the archive lists are here": (
        replace(RELEASED, expected=250),
        RULES,
        (0, "the archive lists 250 objects and all are here"),
    ),
    "the archive lists more, so the release was not the end": (
        replace(RELEASED, expected=300),
        RULES,
        (60, "no object for 60 s; 250 of 300 that the archive lists"),
    ),
    "the archive listed less, long ago": (
        replace(RELEASED, expected=200),
        RULES,
        (3, "association released 2 s ago"),
    ),
}


@pytest.mark.parametrize("case", TABLE)
def test_the_signal_that_counts(case: str) -> None:
    """When, in seconds after the last object, and the sentence that is stored with the study."""
    study, rules, (seconds, sentence) = TABLE[case]
    assert complete_at(study, rules) == (at(seconds), sentence)


SENDERS = Assemble(
    settle_s=2,
    quiet_s=60,
    count_from="pacs",
    senders=(
        Sender.model_validate({"sender": "ONE_EACH", "settle_s": None}),
        Sender.model_validate({"sender": "SLOW", "quiet_s": 900, "count_from": None}),
        Sender.model_validate({"sender": "SLOW", "quiet_s": 1}),
    ),
)


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("CT1@10.0.0.5", (2, 60, "pacs")),
        ("ONE_EACH@10.0.0.6", (None, 60, "pacs")),
        ("SLOW@10.0.0.7", (2, 900, None)),
        ("A@SLOW@10.0.0.7", (2, 60, "pacs")),
        ("slow@10.0.0.7", (2, 60, "pacs")),
        ("SLOW", (2, 900, None)),
        ("batch", (2, 60, "pacs")),
    ],
)
def test_a_sender_has_its_own_rules(source: str, expected: tuple[Any, ...]) -> None:
    """The first that names it; what it does not say is as for all."""
    rules = rules_for(source, SENDERS)
    assert (rules.settle_s, rules.quiet_s, rules.count_from) == expected


times = st.lists(st.floats(0, 1000), min_size=1, max_size=20)
numbers = st.none() | st.integers(0, 25)
rules_of_any_kind = st.builds(
    Assemble, settle_s=st.none() | st.floats(0, 200), quiet_s=st.floats(0.1, 200)
)


@given(st.data(), times, numbers, st.none() | st.floats(0, 1500), rules_of_any_kind)
def test_it_is_never_early_nor_later_than_quiet_time(
    data: st.DataObject,
    arrivals: list[float],
    expected: int | None,
    released: float | None,
    rules: Assemble,
) -> None:
    """Neither before its last object nor later than the quiet time after it, however it came."""
    last = max(arrivals)
    study = Arrived(
        last_received_at=at(last),
        released_at=None if released is None else at(released),
        instances=len(arrivals),
        expected=expected,
        complete_signal=data.draw(st.sampled_from([None, SOMEBODY])),
    )
    due, _ = complete_at(study, rules)
    assert at(last) <= due <= at(last) + timedelta(seconds=rules.quiet_s)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """Return one job log; each example has studies of its own in it."""
    with closing(Store.open(tmp_path_factory.mktemp("log") / "node.db")) as opened:
        yield opened


@settings(max_examples=40, deadline=None)
@given(st.permutations(range(6)), st.lists(st.integers(0, 5), max_size=6), numbers)
def test_order_and_duplicates_do_not_matter(
    store: Store, order: list[int], again: list[int], expected: int | None
) -> None:
    """The log counts an object once, and a duplicate is no arrival: the answer is the same."""
    example = f"1.{uuid4().int % 10**9}"
    due = []
    for study_uid, sequence in ((f"{example}.1", [*order, *again]), (f"{example}.2", range(6))):
        for seconds, number in enumerate(sequence):
            store.add_instance(instance(f"{study_uid}.{number}", study_uid), at(min(seconds, 5)))
        if expected is not None:
            store.expect(study_uid, expected)
        store.release([study_uid], at(7))
        due.append(complete_at(store.study(study_uid), RULES))
    assert due[0] == due[1]


def test_a_slice_every_59_seconds_is_one_study() -> None:
    """With a quiet time of 60 s it is never complete before the last one, and 60 s after it."""
    for number in range(100):
        due, _ = complete_at(Arrived(last_received_at=at(59 * number), instances=number + 1), RULES)
        assert due > at(59 * (number + 1))
    assert due == at(59 * 99 + 60)


def test_a_restart_changes_nothing(tmp_path: Path) -> None:
    """A half-received study is complete when it would have been; nothing counts anew."""
    with closing(Store.open(tmp_path / "node.db")) as store:
        store.add_instance(instance("1.2.1"), at(5))
        before = complete_at(store.study("1.2"), RULES)
    with closing(Store.open(tmp_path / "node.db")) as store:
        (study,) = store.open_studies()
        assert complete_at(study, RULES) == before == (at(65), "no object for 60 s")
