"""What the commands share: the job log that they read, and how they answer."""

import argparse
import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import Any

from app.config import Config
from app.errors import ConfigError
from app.store.store import Store

Command = Callable[[argparse.Namespace, Config], int]
"""Takes the command line and the configuration; returns the exit status."""


@contextmanager
def job_log(config: Config) -> Iterator[Store]:
    """Open the node's job log, or say that there is none."""
    path = config.data / "node.db"
    if not path.exists():
        raise ConfigError(f"{path}: there is no job log here; start the node or give --data")
    with closing(Store.open(path, migrate=False)) as store:
        yield store


@contextmanager
def job_log_if_there(config: Config) -> Iterator[Store | None]:
    """Open the node's job log; None where no node ever ran."""
    if not (config.data / "node.db").exists():
        yield None
        return
    with job_log(config) as store:
        yield store


def answer(args: argparse.Namespace, value: Any, words: str) -> None:
    """Print an answer, in words or as JSON."""
    try:
        print(json.dumps(value, default=str, indent=1) if args.json else words, flush=True)
    except BrokenPipeError:  # `| head` has read enough; nothing may be flushed at the end either
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
