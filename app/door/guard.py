"""Who may come in and how many: peers by name, address and certificate; connections by number.

A connection is a *visitor* until it has associated, and a *guest* from then on. Visitors cost
nothing to replace: when there is no place for one more, the oldest of the address with the most of
them goes, so that silent connections never keep an honest one out. A guest is never sent away.
"""

import logging
import socket
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from ipaddress import IPv6Address, ip_address, ip_network

from app.config_door import Door, Limits
from app.dicom.wire import end_of

log = logging.getLogger(__name__)

COMPLAINT_S = 10.0
COMPLAINTS = 10
"""Lines of their own for so many addresses in that time."""

MOST_COMPLAINERS = 1000
ELSEWHERE = "other addresses"


def address_of(host: str) -> str:
    """Return a peer's address in its one form: no scope, no IPv4 dressed as IPv6."""
    address = ip_address(host.partition("%")[0])
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return str(mapped or address)


@dataclass(slots=True, eq=False)
class Connection:
    """One connection and what it is to us."""

    socket: socket.socket
    address: str
    since: float = field(default_factory=time.monotonic)
    idle: threading.Event = field(default_factory=threading.Event)
    """Set while no message waits for its answer."""
    done: threading.Event = field(default_factory=threading.Event)
    """Set when its thread has nothing more to do."""


class Guard:
    """Counts connections; used by all threads."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._lock = threading.Lock()
        self._visitors: dict[Connection, None] = {}  # in the order of their coming
        self._guests: set[Connection] = set()

    def let_in(self, connection: Connection) -> None:
        """Take a visitor; if there is no place, another one is sent away."""
        with self._lock:
            if len(self._visitors) >= self._limits.handshakes:
                self._send_one_away()
            self._visitors[connection] = None

    def make_room(self) -> None:
        """Send a visitor away because we ran out of something."""
        with self._lock:
            self._send_one_away()

    def _send_one_away(self) -> None:
        if self._visitors:
            crowd = Counter(each.address for each in self._visitors)
            most = max(crowd.values())
            oldest = next(each for each in self._visitors if crowd[each.address] == most)
            del self._visitors[oldest]
            end_of(oldest.socket)

    def seat(self, connection: Connection) -> bool:
        """Make a visitor a guest; False when its address or all together have too many."""
        with self._lock:
            same = sum(each.address == connection.address for each in self._guests)
            if len(self._guests) >= self._limits.associations or same >= self._limits.per_address:
                return False
            if connection not in self._visitors:
                return False  # it was sent away a moment ago
            del self._visitors[connection]
            self._guests.add(connection)
            return True

    def unseat(self, connection: Connection) -> None:
        """Make a guest a visitor again: it has only to be told that its association is over."""
        with self._lock:
            if connection in self._guests:
                self._guests.remove(connection)
                if len(self._visitors) >= self._limits.handshakes:
                    self._send_one_away()
                self._visitors[connection] = None

    def see_off(self, connection: Connection) -> None:
        """Forget a connection."""
        with self._lock:
            self._visitors.pop(connection, None)
            self._guests.discard(connection)

    def guests(self) -> list[Connection]:
        """Return those who have associated."""
        with self._lock:
            return [*self._guests]

    def visitors(self) -> list[Connection]:
        """Return those who have not, or not any more."""
        with self._lock:
            return [*self._visitors]


class Peers:
    """Who may send."""

    def __init__(self, door: Door) -> None:
        self._open = door.open
        self._known = [
            (peer.ae_title.strip(), [ip_network(each) for each in peer.addresses], peer.certificate)
            for peer in door.peers
        ]

    def know(self, ae_title: str, address: str, fingerprint: str | None) -> bool:
        """Return whether title, address and certificate belong to one of them."""
        if not ae_title:
            return False
        here = ip_address(address)
        return self._open or any(
            ae_title == title
            and (not networks or any(here in network for network in networks))
            and certificate in {None, fingerprint}
            for title, networks, certificate in self._known
        )


class Complaints:
    """Lines about those who came to nothing: a few in ten seconds, for the rest their number."""

    def __init__(self, what: str = "connections") -> None:
        self._what = what
        self._lock = threading.Lock()
        self._since = 0.0
        self._said: set[str] = set()
        self._more: Counter[str] = Counter()

    def note(self, address: str, words: str) -> None:
        """Say or count one more."""
        with self._lock:
            if not self._said:
                self._since = time.monotonic()
            if address in self._said or len(self._said) >= COMPLAINTS:
                room = len(self._more) < MOST_COMPLAINERS
                self._more[address if room or address in self._more else ELSEWHERE] += 1
                return
            self._said.add(address)
        log.warning("one of the %s from %s came to nothing: %s", self._what, address, words)

    def sum_up(self, *, now: float | None = None) -> None:
        """Say how many were only counted, if ten seconds have passed."""
        now = time.monotonic() if now is None else now
        with self._lock:
            if not self._said or now - self._since < COMPLAINT_S:
                return
            number, addresses = self._more.total(), len(self._more)
            most = next(iter(self._more.most_common(1)), None)
            self._said.clear()
            self._more.clear()
        if most is not None:
            log.warning(
                "%d more %s from %d addresses came to nothing, most of them from %s",
                *(number, self._what, addresses, most[0]),
            )
