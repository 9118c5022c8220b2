"""`python -m app COMMAND …`, or the MAP contract: `python -m app -i INPUT -o OUTPUT -m MODELS`."""

import os
import sys
from collections.abc import Sequence

from app.signals import block

RESIDENT = {"serve", "run"}
"""Commands that stop in an orderly way; the others end at once, as a person expects."""


def with_command(argv: Sequence[str]) -> list[str]:
    """Return the arguments with `run` in front where a MAP is called, which names no command."""
    called_as_map = not argv and "HOLOSCAN_INPUT_PATH" in os.environ
    first_is_option = bool(argv) and argv[0].startswith("-") and argv[0] not in {"-h", "--help"}
    return ["run", *argv] if called_as_map or first_is_option else list(argv)


if __name__ == "__main__":
    arguments = with_command(sys.argv[1:])
    if arguments and arguments[0] in RESIDENT:
        block()  # what is imported below starts threads, numpy for one
    from app.cli import main

    sys.exit(main(arguments))
