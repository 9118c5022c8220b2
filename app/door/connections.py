"""HTTP connections before and between requests: limited in number, in time and in what they cost.

uvicorn's own protocol waits for ever for a request that does not come, reads a body of one-byte
chunks to the end of its buffer before anybody else is served, and cannot be filled with enough
connections. Here it is told otherwise.
"""

import asyncio
import socket
from contextlib import suppress
from typing import Any

import h11
from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT, FlowControl
from uvicorn.protocols.http.h11_impl import H11Protocol

from app.door.body import BROKEN
from app.door.guard import Complaints

EVENTS = 500
"""After so many events of one connection, some milliseconds, the others get their turn."""

AGAIN_S = 30.0
"""Time to fetch an answer, and to come with another request."""


class Listener(socket.socket):
    """A listening socket that keeps few silent connections: the oldest makes room for a new one.

    Those whose request has begun are not counted, their number is limited elsewhere.
    """

    def __init__(self, host: str, port: int, most: int) -> None:
        info = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        super().__init__(info[0][0], socket.SOCK_STREAM)
        self.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._most = most
        self._silent: dict[Any, socket.socket] = {}
        self._address = info[0][4]

    def start(self) -> int:
        """Listen and return the port."""
        self.bind(self._address)
        self.listen(128)
        return int(self.getsockname()[1])

    def accept(self) -> tuple[socket.socket, Any]:
        """Take the next connection, at the expense of the oldest silent one."""
        connection, address = super().accept()
        self._silent.pop(address[:2], None)
        self._silent[address[:2]] = connection
        if len(self._silent) > self._most:
            oldest = self._silent.pop(next(iter(self._silent)))
            with suppress(OSError):  # the peer was faster
                oldest.shutdown(socket.SHUT_RDWR)  # its transport sees the end and closes it
        return connection, address

    def spoke(self, address: Any) -> None:
        """Note that a connection is silent no more, or is gone."""
        self._silent.pop(address, None)


class _Connection(h11.Connection):
    """Says that it needs data when it had its turn."""

    turn = EVENTS
    waiting = False

    def next_event(self) -> Any:
        if self.turn <= 0:
            self.waiting = True
            return h11.NEED_DATA
        self.turn -= 1
        return super().next_event()


class _Flow(FlowControl):
    """Does not read on while there is something left to be looked at."""

    held = False

    def resume_reading(self) -> None:
        if not self.held:
            super().resume_reading()


class Protocol(H11Protocol):
    """One connection."""

    listener: Listener
    complaints: Complaints
    first_s = 5.0
    """Time for the first request's head."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        size = self.config.h11_max_incomplete_event_size
        self.conn = _Connection(h11.SERVER, size) if size else _Connection(h11.SERVER)
        self._deadline: asyncio.TimerHandle | None = None
        self._seen_cycle: Any = None
        self._broken = False

    def connection_made(self, transport: Any) -> None:
        """Begin to wait for a request."""
        super().connection_made(transport)
        self.flow = _Flow(transport)
        self._allow(self.first_s)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        self.listener.spoke(self.client)
        self._allow(None)
        super().connection_lost(exc)

    def handle_events(self) -> None:
        """Handle what came, but no more than a turn of it."""
        if self.transport.is_closing() or self._broken:
            return
        conn: Any = self.conn
        conn.turn, conn.waiting = EVENTS, False
        super().handle_events()
        if self.cycle is not self._seen_cycle:  # the head of a request is complete
            self._seen_cycle = self.cycle
            self.listener.spoke(self.client)
            if not self.cycle.response_complete:
                self._allow(None)
        self._take_turns(waiting=conn.waiting)

    def _take_turns(self, *, waiting: bool) -> None:
        flow: Any = self.flow
        held, flow.held = flow.held, waiting or self._broken
        if waiting:
            flow.pause_reading()
            self.loop.call_soon(self.handle_events)
        elif held and (self.cycle is None or len(self.cycle.body) <= HIGH_WATER_LIMIT):
            flow.resume_reading()

    def on_response_complete(self) -> None:
        """Give the sender time to fetch the answer."""
        self._allow(AGAIN_S)
        super().on_response_complete()

    def send_400_response(self, msg: str) -> None:
        """Refuse what is no HTTP; in the middle of a body its request gives the answer."""
        self.complaints.note(self._address, "no proper HTTP")
        self._allow(AGAIN_S)
        cycle = self.cycle
        if cycle is None or cycle.response_complete:
            if self.conn.our_state in {h11.IDLE, h11.SEND_RESPONSE}:
                super().send_400_response(msg)
            else:
                self.transport.close()
        elif cycle.response_started:
            self.transport.close()
        else:
            self._broken = True
            self.flow.pause_reading()
            # what came before may be kept already, and its sender is to know
            cycle.scope["state"][BROKEN] = True
            cycle.more_body = cycle.keep_alive = False
            cycle.message_event.set()

    @property
    def _address(self) -> str:
        return str(self.client[0]) if self.client else "nowhere"

    def _allow(self, seconds: float | None) -> None:
        """Cut the connection after so long, unless it is allowed more until then."""
        if self._deadline is not None:
            self._deadline.cancel()
        self._deadline = self.loop.call_later(seconds, self._cut) if seconds else None

    def _cut(self) -> None:
        if self.cycle is None:
            self.complaints.note(self._address, "no request in time")
        self.transport.abort()
