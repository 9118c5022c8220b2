"""Good bytes made bad by chance, and a watch over the door that gets them."""

import random
import struct
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.sockets.besieged import Besieged
from tests.waiting import wait_until

NUMBERS = (0, 1, 2, 3, 7, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFE, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFE)
LONGEST = 1 << 20
CHECK_EVERY_S = 4.0
WARM_UP = 0.2
HONEST_S = 2.0
MOST_MB, MOST_PART = 64.0, 0.10


class Mutator:
    """Makes bad bytes of good ones; the same seed makes the same ones."""

    def __init__(self, seed: int, corpus: Sequence[bytes]) -> None:
        self.chance = random.Random(seed)  # noqa: S311  # to be repeated
        self._corpus = corpus

    def one(self) -> bytes:
        """Return one of the corpus, with one to five changes."""
        data = bytearray(self.chance.choice(self._corpus))
        self.change(data)
        return bytes(data[:LONGEST])

    def change(self, data: bytearray) -> None:
        """Change these bytes in one to five places."""
        kinds = (self._flip, self._cut, self._remove, self._double, self._splice, self._lie)
        for _ in range(self.chance.choice((1, 1, 1, 2, 3, 5))):
            self.chance.choice((*kinds, self._flip, self._lie, self._grow))(data)

    def _flip(self, data: bytearray) -> None:
        for _ in range(self.chance.choice((1, 1, 4, 32))):
            if data:
                data[self._place(data)] ^= self.chance.choice((1, 0x80, 0xFF, self._byte()))

    def _cut(self, data: bytearray) -> None:
        del data[self._place(data) :]

    def _remove(self, data: bytearray) -> None:
        at = self._place(data)
        del data[at : at + self._few()]

    def _double(self, data: bytearray) -> None:
        at = self._place(data)
        data[at:at] = data[at : at + self._few()] * self.chance.choice((1, 1, 2, 50))

    def _splice(self, data: bytearray) -> None:
        other = self.chance.choice(self._corpus)
        start, at = self._place(other), self._place(data)
        data[at : at + self.chance.choice((0, self._few()))] = other[start : start + self._few()]

    def _lie(self, data: bytearray) -> None:
        form = self.chance.choice((">H", "<H", ">L", "<L"))
        most = (1 << (8 * struct.calcsize(form))) - 1
        number = self.chance.choice((*NUMBERS, len(data), self.chance.randrange(1 << 16)))
        at = self._place(data)
        data[at : at + struct.calcsize(form)] = struct.pack(form, number & most)

    def _grow(self, data: bytearray) -> None:
        at = self._place(data)
        data[at:at] = bytes([self._byte()]) * self.chance.choice((1, 2, 300, 70_000))

    def _place(self, data: bytes | bytearray) -> int:
        # headers stand in front, and are what there is to be understood
        end = max(1, len(data))
        return self.chance.randrange(min(end, 600) if self.chance.random() < 0.6 else end)

    def _few(self) -> int:
        return self.chance.choice((1, 2, 4, 8, 40, 500))

    def _byte(self) -> int:
        return self.chance.choice((0, 0xFF, 0x0A, 0x22, self.chance.randrange(256)))


class Watch:
    """Looks at a door between inputs; what it had last, when something is wrong, is kept."""

    def __init__(
        self, door: Besieged, folder: Path, honest: Callable[[], float], slack: int = 0
    ) -> None:
        self._door, self._folder, self._honest = door, folder, honest
        self._slack = slack
        self._last: deque[bytes] = deque(maxlen=2000)
        self._memory_mb = 0.0
        self._base = (0, 0)
        self.worst_s = 0.0
        self.number = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _: type[BaseException] | None, error: BaseException | None, __: TracebackType | None
    ) -> None:
        if error is not None:
            for number, data in enumerate(self._last):
                (self._folder / f"input-{number:04}.bin").write_bytes(data)
            error.add_note(f"the last inputs, the newest last, are {self._folder}/input-*.bin")

    def run(self, seconds: float, make: Callable[[], bytes], say: Callable[[bytes], None]) -> None:
        """Attack for so long; after a while nothing may grow any more."""
        self._check_honest()
        self._base = self._door.threads(), self._door.descriptors()
        for part in (seconds * WARM_UP, seconds * (1 - WARM_UP)):
            for data in self._inputs(part, make):
                say(data)
            self._memory_mb = self._memory_mb or self._door.memory_mb()

    def _inputs(self, seconds: float, make: Callable[[], bytes]) -> Iterator[bytes]:
        """Yield inputs for so long; look at the door now and then."""
        end = time.monotonic() + seconds
        check_at = 0.0
        while (now := time.monotonic()) < end:
            if now >= check_at:
                self._check_honest()
                self._last.clear()
                check_at = time.monotonic() + CHECK_EVERY_S
            self._last.append(data := make())
            self.number += 1
            yield data

    def _check_honest(self) -> None:
        self._door.check_alive()
        assert [*filter(_is_unforeseen, self._door.lines())] == []
        took = max(self._door.echo_s(), self._honest())
        assert took < HONEST_S
        self.worst_s = max(self.worst_s, took)

    def check_the_end(self) -> str:
        """Nothing may be left of the attack; return what it has cost."""
        door = self._door
        self._check_honest()
        wait_until(lambda: door.threads() <= self._base[0] + self._slack, 10, "threads' end")
        wait_until(lambda: door.descriptors() <= self._base[1] + self._slack, 10, "files' end")
        assert not door.partial()
        door.check_integrity()
        grown = door.memory_mb() - self._memory_mb
        assert grown <= min(MOST_MB, MOST_PART * self._memory_mb), f"{grown:.1f} MB more"
        return (
            f"{self.number} inputs, memory {self._memory_mb:.0f} {grown:+.1f} MB, "
            f"honest peers within {self.worst_s:.2f} s"
        )


def _is_unforeseen(line: dict[str, str]) -> bool:
    loud = line["level"] in {"ERROR", "CRITICAL"} and "other content" not in line["message"]
    return loud or "traceback" in line or "fault of ours" in line["message"]


@contextmanager
def survived(watch: Watch) -> Iterator[None]:
    """Check the end and say what it has cost."""
    with watch:
        yield
        print(watch.check_the_end())  # noqa: T201  # pytest shows it when asked
