"""The commands about what leaves and what stays: deliveries, reviews, and what is removed."""

import argparse
from collections.abc import Callable
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from app import show
from app.command import answer, job_log
from app.config import Config
from app.errors import DONE
from app.store.delivery import UNSETTLED, DeliveryState
from app.store.store import Store


def add_commands(add: Callable[..., Any]) -> None:
    """Add them to the parser."""
    deliveries = add(
        "deliveries", _deliveries, "list what is not proved to be in its archive", asks=True
    )
    deliveries.add_argument("--state", type=DeliveryState, choices=list(DeliveryState))
    deliveries.add_argument("--limit", type=int, default=1000)
    deliver = add("deliver", _deliver, "try waiting deliveries now", asks=True)
    deliver.add_argument("--pending", action="store_true", required=True, help="all that wait")
    for name, command, words in (
        ("release", _release, "let results that are held for review be sent"),
        ("resend", _resend, "send a job's results again, whatever became of them"),
    ):
        sub = add(name, command, words, asks=True)
        sub.add_argument("id", help="job id")
        sub.add_argument("--to", metavar="DESTINATION", help="this one alone")
    clean = add("clean", _clean, "remove what is over its time", asks=True)
    clean.add_argument("--dry-run", action="store_true", help="only say what would go")


def _deliveries(args: argparse.Namespace, config: Config) -> int:
    with job_log(config) as store:
        states = [args.state] if args.state else [*UNSETTLED]
        rows = store.deliveries(states=states, limit=args.limit)
    answer(args, [asdict(each) for each in rows], show.deliveries(rows))
    return DONE


def _deliver(args: argparse.Namespace, config: Config) -> int:
    with job_log(config) as store:
        number = store.hasten(datetime.now(UTC))
    answer(args, {"due": number}, f"{number} waiting deliveries are due now")
    return DONE


def _clean(args: argparse.Namespace, config: Config) -> int:
    from app.retain import clean  # noqa: PLC0415  # only this command needs it

    with job_log(config) as store:
        gone = clean(config, store, datetime.now(UTC), dry_run=args.dry_run)
    answer(args, asdict(gone), f"{'would remove' if args.dry_run else 'removed'} {gone.words}")
    return DONE


def _release(args: argparse.Namespace, config: Config) -> int:
    return _go_on(args, config, Store.release_held, "is released")


def _resend(args: argparse.Namespace, config: Config) -> int:
    return _go_on(args, config, Store.resend, "is sent again")


def _go_on(args: argparse.Namespace, config: Config, move: Any, words: str) -> int:
    with job_log(config) as store:
        job = store.job(args.id)
        moved = [each.destination for each in move(store, job.id, args.to, datetime.now(UTC))]
    told = f"job {job.id} {words} to {', '.join(moved)}"
    answer(args, {"job": job.id, "destinations": moved}, told)
    return DONE
