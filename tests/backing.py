"""Backups of a site that is kept, for tests."""

from pathlib import Path

from app.backup import Made, back_up
from app.config import Config
from tests.keeping import Kept


def begun(site: Kept) -> Kept:
    """Let the site have a study of two objects, whose job has a volume in its folder."""
    (site.config.data.parent / "app.yaml").write_text("node: {}\n")
    site.routed()
    (site.folder("j1a") / "infer").mkdir()
    (site.folder("j1a") / "infer" / "CT.npy").write_bytes(b"volume")
    return site


def back(site: Kept, folder: Path, **how: bool | int) -> Made:
    """Make a backup at a time of its own."""
    site.clock.advance(1)
    path = site.config.data.parent / "app.yaml"
    return back_up(site.config, path, site.store, folder, now=site.clock(), **how)


def into(config: Config, data: Path) -> Config:
    """Return the configuration for another data folder."""
    return config.model_copy(update={"data": data})


def files(folder: Path) -> dict[str, bytes]:
    """Return all files below a folder."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }
