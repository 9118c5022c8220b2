"""Which series of a study in an archive are wanted, for archives that tell much and little.

Covered: what is asked for, the fewest series with which the node decides the same, archives
without headers, routes that are off, lists that are wrong. Not covered: the wire
(tests/sockets/test_fetch).
"""

import io
from collections.abc import Collection, Iterator, Mapping
from typing import Any

import pytest
from pydantic import TypeAdapter
from pydicom import dcmread

from app.config_routes import Route
from app.dicom.headers import SeriesHeaders, headers_of
from app.door.parts import Keep
from app.errors import ArchiveRefused
from app.fetch.archive import Attributes
from app.fetch.wanted import Wanted, look
from app.pipeline.route import route
from tests.asked_archive import SeriesThere, ct_series, new_uid

STUDY = new_uid()


class InMemory:
    """An archive that is asked in one process, and notes for which headers."""

    def __init__(self, *series: SeriesThere, tells: bool = True) -> None:
        self.there = {each.series_uid: each for each in series}
        self.tells = tells
        self.told: list[str] = []

    def studies(self, query: Mapping[str, str]) -> Iterator[dict[str, int | None]]:
        """List nothing: studies are named here."""
        del query
        yield {}

    def count(self, study_uid: str) -> int | None:
        """Count nothing."""
        del study_uid

    def series(self, study_uid: str) -> list[Attributes]:
        """Return what a list of series has."""
        del study_uid
        return [
            {
                "SeriesInstanceUID": (uid,),
                "NumberOfSeriesRelatedInstances": (len(each.objects),),
                **{keyword: (value,) for keyword, value in each.attributes.items()},
            }
            for uid, each in self.there.items()
        ]

    def headers(self, study_uid: str, series_uid: str) -> list[SeriesHeaders] | None:
        """Return the headers, if it is an archive that tells them."""
        del study_uid
        self.told.append(series_uid)
        objects = self.there[series_uid].objects.values()
        return headers_of(dcmread(io.BytesIO(each)) for each in objects) if self.tells else None

    def retrieve(
        self, study_uid: str, series_uid: str, keep: Keep, only: Collection[str] = ()
    ) -> set[str]:
        """Bring nothing."""
        del study_uid, series_uid, keep, only
        return set()

    def stop(self) -> None:
        """Nothing is under way."""

    def close(self) -> None:
        """Nothing is open."""


def a_route(**changes: Any) -> Route:
    """Return a route that takes CT of at least three slices."""
    conditions = [
        {"op": "equals", "tag": "Modality", "value": "CT"},
        {"op": "between", "tag": "slices", "low": 3, "high": 100},
    ]
    value = {"name": "ct", "model": "m", "inputs": {"CT": conditions}, "deliver_to": ["local"]}
    return TypeAdapter(Route).validate_python(value | changes)


def uids(wanted: Wanted) -> set[str]:
    """Return the series that are wanted."""
    return {each.series_uid for each in wanted.series}


def test_a_series_that_the_list_rules_out_is_not_asked_about() -> None:
    """Its modality is known; the trace shows it all the same."""
    ct, mr = ct_series(STUDY, 4), ct_series(STUDY, 5, Modality="MR")
    archive = InMemory(ct, mr)
    wanted = look(archive, STUDY, [a_route()])
    assert (uids(wanted), archive.told) == ({ct.series_uid}, [ct.series_uid])
    (verdict,) = wanted.trace["routes"]
    assert {each["series_uid"] for each in verdict["candidates"]} == set(archive.there)


def test_the_node_decides_about_the_part_as_about_the_whole() -> None:
    """A route that another series keeps from the study must not take what is left of it."""
    ct, mr = ct_series(STUDY, 4), ct_series(STUDY, 5, Modality="MR")
    only_ct = [{"op": "contains_none", "tag": "Modality", "values": ["MR"]}]
    routes = [a_route(), a_route(name="ct-alone", study=only_ct)]
    archive = InMemory(ct, mr)
    wanted = look(archive, STUDY, routes)
    here = [archive_series(archive, uid) for uid in uids(wanted)]
    assert [each.taken for each in route(here, routes)] == [True, False]
    assert uids(wanted) == {ct.series_uid, mr.series_uid}


def archive_series(archive: InMemory, uid: str) -> Any:
    """Return a series as the node will see it."""
    (headers,) = archive.headers(STUDY, uid) or []
    return headers.series()


def test_without_headers_all_that_may_be_needed_is_wanted() -> None:
    """Two CT series might do; the report and the MR could not."""
    one, other = ct_series(STUDY, 4), ct_series(STUDY, 6)
    report, mr = ct_series(STUDY, 1, Modality="SR"), ct_series(STUDY, 5, Modality="MR")
    wanted = look(InMemory(one, other, report, mr, tells=False), STUDY, [a_route()])
    assert uids(wanted) == {one.series_uid, other.series_uid}
    assert all(each.sop_uids is None for each in wanted.series)
    assert "a guess" in wanted.trace["signal"]


def test_without_headers_a_route_with_an_input_that_nothing_fills_wants_nothing() -> None:
    """A PET/CT route and a study without PET."""
    pet = [{"op": "equals", "tag": "Modality", "value": "PT"}]
    ct = [{"op": "equals", "tag": "Modality", "value": "CT"}]
    both = a_route(inputs={"CT": ct, "PET": pet})
    assert uids(look(InMemory(ct_series(STUDY, 4), tells=False), STUDY, [both])) == set()


def test_a_route_that_is_off_wants_nothing_and_a_shadow_wants_its_series() -> None:
    """Shadow runs everything but the delivery."""
    archive = InMemory(ct_series(STUDY, 4))
    assert uids(look(archive, STUDY, [a_route(mode="off")])) == set()
    assert uids(look(archive, STUDY, [a_route(mode="shadow")])) == set(archive.there)


def test_a_study_that_is_gone_is_refused() -> None:
    """Its list of series is empty."""
    with pytest.raises(ArchiveRefused, match="no series"):
        look(InMemory(), STUDY, [a_route()])


def test_a_series_is_here_when_its_objects_are() -> None:
    """By their names where they are known, else by their number."""
    ct = ct_series(STUDY, 4)
    (told,) = look(InMemory(ct), STUDY, [a_route()]).series
    (untold,) = look(InMemory(ct, tells=False), STUDY, [a_route()]).series
    held = frozenset(ct.objects)
    part = frozenset([*held][1:])
    assert (told.is_here(held), untold.is_here(held)) == (True, True)
    assert (told.is_here(part), untold.is_here(part)) == (False, False)
    assert (told.missing(part), untold.missing(part)) == (held - part, frozenset())
    assert not told.is_here(part | {new_uid()})
