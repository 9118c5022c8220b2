"""deploy/install, run for real below a folder: a site from nothing, an update, the way back.

Covered: folders, modes and a first app.yaml that lets nobody in; a second run; a node of the
installed release that takes a study; a release that does not fit the site's file; an update with a
step of the job log; the way back, refused, then with what it forgets; options that are wrong.
Not covered: the user, the units and a machine's own folders, see test_service; making an
environment from wheels, which takes minutes.
"""

import json
import re
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from app.store.jobs import State
from app.store.schema import known_steps
from tests.node import ROOT, SETTINGS, Node
from tests.phantoms.dicom import StudyFiles, write_study
from tests.sending import send
from tests.waiting import wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]

PARTS = ("LICENSE", "README.md", "app", "app.yaml", "deploy", "operators", "requirements.txt")
NEWEST = max(known_steps())
STEP = f"""
from alembic import op
revision = "9999"
down_revision = "{NEWEST}"
def upgrade():
    op.execute("CREATE TABLE later (id INTEGER)")
"""


class Site(Node):
    """A site below a folder; its node is the release that is installed there."""

    def __init__(self, root: Path) -> None:
        super().__init__(root.parent / "unused")
        self.prefix = root
        root.mkdir()
        self.data = root / "var/lib/marginalia"
        self.config = root / "etc/marginalia/app.yaml"
        self.root = root / "opt/marginalia/current"
        self.python = "venv/bin/python"

    def install(
        self, source: Path, *options: str, check: bool = True
    ) -> "subprocess.CompletedProcess[str]":
        """Install a release, with this environment in place of one that takes minutes to make."""
        environment = [] if "--rollback" in options else ["--python-env", sys.prefix]
        call = [source / "deploy/install", "--prefix", self.prefix, *environment, *options]
        done = subprocess.run(call, capture_output=True, text=True, check=False, timeout=200)
        assert done.returncode == 0 or not check, done.stdout + done.stderr
        return done

    def let_in(self) -> None:
        """Edit app.yaml as a site does: who may send, and what a test needs."""
        document = yaml.safe_load(self.config.read_text())
        document["node"]["door"] |= {"port": 0, "peers": [{"ae_title": "SENDER"}]}
        document["node"]["door"]["limits"] = {"free_gb": 0}
        document["node"] |= {key: SETTINGS[key] for key in ("assemble", "archives", "routes")}
        self.config.write_text(yaml.safe_dump(document))


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    """A machine without anything of ours."""
    site = Site(tmp_path / "machine")
    yield site
    site.end()


@pytest.fixture
def study(tmp_path: Path) -> StudyFiles:
    """A study small enough to be segmented in a moment."""
    return write_study(tmp_path / "study", seed=3, shape=(32, 32), slices=24)


def release(folder: Path, version: str, *, step: str = "") -> Path:
    """Return the sources of another release; with a step its job log has one table more."""
    folder.mkdir()
    for part in PARTS:
        if (ROOT / part).is_dir():
            ignored = shutil.ignore_patterns("__pycache__")
            shutil.copytree(ROOT / part, folder / part, ignore=ignored)
        else:
            shutil.copy2(ROOT / part, folder / part)
    text = (folder / "app.yaml").read_text()
    (folder / "app.yaml").write_text(
        re.sub(r'^  version: ".*"$', f'  version: "{version}"', text, flags=re.MULTILINE)
    )
    if step:
        (folder / "app/store/migrations/versions/v9999_later.py").write_text(step)
    return folder


def modes(site: Site) -> dict[str, str]:
    """Return the modes of what lies below a machine's folder."""
    names = ("etc/marginalia", "etc/marginalia/app.yaml", "etc/marginalia/secrets.env")
    names += ("var/lib/marginalia", "var/backups/marginalia")
    return {name: f"{stat.S_IMODE((site.prefix / name).stat().st_mode):o}" for name in names}


def test_a_site_is_made_from_nothing_and_takes_a_study(site: Site, study: StudyFiles) -> None:
    """The first app.yaml lets nobody in; a second run leaves everything as it is."""
    first = site.install(ROOT)
    assert "list your peers" in first.stdout
    door = yaml.safe_load(site.config.read_text())["node"]["door"]
    assert "open" not in door
    assert door["host"] == "127.0.0.1"
    assert modes(site) == {
        "etc/marginalia": "750",
        "etc/marginalia/app.yaml": "640",
        "etc/marginalia/secrets.env": "600",
        "var/lib/marginalia": "700",
        "var/backups/marginalia": "700",
    }
    program = site.prefix / "opt/marginalia"
    for path in program.rglob("*"):
        if not path.is_symlink():
            assert path.owner() == "root"
            assert not path.stat().st_mode & 0o022, f"{path} can be written by others"
    units = {each.name for each in (site.prefix / "etc/systemd/system").iterdir()}
    assert units == {"marginalia.service", "marginalia-backup.service", "marginalia-backup.timer"}
    site.let_in()
    before = site.config.read_text()
    again = site.install(ROOT)
    assert "is installed already" in again.stdout
    assert site.config.read_text() == before
    site.start()
    assert {*send(study.paths, site.port)} == {0}
    (job,) = site.settled(timeout_s=180)
    assert job.state is State.DONE
    assert site.stop(60) == 0


def test_an_update_that_does_not_fit_the_sites_file_changes_nothing(
    site: Site, tmp_path: Path
) -> None:
    """`check` of the new release speaks before the switch; nor is a release that runs replaced."""
    site.install(ROOT)
    current = site.root.readlink()
    text = site.config.read_text()
    site.config.write_text(text + "  colour: blue\n")
    later = release(tmp_path / "later", "9.1.0")
    refused = site.install(later, check=False)
    assert refused.returncode == 1
    assert "colour" in refused.stderr
    assert "nothing was changed" in refused.stderr
    assert site.root.readlink() == current
    site.config.write_text(text)
    site.install(later)
    assert site.root.readlink() == Path("9.1.0")
    site.install(release(tmp_path / "last", "9.2.0"))
    for source in (later, tmp_path / "last"):
        (source / "README.md").write_text("other words")
        kept = site.install(source, check=False)
        assert kept.returncode == 1
        assert "raise application.version" in kept.stderr, "neither the current nor the former"


def test_the_way_back_says_what_it_forgets_and_loses_no_object(
    site: Site, study: StudyFiles, tmp_path: Path
) -> None:
    """The newer release has changed the log; the older one takes what came since from the spool."""
    site.install(ROOT)
    site.let_in()
    site.start()
    site.stop(60)
    older = site.root.readlink()
    site.install(release(tmp_path / "later", "9.1.0", step=STEP))
    site.start()
    assert (site.data / f"node.db.{NEWEST}.bak").exists()
    assert {*send(study.paths, site.port)} == {0}
    newer = wait_for_job(site)
    site.stop(60)
    refused = site.install(ROOT, "--rollback", check=False)
    assert refused.returncode == 1
    assert "forgets: 1 studies received, 1 jobs made" in refused.stderr
    assert site.root.readlink() == Path("9.1.0")
    told = site.install(ROOT, "--rollback", "--discard-since-update")
    assert "the newer log lies in" in told.stdout
    assert site.root.readlink() == older
    assert len([*site.data.glob("node.db.9999.*.aside")]) == 1
    site.start()
    (job,) = site.settled(timeout_s=180)
    assert (job.id, job.state) == (newer, State.DONE)
    with site.store() as store:
        assert {each.sop_uid for each in store.instances(study.study_uid)} == {*study.sop_uids}
    assert len([*site.data.glob("archive/studies/*/series/*/instances/*")]) == 1


def wait_for_job(site: Site) -> str:
    """Return the id of the one job, by the words of the installed release itself."""

    def done() -> str:
        call = [site.python, "-m", "app", "jobs", "--json", *site.named]
        asked = subprocess.run(call, cwd=site.root, capture_output=True, check=True, timeout=60)
        jobs = json.loads(asked.stdout)
        return str(jobs[0]["id"]) if jobs and jobs[0]["state"] == "done" else ""

    return wait_until(done, 180, "the end of a job")


def test_the_way_back_without_a_step_of_the_log_is_the_link_alone(
    site: Site, tmp_path: Path
) -> None:
    """Nothing is forgotten; the way back from there is forward."""
    site.install(ROOT)
    older = site.root.readlink()
    nowhere = site.install(ROOT, "--rollback", check=False)
    assert (nowhere.returncode, "no release before" in nowhere.stderr) == (1, True)
    site.install(release(tmp_path / "later", "9.1.0"))
    site.install(ROOT, "--rollback")
    assert site.root.readlink() == older
    site.install(ROOT, "--rollback")
    assert site.root.readlink() == Path("9.1.0")


def test_an_environment_that_lacks_packages_is_refused(site: Site, tmp_path: Path) -> None:
    """Each is named with the version that is needed; what was begun is made anew the next time."""
    source = release(tmp_path / "later", "9.1.0")
    with (source / "requirements.txt").open("a") as file:
        file.write("no-such-package==1.2\npydicom==0.1\n")
    refused = site.install(source, check=False)
    assert refused.returncode == 1
    assert "no-such-package: 1.2 is needed, nothing is there" in refused.stdout
    assert "pydicom: 0.1 is needed" in refused.stdout
    assert not site.root.is_symlink()


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--wheels"], "--wheels needs a folder"),
        (["--prefix", "no/such/folder"], "--prefix needs a folder"),
        (["--colour"], "--colour is none of"),
        (["--discard-since-update"], "belongs to --rollback"),
    ],
)
def test_wrong_options_are_refused(site: Site, options: list[str], sentence: str) -> None:
    """With a sentence, before anything is done."""
    call = [ROOT / "deploy/install", "--prefix", site.prefix, *options]
    done = subprocess.run(call, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, sentence in done.stderr) == (1, True)
    assert not [*site.prefix.iterdir()]
