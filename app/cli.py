"""The commands. Exit status: 0 done, 1 the input is wrong, 2 the node is."""

import argparse
import os
import sys
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NoReturn

from app import cli_backup, cli_deliver, cli_health, show
from app.command import Command, answer, job_log, job_log_if_there
from app.config import Config, config_path, load_config
from app.dicom.encoded import is_uid
from app.errors import DONE, INPUT_WRONG, NODE_WRONG, ConfigError, NodeError, StudyError
from app.log import set_up
from app.pipeline import JOB_STAGES
from app.results.forms import Form
from app.store.jobs import State, StudyState
from app.store.store import Store
from app.story import story_of
from app.trace_words import trace


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status."""
    args = parser().parse_args(argv)
    try:
        set_up(stream=sys.stderr if args.asks else sys.stdout, to_file=not args.asks)
        args.path = config_path(args.config)
        config = load_config(args.path)
        config = config.at(args.data or config.data)
        command: Command = args.command
        return command(args, config)
    except StudyError as error:
        print(error, file=sys.stderr)
        return INPUT_WRONG
    except NodeError as error:
        print(error, file=sys.stderr)
        return int(args.wrong)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """End with our own exit status: argparse's 2 would say that the node is wrong."""
        self.exit(INPUT_WRONG, f"{self.format_usage()}{self.prog}: {message}\n")


def parser() -> argparse.ArgumentParser:
    """Return the parser of all commands; the README's table of commands is checked against it."""
    top = _Parser(prog="python -m app", description=__doc__)
    shared = _Parser(add_help=False)
    shared.add_argument("--config", type=Path, help="app.yaml (else HOLOSCAN_CONFIG_PATH)")
    shared.add_argument("--data", type=Path, help="data folder, instead of the file's")
    shared.add_argument("--json", action="store_true", help="print JSON")
    commands = top.add_subparsers(required=True, metavar="COMMAND")

    def add(
        name: str, command: Command, words: str, *, asks: bool = False, wrong: int | None = None
    ) -> Any:
        sub = commands.add_parser(name, help=words, description=words, parents=[shared])
        usual = INPUT_WRONG if asks else NODE_WRONG
        sub.set_defaults(command=command, asks=asks, wrong=usual if wrong is None else wrong)
        return sub

    add("serve", _serve, "run the resident node until SIGTERM")
    run = add("run", _run, "read a folder of studies once, as a MAP does")
    run.add_argument("-i", "--input", type=Path, help="else HOLOSCAN_INPUT_PATH")
    run.add_argument("-o", "--output", type=Path, help="else HOLOSCAN_OUTPUT_PATH")
    run.add_argument("-m", "--models", type=Path, help="else HOLOSCAN_MODEL_PATH")
    run.add_argument(
        "--forms", default="seg,sr", help="what is made, as seg,sr,csv (default: seg,sr)"
    )
    check = add("check", _check, "check app.yaml, the models and, if asked, all peers", asks=True)
    check.add_argument("--connect", action="store_true", help="ask every archive and peer")
    explain = add("explain", _explain, "say which routes take a study, and why", asks=True)
    explain.add_argument("study", help="DICOM files or their folder, or the UID of a study")
    explain.add_argument("--now", action="store_true", help="by app.yaml as it is now")
    replay = add("replay", _replay, "try the rules on past studies, sending nothing", asks=True)
    replay.add_argument("--since", metavar="DATE", required=True, help="first day, as 2030-12-31")
    replay.add_argument("--until", metavar="DATE", help="last day")
    replay.add_argument("--route", action="append", default=[], help="only this one; may repeat")
    replay.add_argument("--source", metavar="ARCHIVE", help="its studies, not those of the log")
    replay.add_argument("--limit", type=int, metavar="N", help="at most so many studies")
    jobs = add("jobs", _jobs, "list jobs, newest first", asks=True)
    jobs.add_argument("--state", type=State, choices=list(State), help="only in this state")
    jobs.add_argument("--limit", type=int, default=50)
    add("studies", _studies, "list received studies, newest first", asks=True)
    for name, command, words in (
        ("show", _show, "tell a job's history, or a study's"),
        ("retry", _retry, "put a failed or cancelled job back into the queue"),
        ("cancel", _cancel, "cancel a job"),
    ):
        sub = add(name, command, words, asks=True)
        if name == "show":
            sub.add_argument("id", nargs="?", help="job id or study UID; else the newest job")
        else:
            sub.add_argument("id", help="job id or study UID")
        if name == "retry":
            sub.add_argument("--from", dest="stage", choices=JOB_STAGES, help="this stage, anew")
    cli_deliver.add_commands(add)
    cli_health.add_command(add)
    cli_backup.add_commands(add)
    complete = add("complete", _complete, "say that a study is complete now", asks=True)
    complete.add_argument("study", help="study UID")
    add("refused", _refused, "list what the door refused or put aside, newest first", asks=True)
    add(
        "sources",
        _sources,
        "list the archives that are asked, and what is known of their studies",
        asks=True,
    )
    fetch = add("fetch", _fetch, "fetch a study from an archive now", asks=True)
    fetch.add_argument("study", help="UID of the study")
    fetch.add_argument("--source", help="the archive; needed where several are asked")
    add("models", _models, "list the models that app.yaml names", asks=True)
    return top


def _serve(args: argparse.Namespace, config: Config) -> int:
    from app.serve import serve  # noqa: PLC0415  # Holoscan takes a second to import

    return serve(config, args.path)


def _run(args: argparse.Namespace, config: Config) -> int:
    from app.batch import run_batch  # noqa: PLC0415  # Holoscan takes a second to import

    source = _folder(args.input, "HOLOSCAN_INPUT_PATH", "input")
    output = _folder(args.output, "HOLOSCAN_OUTPUT_PATH", "output")
    return run_batch(config, source, output, args.models, _forms(args.forms))


def _forms(names: str) -> tuple[Form, ...]:
    wrong = [name for name in names.split(",") if name not in {*Form}]
    if wrong:
        raise StudyError(f"--forms: {wrong[0]!r} is none of {', '.join(Form)}")
    return tuple(dict.fromkeys(Form(name) for name in names.split(",")))


def _folder(given: Path | None, variable: str, default: str) -> Path:
    return given or Path(os.environ.get(variable) or default)


def _check(args: argparse.Namespace, config: Config) -> int:
    from app.check import warnings  # noqa: PLC0415  # loads what reads DICOM, only when asked
    from app.installed import install  # noqa: PLC0415  # reads cards only when asked

    models = install(config)
    told = [*warnings(config, models)]
    lines = [f"{args.path}: right, {len(config.routes)} routes"]
    lines += [
        f"model {name}: {each.card.identity} in {each.folder}" for name, each in models.items()
    ]
    lines += [f"warning: {each}" for each in told]
    found = {"config": str(args.path), "models": sorted(models), "warnings": told}
    if not args.connect:
        answer(args, found, "\n".join(lines))
        return DONE
    from app.connect import ask_all  # noqa: PLC0415  # only then somebody is called

    answers = ask_all(config)
    lines += [each.words for each in answers]
    answer(args, found | {"peers": [asdict(each) for each in answers]}, "\n".join(lines))
    return DONE if all(each.answers for each in answers) else INPUT_WRONG


def _explain(args: argparse.Namespace, config: Config) -> int:
    from app import explain  # noqa: PLC0415  # loads what reads DICOM, only when asked

    path = Path(args.study)
    if path.exists():
        traces = explain.of_files(path, config.routes)
        words = (f"study {each['study']}: {trace(each)}" for each in traces)
        answer(args, traces, "\n\n".join(words))
        return DONE
    with job_log(config) as store:
        if args.now:
            told = explain.of_study_now(store, args.study, config.routes)
        else:
            told = explain.of_study(store, args.study)
    answer(args, told, f"study {told['study']}: {trace(told)}")
    return DONE


def _replay(args: argparse.Namespace, config: Config) -> int:
    from app import replay  # noqa: PLC0415  # loads what reads DICOM, only when asked
    from app.fetch.remote import remote  # noqa: PLC0415  # same
    from app.pipeline.rehearse import Rehearsal  # noqa: PLC0415  # same

    days = replay.Days.of(args.since, args.until)
    rehearsal = Rehearsal(replay.chosen(config, args.route), gone=not args.route)
    if args.limit is not None and args.limit < 1:
        raise ConfigError(f"--limit {args.limit}: give a number above 0")
    if args.source is not None and args.source not in config.archives:
        there = ", ".join(config.archives)
        raise ConfigError(f"--source {args.source}: app.yaml has no such archive; it has {there}")
    began = time.monotonic()
    if args.source is None:
        with job_log(config) as store:
            replay.replay_log(store, days, args.limit, rehearsal)
    else:
        with (
            job_log_if_there(config) as log,
            closing(remote(config, args.source, log)) as archive,
        ):
            replay.replay_archive(archive, log, days, args.limit, rehearsal)
    seconds = time.monotonic() - began
    told = {"since": str(days.first), "seconds": seconds} | rehearsal.to_json()
    answer(args, told, replay.words(rehearsal, days, seconds))
    return DONE


def _jobs(args: argparse.Namespace, config: Config) -> int:
    with job_log(config) as store:
        jobs = store.jobs(state=args.state, limit=args.limit)
        replaced = store.replaced(job.id for job in jobs)
    listed = [asdict(job) | {"replaces": replaced.get(job.id, [])} for job in jobs]
    answer(args, listed, show.jobs(jobs, replaced))
    return DONE


def _studies(args: argparse.Namespace, config: Config) -> int:
    with job_log(config) as store:
        studies = store.studies()
    answer(args, [asdict(study) for study in studies], show.studies(studies))
    return DONE


def _show(args: argparse.Namespace, config: Config) -> int:
    with job_log(config) as store:
        args.id = args.id or _newest(store)
        if "." in args.id:  # a UID; the names of jobs have no dots
            study_uid, jobs = args.id, store.jobs(study_uid=args.id)
        else:
            job = store.job(args.id)
            study_uid, jobs = job.study_uid, [job]
        remotes = _remotes(store, study_uid)
        if remotes and store.trace(study_uid) is None and not store.study_events(study_uid):
            answer(args, {"remotes": remotes}, show.remotes(remotes))
            return DONE
        story = story_of(store, study_uid, jobs) | {"remotes": remotes}
    answer(args, story, show.story(story))
    return DONE


def _newest(store: Store) -> str:
    jobs = store.jobs(limit=1)
    if not jobs:
        raise StudyError("there is no job yet; `studies` lists what was received")
    return jobs[0].id


def _retry(args: argparse.Namespace, config: Config) -> int:
    with job_log(config) as store:
        job = store.job(args.id)
        store.retry(job.id, datetime.now(UTC), args.stage)
    answer(args, {"job": job.id}, f"job {job.id} is queued again")
    return DONE


def _cancel(args: argparse.Namespace, config: Config) -> int:
    with job_log(config) as store:
        job = store.job(args.id)
        store.cancel(job.id, datetime.now(UTC))
    answer(args, {"job": job.id}, f"job {job.id} is cancelled")
    return DONE


def _complete(args: argparse.Namespace, config: Config) -> int:
    with job_log(config) as store:
        if not store.complete(args.study, "said by hand to be complete", datetime.now(UTC)):
            state = store.study(args.study).state
            told = "was routed already" if state is StudyState.ROUTED else "cannot be routed"
            raise StudyError(
                f"study {args.study} {told}; `show` says what came of it, and one more object"
                " opens it again"
            )
    answer(args, {"study": args.study}, f"study {args.study} is routed now")
    return DONE


def _refused(args: argparse.Namespace, config: Config) -> int:
    with job_log(config) as store:
        events = store.door_events()
    answer(args, [asdict(event) for event in events], show.refused(events))
    return DONE


def _remotes(store: Store, study_uid: str) -> list[dict[str, Any]]:
    """Return what is known of a study in archives, with the trace of each."""
    return [
        {**asdict(each), "trace": store.remote_trace(each.source, study_uid)}
        for each in store.remotes(study_uid)
    ]


def _sources(args: argparse.Namespace, config: Config) -> int:
    from app.fetch.status import read_status  # noqa: PLC0415  # only this command needs it

    with job_log(config) as store:
        counts, newest = store.remote_counts(), store.remotes(limit=20)
    told = [
        {
            "source": each.archive,
            **asdict(read_status(config.data, each.archive)),
            "studies": counts.get(each.archive, {}),
        }
        for each in config.sources
    ]
    shown = [asdict(each) for each in newest]
    answer(args, {"sources": told, "newest": shown}, show.sources(told, shown))
    return DONE


def _fetch(args: argparse.Namespace, config: Config) -> int:
    names = [each.archive for each in config.sources]
    source = args.source or (names[0] if len(names) == 1 else None)
    if source not in names:
        raise StudyError(
            f"--source: give one of {', '.join(names) or 'none: app.yaml names no source'}"
        )
    if not is_uid(args.study):
        raise StudyError(f"{args.study}: is no UID of a study")
    with job_log(config) as store:
        store.ask_for(source, args.study, "somebody asked for it", datetime.now(UTC))
    told = {"study": args.study, "source": source}
    answer(args, told, f"study {args.study} is fetched from {source}")
    return DONE


def _models(args: argparse.Namespace, config: Config) -> int:
    from app.installed import install  # noqa: PLC0415  # reads cards only when asked

    cards = {name: each.card for name, each in install(config).items()}
    listed = {name: card.model_dump(mode="json") for name, card in cards.items()}
    lines = [f"{name}: {card.identity}, {card.licence}" for name, card in cards.items()]
    answer(args, listed, "\n".join(lines))
    return DONE
