"""The commands that copy the data folder and put it back."""

import argparse
from collections.abc import Callable
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from app.command import answer, job_log
from app.config import Config
from app.errors import DONE, StudyError


def add_commands(add: Callable[..., Any]) -> None:
    """Add them to the parser."""
    backup = add("backup", _backup, "copy the data folder while the node works", asks=True)
    backup.add_argument("folder", type=Path, help="where this node's backups lie")
    backup.add_argument("--keep", type=int, metavar="N", help="then remove all but the newest N")
    backup.add_argument(
        "--full", action="store_true", help="copy what has not changed as well, instead of linking"
    )
    restore = add("restore", _restore, "put a backup into an empty data folder", asks=True)
    restore.add_argument(
        "folder", type=Path, help="a backup, or a folder of which the newest counts"
    )


def _backup(args: argparse.Namespace, config: Config) -> int:
    from app.backup import back_up  # noqa: PLC0415  # loads what reads DICOM, only when asked

    if args.keep is not None and args.keep < 1:
        raise StudyError(f"--keep {args.keep}: give a number above 0")
    with job_log(config) as store:
        made = back_up(
            *(config, args.path, store, args.folder),
            now=datetime.now(UTC),
            keep=args.keep,
            full=args.full,
        )
    answer(args, asdict(made), made.words)
    return DONE


def _restore(args: argparse.Namespace, config: Config) -> int:
    from app.restore import restore  # noqa: PLC0415  # loads what reads DICOM, only when asked

    told = restore(config, args.folder)
    words = (
        f"{told['files']} files, {told['bytes'] / 1e6:.1f} MB from {told['backup']} are in"
        f" {told['data']}; what came after {told['moment']} must be sent again"
    )
    answer(args, told, words)
    return DONE
