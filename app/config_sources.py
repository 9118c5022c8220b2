"""The `sources:` part of the configuration: archives that are asked for studies."""

from typing import Annotated, Literal

from pydantic import Field, field_validator
from pydicom.datadict import tag_for_keyword

from app.config_door import Strict

NOT_ASKED_FOR = frozenset({"StudyInstanceUID", "StudyDate"})
"""What a source asks for by itself."""


class Source(Strict):
    """One archive whose studies are fetched when a route needs them."""

    archive: str = Field(description="name of the archive that is asked")
    poll_s: float | None = Field(
        None,
        ge=1,
        le=86400,
        description="how often its studies are listed; without it only named studies are fetched",
    )
    quiet_s: float = Field(
        60,
        ge=0,
        le=86400,
        description="a listed study is whole when its number of objects stayed the same so long",
    )
    query: dict[Annotated[str, Field(max_length=64)], Annotated[str, Field(max_length=256)]] = (
        Field(
            default_factory=dict,
            description="matching keys of the list, such as `ModalitiesInStudy: CT`",
        )
    )
    window_days: int | None = Field(
        None, ge=0, le=36500, description="only studies dated within so many days are listed"
    )
    sweep_s: float | None = Field(
        None,
        ge=1,
        le=2592000,
        description="how often the window is left out and studies are counted that the archive"
        " lists without a number",
    )
    order: Literal["oldest", "newest"] = Field(
        "oldest", description="which of several waiting studies is fetched first"
    )

    @field_validator("query")
    @classmethod
    def _are_keywords(cls, query: dict[str, str]) -> dict[str, str]:
        for keyword in query:
            if tag_for_keyword(keyword) is None:
                raise ValueError(f"{keyword!r} is no DICOM keyword")
            if keyword in NOT_ASKED_FOR:
                raise ValueError(f"{keyword} is not for a query; a window is given by window_days")
        return query
