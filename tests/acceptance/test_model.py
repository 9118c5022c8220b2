"""The shipped model on phantoms that its training never saw.

Covered: the Dice that the README gives, by the command that it names. Not covered: a CUDA device.
"""

import subprocess
import sys

import pytest

from tests.node import ROOT


@pytest.mark.slow
def test_the_shipped_model_is_above_its_bars() -> None:
    """The command exits with 1 when the mean of one organ is not."""
    evaluated = subprocess.run(
        [sys.executable, "-m", "tests.phantoms", "evaluate"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert evaluated.returncode == 0, evaluated.stdout + evaluated.stderr
    assert "every organ is above its bar" in evaluated.stdout
