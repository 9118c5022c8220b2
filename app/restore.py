"""Put a backup into an empty data folder: all of it, as it was, or nothing."""

import shutil
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from app.backup_folder import (
    ABOUT,
    CONFIG,
    CUT_SHORT,
    DATA,
    FORMAT,
    LOCK,
    LOG,
    RESTORING,
    SPARE,
    SUMS,
    Sums,
    copy,
    digest_of,
    has_room,
    in_words,
    listed,
    make_folders,
    read_sums,
    sync_folders,
    whole,
)
from app.config import Config
from app.errors import ConfigError, StoreError
from app.faults import crash_point
from app.files import locked, make_folder, read_json, sync_folder
from app.store.copies import check_copy


def restore(config: Config, folder: Path) -> dict[str, Any]:
    """Put a backup, or the newest one in a folder, back into an empty data folder."""
    backup = _chosen(folder.absolute())
    sums = read_sums(backup)
    about = _checked(backup, sums)
    data = config.data
    with in_words(data), ExitStack() as stack:
        make_folder(data)
        taken = f"{data}: a node works in this folder; stop it, or give another one by --data"
        stack.enter_context(locked(data / LOCK, refusal=taken))
        _is_empty(data)
        files = {path: sum_ for path, sum_ in sums.items() if path.startswith(f"{DATA}/")}
        has_room(data, SPARE + sum((backup / path).stat().st_size for path in files))
        (data / RESTORING).touch(mode=0o600)
        sync_folder(data)
        try:
            size = _put_back(backup, files, data)
            check_copy(data / LOG)
            sync_folders(data)
            crash_point("restore.written")
        except BaseException:
            _empty(data)
            raise
        (data / RESTORING).unlink()
        sync_folder(data)
    return {
        "backup": str(backup),
        "data": str(data),
        "moment": about["moment"],
        "files": len(files),
        "bytes": size,
        "missing": about["missing"],
    }


def _put_back(backup: Path, files: Mapping[str, str], data: Path) -> int:
    size = 0
    for path, digest in files.items():
        target = data / path.removeprefix(f"{DATA}/")
        make_folders(target.parent, like=data)
        if copy(backup / path, target, like=data) != digest:
            raise StoreError(f"{backup}: is broken: {path} is not what it was; take another backup")
        size += target.stat().st_size
    return size


def _chosen(folder: Path) -> Path:
    if (folder / SUMS).is_file() and not folder.name.endswith(CUT_SHORT):
        return folder
    there = whole(folder)
    if not there:
        raise ConfigError(f"{folder}: there is no whole backup here")
    return there[-1]


def _checked(backup: Path, sums: Sums) -> dict[str, Any]:
    """Return what a backup says of itself; refuse one in which files are missing or too many."""
    there = {*listed(backup)}
    lost, strange = sorted(sums.keys() - there), sorted(there - sums.keys())
    if lost or strange:
        told = f"{lost[0]} is missing" if lost else f"{strange[0]} is not in its {SUMS}"
        raise StoreError(f"{backup}: is broken: {told}; take another backup")
    for name in (ABOUT, CONFIG):
        if sums.get(name) != digest_of(backup / name):
            raise StoreError(f"{backup}: is broken: {name} is not what it was; take another backup")
    about: dict[str, Any] = read_json(backup / ABOUT)
    if about["format"] != FORMAT:
        raise StoreError(
            f"{backup}: was made by another version ({about['program']}); restore with it"
        )
    if about["files"] != len(sums) - 1:
        raise StoreError(f"{backup}: is broken: {SUMS} lacks files; take another backup")
    return about


def _is_empty(data: Path) -> None:
    there = {each.name for each in data.iterdir()} - {LOCK, "lost+found"}
    if there:
        raise ConfigError(
            f"{data}: is not empty ({min(there)}); move what is there away, or give another folder"
            " by --data"
        )


def _empty(data: Path) -> None:
    """Remove what was put into a folder that was empty."""
    for each in data.iterdir():
        if each.name in {LOCK, "lost+found", RESTORING}:
            continue
        shutil.rmtree(each) if each.is_dir() else each.unlink()
    (data / RESTORING).unlink()
