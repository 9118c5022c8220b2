"""The `web:` part of the configuration: where the node says how it is."""

from pydantic import Field

from app.config_door import Strict


class Web(Strict):
    """The port for monitors: states and numbers, no credentials, nothing that can be changed."""

    host: str = Field(
        "127.0.0.1", description="address that health and metrics are served at, over plain HTTP"
    )
    port: int = Field(
        8081, ge=0, le=65535, description="port of health and metrics; 0 takes a free one"
    )
    probe_s: float = Field(
        5,
        ge=0.2,
        le=300,
        description="how often disk, job log and archives are tried; up to 5, every failure is told"
        " within 10 s",
    )
