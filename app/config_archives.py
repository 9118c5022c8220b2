"""The `archives:` and `deliver:` parts of the configuration: where results go, in which forms."""

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from app.config_door import Strict, Tls
from app.results.forms import TABLES, Form

AE_TITLE = r"^[!-\[\]-~][ -\[\]-~]{0,15}$"
"""PS3.5 table 6.2-1: printable, no backslash."""


SENDER = "sender"
"""In `deliver_to`: the peer that sent the study."""


class Deliver(Strict):
    """How results are sent."""

    retry_delays_s: tuple[float, ...] = Field(
        (30, 120, 600, 3600),
        min_length=1,
        description="waits of one result between tries, give or take a fifth; the last repeats",
    )
    longest_pause_s: float = Field(
        60,
        gt=0,
        le=3600,
        description="an archive that is away is tried at least this often, by one result",
    )
    give_up_h: float = Field(
        168, ge=0, le=8760, description="after so many hours of tries a person must look"
    )
    commitment_s: float = Field(
        600, gt=0, le=604800, description="wait for a storage commitment before it is asked again"
    )


class _Archive(Strict):
    accepts: tuple[Form, ...] = Field(
        (Form.SEG, Form.SR), min_length=1, description="forms of a result that it gets"
    )

    @model_validator(mode="after")
    def _takes_what_it_can(self) -> Self:
        if len({*self.accepts}) < len(self.accepts):
            raise ValueError("accepts names a form twice")
        if TABLES & {*self.accepts} and getattr(self, "kind", None) != "files":
            raise ValueError("accepts: json and csv are for archives of kind files")
        return self


class FolderArchive(_Archive):
    """An archive that is a folder of DICOM files; needs no server."""

    kind: Literal["folder"]
    path: Path = Field(description="the folder; relative paths start at the data folder")


class FilesArchive(_Archive):
    """A plain folder that gets one file an object; nothing can be asked of it."""

    kind: Literal["files"]
    path: Path = Field(description="the folder; relative paths start at the data folder")


class DicomwebArchive(_Archive):
    """An archive that speaks DICOMweb, such as Orthanc."""

    kind: Literal["dicomweb"]
    url: str = Field(pattern=r"^https?://[^@\s]+$", description="root of the DICOMweb service")
    user: str | None = Field(None, description="name for basic authentication")
    password_env: str | None = Field(None, description="environment variable with the password")
    token_env: str | None = Field(None, description="environment variable with a bearer token")
    timeout_s: float = Field(60, gt=0, description="limit for each request")

    @model_validator(mode="after")
    def _one_way_to_authenticate(self) -> "DicomwebArchive":
        if self.token_env and self.user:
            raise ValueError("give either user and password_env or token_env")
        if bool(self.user) != bool(self.password_env):
            raise ValueError("user and password_env belong together")
        return self


class DimseArchive(_Archive):
    """An archive that speaks DIMSE: C-STORE, C-FIND with C-GET or C-MOVE."""

    kind: Literal["dimse"]
    host: str = Field(description="address of the archive's DICOM port")
    port: int = Field(104, ge=1, le=65535, description="the archive's DICOM port")
    ae_title: str = Field(pattern=AE_TITLE, description="the archive's AE title")
    calling_ae_title: str | None = Field(
        None, pattern=AE_TITLE, description="the AE title we call it with; else the door's"
    )
    retrieve: Literal["get", "move"] = Field(
        "get", description="how studies are fetched: C-GET, or C-MOVE to our own door"
    )
    proof: Literal["query", "commitment", "status"] = Field(
        "query",
        description="what proves a delivery: C-FIND, storage commitment, or its word alone",
    )
    tls: Tls | None = Field(None, description="transport security towards the archive")
    timeout_s: float = Field(60, gt=0, description="limit for each request")

    @model_validator(mode="after")
    def _can_be_trusted(self) -> "DimseArchive":
        if self.tls is not None and self.tls.authorities is None:
            raise ValueError("tls.authorities is needed: who signs the archive's certificate")
        return self


ArchiveConfig = Annotated[
    FolderArchive | FilesArchive | DicomwebArchive | DimseArchive, Field(discriminator="kind")
]
