"""Where a route's results go: names of app.yaml → what each gets, and how it is reached."""

from collections.abc import Sequence

from app.config import Config
from app.config_archives import SENDER, ArchiveConfig, DimseArchive
from app.config_door import Peer
from app.config_routes import Route
from app.errors import DeliveryRefused
from app.models import ModelCard
from app.results.forms import Form, forms_for, in_place_of
from app.store.delivery import NewDelivery

_SENDER = f"{SENDER}:"

PREFERRED = {"binary": Form.SEG, "labelmap": Form.LABELMAP, "fractional": Form.FRACTIONAL}
"""What a card calls its segmentation → the form."""

SENDER_ACCEPTS = (Form.SEG, Form.SR)


def deliveries_of(config: Config, route: Route, card: ModelCard, source: str) -> list[NewDelivery]:
    """Return what goes where; `source` is who sent the study, as its row names it."""
    made = []
    for each in route.deliver_to:
        returned = each.archive == SENDER
        name = _SENDER + _name(source) if returned else each.archive
        accepts = SENDER_ACCEPTS if returned else config.archives[each.archive].accepts
        forms = forms_for(
            accepts,
            preferred=PREFERRED[card.outputs.segmentation],
            segments=len(card.labels),
            overlaps=card.overlaps,
        )
        made.append(NewDelivery(destination=name, forms=forms, held=each.hold))
    return made


def bundles(deliveries: Sequence[NewDelivery]) -> list[list[Form]]:
    """Return the sets of forms that must be made, those that may take another's place included."""
    wanted = {tuple(Form(form) for form in each.forms) for each in deliveries}
    wanted |= {other for forms in wanted if (other := in_place_of(forms)) is not None}
    return sorted([*forms] for forms in wanted)


def archive_of(config: Config, destination: str) -> ArchiveConfig:
    """Return how a destination is reached, or say that nobody knows any more."""
    if not destination.startswith(_SENDER):
        if destination not in config.archives:
            raise DeliveryRefused(
                f"app.yaml has no archive {destination} any more; put it back and `resend`"
            )
        return config.archives[destination]
    name = destination.removeprefix(_SENDER)
    for peer in config.door.peers:
        if peer.ae_title.strip() == name and peer.host and peer.port:
            return _reached(config, peer, peer.host, peer.port)
    if name in config.archives:  # it was fetched there
        return config.archives[name]
    raise DeliveryRefused(
        f"nothing can be returned to {name}: give its host and port in door.peers, then `resend`"
    )


def _reached(config: Config, peer: Peer, host: str, port: int) -> DimseArchive:
    """Return a peer of the door as an archive; senders are seldom asked what they hold."""
    return DimseArchive(
        kind="dimse",
        host=host,
        port=port,
        ae_title=peer.ae_title.strip(),
        calling_ae_title=config.door.ae_title,
        proof="status",
        tls=config.door.tls,
    )


def _name(source: str) -> str:
    return (source.rpartition("@")[0] or source).strip()
