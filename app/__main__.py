"""`python -m app COMMAND …`, or the MAP contract: `python -m app -i INPUT -o OUTPUT -m MODELS`."""

import os
import sys
from collections.abc import Sequence

from app.cli import main


def with_command(argv: Sequence[str]) -> list[str]:
    """Return the arguments with `run` in front where a MAP is called, which names no command."""
    called_as_map = not argv and "HOLOSCAN_INPUT_PATH" in os.environ
    first_is_option = bool(argv) and argv[0].startswith("-") and argv[0] not in {"-h", "--help"}
    return ["run", *argv] if called_as_map or first_is_option else list(argv)


if __name__ == "__main__":
    sys.exit(main(with_command(sys.argv[1:])))
