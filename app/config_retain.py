"""The `retain:` part of the configuration: how long what came and what was made is kept."""

from pydantic import Field

from app.config_door import Strict


class Retain(Strict):
    """How long things are kept; never less than a job or a delivery needs them."""

    studies_days: float | None = Field(
        30,
        ge=1,
        le=36500,
        description="received objects, after the last of their study; null: always",
    )
    results_days: float | None = Field(
        90, ge=1, le=36500, description="results of jobs that are over; null: always"
    )
    free_gb: float | None = Field(
        None,
        ge=0,
        le=1_000_000,
        description="with less free space than this, the oldest of them go before their time",
    )
    least_hours: float = Field(24, ge=1, le=8760, description="what is younger stays even then")
    every_s: float = Field(3600, ge=1, le=86400, description="how often that is looked at")
