"""How long the fuzzers run: a minute each, or `pytest tests/faults --fuzz-seconds 3600`."""

import os

import pytest

SECONDS, SLACK_S = 60.0, 120.0


def pytest_addoption(parser: pytest.Parser) -> None:
    """Let a night be given to them, and a failure be repeated."""
    parser.addoption("--fuzz-seconds", type=float, default=SECONDS, help="time for each fuzzer")
    parser.addoption("--fuzz-seed", type=int, default=None, help="repeat what a run printed")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Give them time beyond the usual limit."""
    limit = config.getoption("--fuzz-seconds", SECONDS) + SLACK_S
    for item in items:
        if "fuzz_seconds" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.timeout(limit))


@pytest.fixture
def fuzz_seconds(request: pytest.FixtureRequest) -> float:
    """Return the time for one fuzzer."""
    return float(request.config.getoption("--fuzz-seconds", SECONDS))


@pytest.fixture
def fuzz_seed(request: pytest.FixtureRequest) -> int:
    """Return where chance begins; it is in the output of a test that fails."""
    given = request.config.getoption("--fuzz-seed", None)
    seed = int.from_bytes(os.urandom(4), "big") if given is None else int(given)
    print(f"--fuzz-seed {seed}")  # noqa: T201  # pytest shows it with a failure
    return seed
