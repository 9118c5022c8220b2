"""Real data that lie beside the project on some machines and are no part of it."""

from pathlib import Path

import pytest

REAL_TILT = Path(__file__).parents[2] / "shared/data/ct-head-tilt"
"""A human head CT with a tilted gantry and uneven slice distances."""

needs_real_tilt = pytest.mark.skipif(
    not REAL_TILT.is_dir(), reason="the real tilted CT is not beside the project"
)
