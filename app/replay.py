"""Past studies by today's rules: what would come out differently. Nothing is sent or written.

The studies are those of the job log, or those of an archive, as far as its metadata tell.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from itertools import islice
from textwrap import shorten
from typing import Any

from app.config import Config
from app.config_routes import Route
from app.dicom.series import Series
from app.errors import ArchiveRefused, ConfigError, StudyError
from app.fetch.archive import Remote
from app.fetch.wanted import look
from app.pipeline.rehearse import Change, Changed, Rehearsal, judged
from app.store.past import PastStudy
from app.store.store import Store

PAGE = 100
_REASON = 240
"""Characters of a reason that are printed; JSON has all."""
_HEAD = ("route", "taken now", "taken then", *Change)


@dataclass(frozen=True, slots=True, kw_only=True)
class Days:
    """From the first day to the last one, both included."""

    first: date
    last: date | None

    @classmethod
    def of(cls, since: str, until: str | None) -> "Days":
        """Read what was given on the command line."""
        days = cls(
            first=_day("--since", since), last=_day("--until", until) if until is not None else None
        )
        if days.last is not None and days.last < days.first:
            raise ConfigError(f"--until {until} is before --since {since}; nothing lies between")
        return days

    @property
    def began(self) -> datetime:
        """When the first day began, in UTC as the job log counts."""
        return datetime.combine(self.first, time(), UTC)

    @property
    def ended(self) -> datetime | None:
        """When the last day ended."""
        if self.last is None:
            return None
        return datetime.combine(self.last + timedelta(days=1), time(), UTC)

    @property
    def study_date(self) -> str:
        """The range as an archive is asked for it (PS3.4 C.2.2.2.5)."""
        return f"{self.first:%Y%m%d}-{self.last.strftime('%Y%m%d') if self.last else ''}"


def chosen(config: Config, names: Sequence[str]) -> tuple[Route, ...]:
    """Return the routes of these names, or all."""
    known = {route.name: route for route in config.routes}
    for name in names:
        if name not in known:
            raise ConfigError(
                f"--route {name}: app.yaml has no such route; it has {', '.join(known)}"
            )
    return tuple(known[name] for name in dict.fromkeys(names)) or config.routes


def replay_log(store: Store, days: Days, limit: int | None, rehearsal: Rehearsal) -> None:
    """Add the studies that grew last in these days, the newest first."""
    for study in islice(_of_log(store, days), limit):
        if not study.series:
            rehearsal.left_out["the log keeps no headers of them"] += 1
            continue
        series = [Series.from_json(each) for each in study.series]
        rehearsal.add(study.study_uid, judged(series, rehearsal.routes), study.trace)


def replay_archive(
    archive: Remote, store: Store | None, days: Days, limit: int | None, rehearsal: Rehearsal
) -> None:
    """Add the studies that the archive dates on these days; what was taken stands in the log."""
    for uid in islice(_of_archive(archive, days), limit):
        then = _trace(store, uid) if store else None
        try:
            rehearsal.add(uid, look(archive, uid, rehearsal.routes).trace, then)
        except (StudyError, ArchiveRefused) as error:
            rehearsal.left_out[str(error)] += 1


def _of_log(store: Store, days: Days) -> Iterator[PastStudy]:
    page = store.past_studies(days.began, days.ended, limit=PAGE)
    while page:
        yield from page
        page = store.past_studies(days.began, days.ended, before=page[-1], limit=PAGE)


def _of_archive(archive: Remote, days: Days) -> Iterator[str]:
    seen: set[str] = set()
    for page in archive.studies({"StudyDate": days.study_date}):
        yield from (uid for uid in page if uid not in seen)
        seen.update(page)


def _trace(store: Store, study_uid: str) -> Any:
    """Return what came of a study here, or of what an archive listed of it."""
    if trace := store.trace(study_uid):
        return trace
    traces = (store.remote_trace(each.source, study_uid) for each in store.remotes(study_uid))
    return next(filter(None, traces), None)


def _day(option: str, text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise ConfigError(f"{option} {text}: is no date; give it as 2030-12-31") from None


def words(rehearsal: Rehearsal, days: Days, seconds: float) -> str:
    """Return the table of routes, then what would change and why."""
    return "\n".join(
        [
            *_summary(rehearsal, days, seconds),
            "",
            *_table(rehearsal),
            *(line for each in _sorted(rehearsal.changed) for line in each),
        ]
    )


def _summary(rehearsal: Rehearsal, days: Days, seconds: float) -> Iterator[str]:
    until = f" to {days.last}" if days.last else ""
    rate = rehearsal.studies / seconds if seconds else 0
    yield (
        f"{rehearsal.studies} studies since {days.first}{until} by the rules as they are now"
        f" ({seconds:.1f} s, {rate:.0f} a second); nothing was sent"
    )
    yield from (f"{number} left out: {why}" for why, number in rehearsal.left_out.most_common())


def _table(rehearsal: Rehearsal) -> Iterator[str]:
    rows = [
        (name, *map(str, (tally.taken_now, tally.taken_then, *tally.changes.values())))
        for name, tally in rehearsal.tallies.items()
    ]
    widths = [max(map(len, column)) for column in zip(_HEAD, *rows, strict=True)]
    for first, *others in (_HEAD, *rows):
        cells = (f"{cell:>{width}}" for cell, width in zip(others, widths[1:], strict=True))
        yield "  ".join([f"{first:{widths[0]}}", *cells])


def _sorted(changed: Sequence[Changed]) -> Iterator[list[str]]:
    groups: dict[tuple[str, Change], list[Changed]] = {}
    for each in changed:
        groups.setdefault((each.route, each.change), []).append(each)
    for (route, change), several in groups.items():
        yield ["", f"{route}, {change}: {len(several)}"]
        for each in several:
            yield [
                f"  {each.study_uid}",
                f"    now:  {shorten(each.now, _REASON, placeholder=' …')}",
                f"    then: {shorten(each.then, _REASON, placeholder=' …')}",
            ]
