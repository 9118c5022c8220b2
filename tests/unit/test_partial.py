"""Bytes on their way into a file of their own.

Covered: where a file ends, whatever its length is. Not covered: what becomes of the object
(test_incoming.py), power cuts (tests/faults).
"""

import hashlib
from pathlib import Path

import pytest

from app.door.partial import ALIGNED, BLOCK, Blocks, Partial


@pytest.mark.parametrize("head", [0, 300])
@pytest.mark.parametrize(
    "size", [0, 1, ALIGNED - 1, ALIGNED, ALIGNED + 1, BLOCK, BLOCK + 1, 2 * BLOCK + ALIGNED]
)
def test_a_file_ends_where_its_bytes_end(tmp_path: Path, size: int, head: int) -> None:
    """Whole pages are written past the cache and the rest through it; the head is not digested."""
    content = bytes(range(251)) * (size // 251 + 1)
    partial = Partial(tmp_path / "x.dcm", Blocks())
    partial.begin(b"h" * head)
    partial.append(content[:size])
    partial.complete()
    partial.sync()
    partial.rename(tmp_path / "x.dcm")
    assert (tmp_path / "x.dcm").read_bytes() == b"h" * head + content[:size]
    assert partial.sha256() == hashlib.sha256(content[:size]).hexdigest()
    assert partial.size == head + size
    partial.close()
