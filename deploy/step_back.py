"""Give an older release the job log that it can read: the copy made before its tables changed.

    python -m deploy.step_back --data FOLDER --steps FOLDER [--discard]

`--steps` is the folder of the older release's migrations. Where it knows the log's step there is
nothing to do. Else this says what the older copy does not know; with `--discard` the copy takes the
log's place, and the log itself is put aside under another name. The node must be stopped then.

Received objects stay: those without a row are new arrivals to the older release, which makes their
results again, with the same UIDs. Rows of objects that were removed since go, or the door would say
that it holds them.
"""

import argparse
import os
import re
import sys
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

from pysqlite3 import dbapi2  # type: ignore[import-untyped]  # ships no types

from app.errors import NodeError
from app.files import give_to_owner, locked, sync_file, sync_folder

SINCE = {
    "studies received": "SELECT count(*) FROM studies WHERE first_received_at > ?",
    "jobs made": "SELECT count(*) FROM jobs WHERE created_at > ?",
    "jobs changed": "SELECT count(*) FROM jobs WHERE updated_at > ? AND created_at <= ?1",
    "lines of history": "SELECT count(*) FROM job_events WHERE at > ?",
}


def main() -> int:
    """Return 0 when the older release can start, 1 when nothing was changed and it cannot."""
    parser = argparse.ArgumentParser(prog="python -m deploy.step_back", description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--steps", type=Path, required=True)
    parser.add_argument("--discard", action="store_true")
    args = parser.parse_args()
    log, known = args.data / "node.db", steps_in(args.steps)
    if not log.exists() or step_of(log) in known:
        print("the job log stays as it is")
        return 0
    copy = newest_copy(log, known)
    if copy is None:
        print(
            f"{log} is at step {step_of(log)}, which that release does not know, and no copy from"
            " before lies beside it; restore a backup with that release",
            file=sys.stderr,
        )
        return 1
    told = lost(log, copy)
    if not args.discard:
        print(
            f"the job log must go back to {copy.name}, and forgets: {told}. Received objects stay"
            " and their results are made again, with the same UIDs; what a person decided since"
            " (release, cancel, retry) is lost, and so is what was removed since. To do so:"
            " --rollback --discard-since-update",
            file=sys.stderr,
        )
        return 1
    with locked(args.data / "lock", refusal=f"{args.data}: a node works here; stop it first"):
        aside = step_back(log, copy)
    print(f"the job log is {copy.name} again; forgotten: {told}; the newer log lies in {aside}")
    return 0


def steps_in(folder: Path) -> set[str]:
    """Return the steps of a release's migrations."""
    text = "\n".join(each.read_text(encoding="utf-8") for each in folder.glob("v*.py"))
    return set(re.findall(r'^revision = "(\w+)"', text, re.MULTILINE))


def step_of(path: Path) -> str:
    """Return the step of a job log's tables."""
    with closing(dbapi2.connect(str(path))) as connection:
        (step,) = connection.execute("SELECT version_num FROM alembic_version").fetchone()
    return str(step)


def newest_copy(log: Path, known: set[str]) -> Path | None:
    """Return the copy with the highest step that is known."""
    copies = sorted(log.parent.glob(f"{log.name}.*.bak"))
    return next((each for each in reversed(copies) if step_of(each) in known), None)


def lost(log: Path, copy: Path) -> str:
    """Say what happened since the copy was made."""
    made = datetime.fromtimestamp(copy.stat().st_mtime, UTC)
    at = made.replace(tzinfo=None).isoformat(" ", "microseconds")
    with closing(dbapi2.connect(str(log))) as connection:
        counted = [
            f"{connection.execute(query, (at,)).fetchone()[0]} {what}"
            for what, query in SINCE.items()
        ]
    return f"{', '.join(counted)} since {made:%Y-%m-%d %H:%M} UTC"


def step_back(log: Path, copy: Path) -> Path:
    """Put the copy in the log's place; return where the log is now."""
    aside = log.with_name(f"{log.name}.{step_of(log)}.{datetime.now(UTC):%Y%m%dT%H%M%SZ}.aside")
    older = log.with_name(f"{log.name}.older")
    older.unlink(missing_ok=True)
    older.touch(mode=0o600)
    with closing(dbapi2.connect(str(copy))) as old, closing(dbapi2.connect(str(older))) as new:
        old.backup(new)
        with new:
            forget_removed(new, log.parent)
    sync_file(older)
    with closing(dbapi2.connect(str(log))) as now:  # into one file, nothing beside it
        now.execute("PRAGMA journal_mode = DELETE")
    give_to_owner(older, log.parent)
    os.link(log, aside)
    older.rename(log)  # at no moment there is no log: a node that starts would make a new one
    sync_folder(log.parent)
    return aside


def forget_removed(connection: dbapi2.Connection, data: Path) -> None:
    """Remove the rows of objects whose files are gone; a study without any is `removed`."""
    gone = [
        (sop_uid,)
        for sop_uid, file in connection.execute("SELECT sop_uid, file FROM instances")
        if not (data / file).exists()
    ]
    connection.executemany("DELETE FROM instances WHERE sop_uid = ?", gone)
    connection.execute(
        "UPDATE studies SET state = 'removed', instances = 0"
        " WHERE instances > 0 AND study_uid NOT IN (SELECT study_uid FROM instances)"
    )


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (NodeError, OSError, dbapi2.Error) as error:
        print(error, file=sys.stderr)
        sys.exit(2)
