"""The DICOM port: connections in, each into a thread of its own. Nothing is decoded here."""

import errno
import logging
import socket
import threading
import time
from contextlib import suppress

from app.config_door import Door
from app.dicom.wire import end_of
from app.door.association import Association, Services
from app.door.commitment import Reporter
from app.door.guard import Complaints, Connection, Guard, Peers, address_of
from app.door.intake import Intake
from app.errors import ConfigError
from app.store.store import Store
from app.tls import server_context

log = logging.getLogger(__name__)

BACKLOG = 512
ACCEPT_S = 1.0
PAUSE_S = 0.02
RECEIVE_BUFFER = 1 << 20


class Scp:
    """One listening port; objects go to the intake, and the end of an association to the store."""

    def __init__(self, config: Door, intake: Intake, store: Store) -> None:
        self._config = config
        self._tls = server_context(config.tls) if config.tls else None
        self._stopping = threading.Event()
        self._services = Services(
            config=config,
            intake=intake,
            store=store,
            guard=Guard(config.limits),
            peers=Peers(config),
            complaints=Complaints(),
            reporter=Reporter(config),
            stopping=self._stopping,
        )
        self._listener: socket.socket | None = None
        self.turned_at = time.monotonic()
        """When it was last ready for the next connection."""

    def open(self) -> int:
        """Listen; return the port."""
        host, port = self._config.host, self._config.port
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        try:
            self._listener = socket.create_server((host, port), family=family, backlog=BACKLOG)
        except OSError as error:
            raise ConfigError(
                f"door.host, door.port: cannot listen on {host}:{port} ({error.strerror}); stop "
                "the other program there, or give an address of this machine and a free port"
            ) from error
        # before anybody connects: the size of the window is agreed on with the first packets
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)
        self._listener.settimeout(ACCEPT_S)
        threading.Thread(target=self._accept, name="accept", daemon=True).start()
        return int(self._listener.getsockname()[1])

    def close(self, grace_s: float) -> None:
        """Let running C-STOREs come to their end, at most `grace_s`, and end all associations."""
        deadline = time.monotonic() + grace_s
        self._stopping.set()
        self._services.reporter.close()
        if self._listener is not None:
            end_of(self._listener)
        guests = self._services.guard.guests()
        for each in guests:
            each.idle.wait(max(0.0, deadline - time.monotonic()))
            end_of(each.socket, socket.SHUT_RD)  # it wakes up and takes its leave
        for each in guests:
            each.done.wait(max(0.0, deadline - time.monotonic()))
        for each in self._services.guard.visitors():
            end_of(each.socket)
        self._services.complaints.sum_up(now=float("inf"))

    # -- at the port -------------------------------------------------------------------------

    def _accept(self) -> None:
        """Take connections; nothing in here waits for a peer."""
        assert self._listener is not None  # noqa: S101  # for the type checker
        with self._listener as listener:
            while not self._stopping.is_set():
                self.turned_at = time.monotonic()
                self._services.complaints.sum_up()
                try:
                    accepted, address = listener.accept()
                except TimeoutError:
                    continue
                except OSError as error:
                    self._cannot_accept(error)
                    continue
                self._begin(accepted, str(address[0]))

    def _begin(self, accepted: socket.socket, host: str) -> None:
        connection = Connection(accepted, address_of(host))
        try:
            # without it each answer waits for the peer's delayed acknowledgement, 40 ms an object
            accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self._tls is not None:
                connection.socket = self._tls.wrap_socket(
                    accepted, server_side=True, do_handshake_on_connect=False
                )
            self._services.guard.let_in(connection)
            association = Association(connection, self._services)
            threading.Thread(target=association.run, daemon=True).start()
        except (OSError, ValueError, RuntimeError, MemoryError) as error:
            # RuntimeError: no more threads
            self._services.guard.see_off(connection)
            with suppress(OSError):
                connection.socket.close()
            self._services.complaints.note(connection.address, type(error).__name__)

    def _cannot_accept(self, error: OSError) -> None:
        if self._stopping.is_set() or error.errno == errno.ECONNABORTED:
            return
        # no more descriptors: whoever is silent gives one back
        self._services.guard.make_room()
        self._services.complaints.note("anywhere", error.strerror or type(error).__name__)
        self._stopping.wait(PAUSE_S)
