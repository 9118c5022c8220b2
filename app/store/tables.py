"""The tables of the job log, as typed mappings; the SQL is in the modules beside this one."""

from datetime import UTC, datetime
from typing import Any, ClassVar

from sqlalchemy import (
    JSON,
    BigInteger,
    DateTime,
    Dialect,
    Enum,
    Float,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Text,
    TypeDecorator,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from app.store.delivery import DeliveryEvent, DeliveryState
from app.store.jobs import Event, RemoteState, State, StudyState

UID = String(64)  # PS3.5 9: a UID has at most 64 characters
LONG_AGO = "1970-01-01 00:00:00.000000"


class Utc(TypeDecorator[datetime]):
    """An aware time, kept in UTC; SQLite forgets the zone, so it is put back on reading."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Turn the time into UTC, and refuse one without a zone."""
        if value is not None and value.tzinfo is None:
            raise ValueError(f"{value} has no time zone; the job log keeps UTC")
        if value is None or dialect.name != "sqlite":
            return value
        return value.astimezone(UTC).replace(tzinfo=None)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Return the time as UTC."""
        del dialect
        if value is None or value.tzinfo is not None:
            return value
        return value.replace(tzinfo=UTC)


Word = State | Event | StudyState | RemoteState | DeliveryState | DeliveryEvent


def _word(kind: type[Word]) -> Enum:
    """Keep a member by its value, as plain text that other tools can read."""
    return Enum(kind, native_enum=False, length=16, values_callable=_values)


def _values(kind: type[Word]) -> list[str]:
    return [member.value for member in kind]


class Table(DeclarativeBase):
    """What all tables share."""

    # names that migrations can count on, whatever the database would have chosen
    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_name)s",
            "fk": "fk_%(table_name)s_%(column_0_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map: ClassVar[dict[Any, Any]] = {
        datetime: Utc,
        State: _word(State),
        Event: _word(Event),
        StudyState: _word(StudyState),
        RemoteState: _word(RemoteState),
        DeliveryState: _word(DeliveryState),
        DeliveryEvent: _word(DeliveryEvent),
        int: Integer,
        float: Float,
    }


class Studies(Table):
    """One row a study, changed by each instance that arrives."""

    __tablename__ = "studies"

    study_uid: Mapped[str] = mapped_column(UID, primary_key=True)
    state: Mapped[StudyState] = mapped_column(index=True)
    source: Mapped[str] = mapped_column(Text)
    instances: Mapped[int]
    version: Mapped[int]
    first_received_at: Mapped[datetime]
    last_received_at: Mapped[datetime] = mapped_column(index=True)
    released_at: Mapped[datetime | None]
    complete_signal: Mapped[str | None] = mapped_column(Text)
    expected: Mapped[int | None]
    trace: Mapped[Any] = mapped_column(JSON(none_as_null=True), nullable=True)


class Instances(Table):
    """One row a received object."""

    __tablename__ = "instances"

    sop_uid: Mapped[str] = mapped_column(UID, primary_key=True)
    sop_class_uid: Mapped[str] = mapped_column(UID)
    study_uid: Mapped[str] = mapped_column(
        # checked at commit: whether the object is new decides what becomes of its study's row
        UID,
        ForeignKey("studies.study_uid", deferrable=True, initially="DEFERRED"),
    )
    series_uid: Mapped[str] = mapped_column(UID)
    transfer_syntax: Mapped[str] = mapped_column(UID)
    sha256: Mapped[str] = mapped_column(String(64))
    size: Mapped[int] = mapped_column(BigInteger)
    file: Mapped[str] = mapped_column(Text)
    source: Mapped[str] = mapped_column(Text)
    received_at: Mapped[datetime]

    __table_args__ = (Index(None, "study_uid", "series_uid"),)  # counted without reading a row


class SeriesHeaders(Table):
    """One row a series: what its headers say, so that no file is read for it twice."""

    __tablename__ = "series"

    study_uid: Mapped[str] = mapped_column(UID, primary_key=True)
    series_uid: Mapped[str] = mapped_column(UID, primary_key=True)
    instances: Mapped[int]
    summary: Mapped[Any] = mapped_column(JSON)
    headers: Mapped[Any] = mapped_column(JSON)


class RemoteStudies(Table):
    """One row a study that an archive lists or that somebody asked us to get from it."""

    __tablename__ = "remote_studies"

    source: Mapped[str] = mapped_column(String(64), primary_key=True)
    study_uid: Mapped[str] = mapped_column(UID, primary_key=True)
    state: Mapped[RemoteState]
    instances: Mapped[int | None]
    attempts: Mapped[int]
    changed_at: Mapped[datetime]
    due_at: Mapped[datetime | None]
    reason: Mapped[str] = mapped_column(Text)
    trace: Mapped[Any] = mapped_column(JSON(none_as_null=True), nullable=True)

    __table_args__ = (Index(None, "source", "state"), Index(None, "state", "study_uid"))


class StudyEvents(Table):
    """The history of studies; append-only. It may name a study of which nothing was kept."""

    __tablename__ = "study_events"

    id: Mapped[int] = mapped_column(primary_key=True)
    study_uid: Mapped[str] = mapped_column(UID, index=True)
    at: Mapped[datetime]
    event: Mapped[str] = mapped_column(String(32))
    detail: Mapped[str] = mapped_column(Text)


class DoorEvents(Table):
    """The history of the door; append-only. What it refused belongs to no study."""

    __tablename__ = "door_events"

    id: Mapped[int] = mapped_column(primary_key=True)
    at: Mapped[datetime] = mapped_column(index=True)
    source: Mapped[str] = mapped_column(Text)
    event: Mapped[str] = mapped_column(String(32))
    detail: Mapped[str] = mapped_column(Text)


class Jobs(Table):
    """One row a job: one route on one study."""

    __tablename__ = "jobs"

    id: Mapped[str] = mapped_column(String(64), primary_key=True)
    identity: Mapped[str] = mapped_column(Text, unique=True)
    study_uid: Mapped[str] = mapped_column(UID, ForeignKey("studies.study_uid"), index=True)
    route: Mapped[str] = mapped_column(Text)
    model: Mapped[str] = mapped_column(Text)
    digest: Mapped[str] = mapped_column(String(64))
    inputs: Mapped[Any] = mapped_column(JSON)
    instances: Mapped[Any] = mapped_column(JSON)
    priority: Mapped[int]
    series_uid: Mapped[str] = mapped_column(String(80), server_default="")  # part number included
    state: Mapped[State]
    stage: Mapped[str] = mapped_column(String(32))
    attempts: Mapped[int]
    orphanings: Mapped[int]
    fence: Mapped[int]
    due_at: Mapped[datetime]
    owner: Mapped[str | None] = mapped_column(Text)
    lease_until: Mapped[datetime | None]
    reason: Mapped[str] = mapped_column(Text)
    created_at: Mapped[datetime]
    updated_at: Mapped[datetime]
    turn_at: Mapped[datetime] = mapped_column(server_default=LONG_AGO)
    version: Mapped[int] = mapped_column(server_default="1")
    superseded_by: Mapped[str | None] = mapped_column(String(64), index=True)
    published_at: Mapped[datetime | None]

    __table_args__ = (
        Index(None, "state", "due_at"),
        Index(None, "state", "turn_at", "id"),  # the queue
        Index(None, "created_at", "id"),  # the newest …
        Index(None, "state", "created_at", "id"),  # … of one state
        Index(None, "state", "route"),  # counted without reading a row
    )


class JobEvents(Table):
    """The history of jobs; append-only, written with the state that it explains."""

    __tablename__ = "job_events"

    id: Mapped[int] = mapped_column(primary_key=True)
    job_id: Mapped[str] = mapped_column(String(64), ForeignKey("jobs.id"), index=True)
    at: Mapped[datetime]
    event: Mapped[Event]
    state: Mapped[State]
    stage: Mapped[str] = mapped_column(String(32))
    seconds: Mapped[float | None]
    detail: Mapped[str] = mapped_column(Text)


class Deliveries(Table):
    """One row a job and destination: what goes there, and whether the archive holds it."""

    __tablename__ = "deliveries"

    job_id: Mapped[str] = mapped_column(String(64), ForeignKey("jobs.id"), primary_key=True)
    destination: Mapped[str] = mapped_column(String(80), primary_key=True)
    state: Mapped[DeliveryState]
    forms: Mapped[Any] = mapped_column(JSON)
    attempts: Mapped[int]
    due_at: Mapped[datetime]
    sent_at: Mapped[datetime | None]
    proved_at: Mapped[datetime | None]
    transaction_uid: Mapped[str | None] = mapped_column(UID)
    reason: Mapped[str] = mapped_column(Text)
    proof: Mapped[str] = mapped_column(Text)
    began_at: Mapped[datetime]
    updated_at: Mapped[datetime]

    __table_args__ = (Index(None, "destination", "state", "due_at"), Index(None, "state"))


class DeliveryEvents(Table):
    """The history of deliveries; append-only, written with the state that it explains."""

    __tablename__ = "delivery_events"

    id: Mapped[int] = mapped_column(primary_key=True)
    job_id: Mapped[str] = mapped_column(String(64), ForeignKey("jobs.id"), index=True)
    destination: Mapped[str] = mapped_column(String(80))
    at: Mapped[datetime]
    event: Mapped[DeliveryEvent]
    state: Mapped[DeliveryState]
    detail: Mapped[str] = mapped_column(Text)


class Commitments(Table):
    """One row a storage commitment that we asked an archive for, with its report."""

    __tablename__ = "commitments"

    transaction_uid: Mapped[str] = mapped_column(UID, primary_key=True)
    ae_title: Mapped[str] = mapped_column(String(16))
    asked_at: Mapped[datetime]
    reported_at: Mapped[datetime | None]
    report: Mapped[Any] = mapped_column(JSON(none_as_null=True), nullable=True)
