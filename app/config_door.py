"""The `door:` part of the configuration: where studies come in, from whom, and how much."""

from ipaddress import ip_address, ip_network
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator


class Strict(BaseModel):
    """A part of the file: unknown keys are errors, values never change after loading."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Peer(Strict):
    """One machine that may send to us."""

    ae_title: str = Field(min_length=1, max_length=16, description="calling AE title")
    addresses: tuple[str, ...] = Field(
        (), description="addresses or networks it may call from; empty means any"
    )
    certificate: str | None = Field(
        None,
        pattern=r"^[0-9a-f]{64}$",
        description="SHA-256 of its TLS client certificate (DER), in hexadecimal",
    )
    host: str | None = Field(
        None, description="where it listens itself, for storage commitment reports"
    )
    port: int | None = Field(
        None, ge=1, le=65535, description="the port there; needed where host is given"
    )

    @field_validator("addresses")
    @classmethod
    def _are_networks(cls, addresses: tuple[str, ...]) -> tuple[str, ...]:
        for address in addresses:
            ip_network(address)
        return addresses

    @model_validator(mode="after")
    def _listens_at_a_port(self) -> "Peer":
        if (self.host is None) != (self.port is None):
            raise ValueError("host and port belong together")
        return self


class Tls(Strict):
    """Transport security as BCP 195 has it: TLS 1.2 or newer, client certificates required."""

    key: Path = Field(description="our private key, PEM")
    certificate: Path = Field(description="our certificate and its chain, PEM")
    authorities: Path | None = Field(
        None, description="certificates that may sign the peers' own, PEM"
    )
    require_client_certificate: bool = Field(
        True, description="whether a peer must show a certificate that an authority signed"
    )

    @model_validator(mode="after")
    def _someone_signs(self) -> "Tls":
        if self.require_client_certificate and self.authorities is None:
            raise ValueError("authorities is needed where client certificates are required")
        return self


class Http(Strict):
    """The HTTP port: STOW-RS and events."""

    host: str = Field("127.0.0.1", description="address the HTTP port is bound to")
    port: int = Field(8080, ge=0, le=65535, description="HTTP port; 0 takes a free one")
    user: str | None = Field(None, description="name that senders give (basic authentication)")
    password_env: str | None = Field(None, description="environment variable with the password")
    token_env: str | None = Field(None, description="environment variable with a bearer token")
    max_request_gb: float = Field(4, gt=0, le=64, description="largest request body")
    max_parts: int = Field(10_000, ge=1, le=100_000, description="most objects in one request")
    max_requests: int = Field(16, ge=1, le=256, description="requests served at once")
    tls: Tls | None = Field(None, description="transport security of the HTTP port")

    @model_validator(mode="after")
    def _one_way_to_authenticate(self) -> "Http":
        if bool(self.user) != bool(self.password_env):
            raise ValueError("user and password_env belong together")
        if not self.user and not self.token_env:
            raise ValueError("senders must authenticate: give token_env, or user and password_env")
        return self


class Limits(Strict):
    """What one peer may take of us."""

    associations: int = Field(25, ge=1, le=1000, description="associations served at once")
    per_address: int = Field(8, ge=1, le=1000, description="of these from one address")
    handshakes: int = Field(
        64, ge=1, le=4096, description="connections that have not associated yet, in all"
    )
    header_s: float = Field(5, gt=0, le=60, description="time for a PDU's header once it began")
    associate_s: float = Field(10, gt=0, le=60, description="time for a whole association request")
    idle_s: float = Field(60, gt=0, description="an association silent this long is ended")
    object_s: float = Field(600, gt=0, description="time for one object")
    min_rate_kb_s: float = Field(50, ge=0, description="an object that comes slower is refused")
    object_gb: float = Field(2, gt=0, le=64, description="largest object")
    free_gb: float = Field(
        2, ge=0, description="nothing is received while the disk has less space than this"
    )


class Door(Strict):
    """Where studies come in."""

    host: str = Field("127.0.0.1", description="address the DICOM port is bound to")
    port: int = Field(11112, ge=0, le=65535, description="DICOM port; 0 takes a free one")
    ae_title: str = Field(
        "MARGINALIA",
        min_length=1,
        max_length=16,
        pattern=r"^[ -\[\]-~]*\S[ -\[\]-~]*$",
        description="our AE title; other called AE titles are rejected",
    )
    peers: tuple[Peer, ...] = Field((), description="who may send; nobody else is let in")
    open: bool = Field(False, description="let every peer in; for trials, never for a hospital")
    tls: Tls | None = Field(None, description="transport security of the DICOM port")
    http: Http | None = Field(
        None, description="the HTTP port: STOW-RS and events; none unless given"
    )
    limits: Limits = Field(default_factory=Limits, description="what one peer may take of us")

    @model_validator(mode="after")
    def _is_closed_to_strangers(self) -> "Door":
        if self.open and self.peers:
            raise ValueError("open lets every peer in, so peers would mean nothing: choose one")
        if self.tls is None and any(peer.certificate for peer in self.peers):
            raise ValueError("certificate: is seen only over TLS; give tls, or leave it out")
        if not is_loopback(self.host) and not self.peers and self.tls is None:
            raise ValueError(f"{self.host} is not this machine alone: list the peers or give tls")
        if self.http and not is_loopback(self.http.host) and self.http.tls is None:
            raise ValueError(
                f"http: {self.http.host} is not this machine alone: give http.tls, or let a proxy"
                " of this machine end TLS"
            )
        return self


def is_loopback(host: str) -> bool:
    """Return whether only this machine can reach the address."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
