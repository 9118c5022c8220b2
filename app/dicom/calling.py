"""Calls to one DICOM peer: whatever goes wrong on the way becomes an error that says what to do."""

import ssl
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from app.dicom import command as dimse
from app.dicom.association import Association, Peer, Proposal, Rejected
from app.dicom.command import Command
from app.dicom.dimse import printable
from app.dicom.messages import joined
from app.dicom.wire import UNEXPECTED, ConnectionLost, PeerFault
from app.errors import ArchiveRefused, ArchiveUnavailable, Interrupted, NodeError

REJECTIONS = {
    (1, 1): "it gives no reason; see its log",
    (1, 2): "it does not know the DICOM application context",
    (1, 3): "it does not know our AE title {calling}; register it there, with our address",
    (1, 7): "it is not called {called}; give its own AE title",
    (2, 2): "it does not speak version 1 of the protocol",
    (3, 1): "it is busy",
    (3, 2): "it has no room for another association",
}
"""PS3.8 table 9-21: source and reason."""

STATUSES = {
    0x0110: "a fault of its own",
    0x0122: "it does not support this SOP class",
    0x0124: "our AE title may not do that there; give it the right",
    0x0211: "it does not know this operation",
    0x0212: "it does not understand the request",
    0x0213: "out of resources",
    0xA701: "out of resources, it cannot count the matches",
    0xA702: "out of resources, it cannot send",
    0xA801: "it does not know the destination; register our AE title, address and port there",
    0xFE00: "it was cancelled there",
}
"""PS3.7 Annex C, PS3.4 C.4.1 to C.4.3."""

PASSING = {0x0110, 0x0213, 0xFE00}


class Line:
    """Associations with one peer, one at a time; `stop` may come from another thread."""

    def __init__(self, peer: Peer) -> None:
        self.peer = peer
        self._stopping = threading.Event()
        self._association: Association | None = None

    def stop(self) -> None:
        """End the call that is under way, and take no other one."""
        self._stopping.set()
        association = self._association
        if association is not None:
            association.interrupt()

    def wait(self, seconds: float) -> None:
        """Let time pass, unless we stop."""
        if self._stopping.wait(seconds):
            raise self._interrupted()

    @contextmanager
    def association(self, proposals: Sequence[Proposal]) -> Iterator[Association]:
        """Give an association in which the peer accepted something of what was proposed."""
        name = self.peer.name
        try:
            with Association(self.peer, proposals) as association:
                self._association = association
                self.wait(0)
                yield association
        except Rejected as error:
            raise self._rejected(error) from error
        except PeerFault as error:
            raise ArchiveUnavailable(
                f"{name}: {error}; look at its log, and whether {self.peer.host}:{self.peer.port} "
                "is its DICOM port"
            ) from error
        except ConnectionLost as error:
            if self._stopping.is_set():
                raise self._interrupted() from error
            raise ArchiveUnavailable(
                f"{name}: the association ended early ({error}); look at its log, and whether it "
                f"knows our AE title {printable(self.peer.calling)}"
            ) from error
        except ssl.SSLError as error:
            raise ArchiveUnavailable(
                f"{name}: no TLS with it ({error.reason}); compare tls with what it expects"
            ) from error
        except OSError as error:
            raise ArchiveUnavailable(
                f"{name}: cannot be reached at {self.peer.host}:{self.peer.port} "
                f"({error.strerror or type(error).__name__}); is it running?"
            ) from error
        finally:
            self._association = None

    def refusal(self, what: str, status: int) -> NodeError:
        """Return what a failure status means: busy, or a person must look."""
        words = STATUSES.get(status) or _kind(status)
        sentence = f"{self.peer.name}: refused {what}: {words} (status {status:04X}H)"
        passes = status in PASSING or status >> 8 == 0xA7 or status >> 12 == 0xC  # noqa: PLR2004  # PS3.4 C.4
        return ArchiveUnavailable(sentence) if passes else ArchiveRefused(sentence)

    def unsupported(self, what: str) -> NodeError:
        """Return the error for an operation that the peer did not accept."""
        return ArchiveRefused(
            f"{self.peer.name}: does not accept {what} from {printable(self.peer.calling)}; "
            "switch it on there, or give our AE title the right"
        )

    def _rejected(self, error: Rejected) -> NodeError:
        words = REJECTIONS.get(error.why, "no known reason").format(
            calling=printable(self.peer.calling), called=printable(self.peer.called)
        )
        sentence = f"{self.peer.name}: rejected the association: {words}"
        return ArchiveRefused(sentence) if error.permanent else ArchiveUnavailable(sentence)

    def _interrupted(self) -> Interrupted:
        return Interrupted(f"{self.peer.name}: the call ended because we stop")


def answer(association: Association, field: int, message_id: int) -> tuple[Command, bytes]:
    """Wait for the answer to a request; return it with its data set."""
    _, command, content = association.receive()
    expect(command, field, message_id)
    return command, joined(content)


def expect(command: Command, field: int, message_id: int) -> None:
    """Refuse what is no answer to this request."""
    if (command.field, command.message_id) != (field | dimse.RESPONSE, message_id):
        raise PeerFault("it answers something else", UNEXPECTED)


def _kind(status: int) -> str:
    if status >> 8 == 0xA7:  # noqa: PLR2004  # PS3.7 C
        return "out of resources"
    if status >> 8 == 0xA9:  # noqa: PLR2004  # same
        return "what is asked does not fit the SOP class"
    return "it cannot do it; look at its log" if status >> 12 == 0xC else "no known reason"  # noqa: PLR2004  # same
