"""The configuration: one file in, one frozen value or every fault with its line.

Covered: the shipped file, unknown keys, wrong values, names that do not fit together, files that
are not YAML, and that a configuration dumps and loads to itself. Not covered: whether archives
answer.
"""

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from app.config import DEFAULT_PATH, Config, application_version, config_path, load_config
from app.errors import ConfigError

GOOD: dict[str, Any] = {
    "archives": {"local": {"kind": "folder", "path": "archive"}},
    "models": [{"name": "phantom", "folder": "phantom"}],
    "routes": [
        {
            "name": "ct",
            "model": "phantom",
            "inputs": {"CT": [{"op": "equals", "tag": "Modality", "value": "CT"}]},
            "deliver_to": ["local"],
        }
    ],
}


def write(folder: Path, node: Any) -> Path:
    """Write an app.yaml with this `node:` section."""
    path = folder / "app.yaml"
    path.write_text(yaml.safe_dump({"application": {"version": "1"}, "node": node}))
    return path


def faults(folder: Path, node: Any) -> str:
    """Return what loading this section complains of."""
    with pytest.raises(ConfigError) as caught:
        load_config(write(folder, node))
    return str(caught.value)


def test_the_shipped_file_is_right() -> None:
    """What a newcomer starts with."""
    assert load_config(DEFAULT_PATH).routes[0].name == "phantom-ct"
    assert application_version()


def test_an_unknown_key_is_named_with_path_and_line(tmp_path: Path) -> None:
    """A typo never passes silently."""
    complaint = faults(tmp_path, GOOD | {"door": {"prot": 104}})
    line = 1 + (tmp_path / "app.yaml").read_text().splitlines().index("    prot: 104")
    assert f"app.yaml:{line}: node.door.prot: Extra inputs are not permitted" in complaint


def test_every_fault_is_told_at_once(tmp_path: Path) -> None:
    """One run of `check` is enough."""
    complaint = faults(
        tmp_path, GOOD | {"door": {"port": 70000, "ae_title": ""}, "jobs": {"in_flight": 99}}
    )
    for where in ("node.door.port", "node.door.ae_title", "node.jobs.in_flight"):
        assert where in complaint


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"model": "other"}, "routes.ct.model: no model is named 'other'"),
        ({"deliver_to": ["away"]}, "routes.ct.deliver_to: no archive is named 'away'"),
        ({"deliver_to": []}, "at least 1 item"),
        ({"inputs": {"ct": []}}, "should match pattern"),
        ({"inputs": {"CT": [{"op": "like", "tag": "x"}]}}, "does not match any of the expected"),
    ],
)
def test_a_route_that_cannot_work_is_refused(
    tmp_path: Path, change: dict[str, Any], sentence: str
) -> None:
    """Names, roles and operators are checked before the node starts."""
    assert sentence in faults(tmp_path, GOOD | {"routes": [GOOD["routes"][0] | change]})


def test_names_are_used_once(tmp_path: Path) -> None:
    """Two routes of one name would share jobs."""
    assert "routes: the name 'ct' is used twice" in faults(
        tmp_path, GOOD | {"routes": GOOD["routes"] * 2}
    )


@pytest.mark.parametrize(
    "archive",
    [
        {"kind": "dicomweb", "url": "http://name:secret@host/"},
        {"kind": "dicomweb", "url": "file:///etc/passwd"},
        {"kind": "dicomweb", "url": "http://host", "user": "u"},
        {"kind": "dicomweb", "url": "http://host", "password_env": "P"},
        {
            "kind": "dicomweb",
            "url": "http://host",
            "user": "u",
            "password_env": "P",
            "token_env": "T",
        },
        {"kind": "tape", "path": "x"},
        {"kind": "dimse", "host": "pacs", "ae_title": "A TITLE TOO LONG FOR IT"},
        {"kind": "dimse", "host": "pacs", "ae_title": "BACK\\SLASH"},
        {"kind": "dimse", "host": "pacs", "ae_title": "PACS", "retrieve": "carry"},
        {
            "kind": "dimse",
            "host": "pacs",
            "ae_title": "PACS",
            "tls": {"key": "k", "certificate": "c", "require_client_certificate": False},
        },
    ],
)
def test_an_archive_that_cannot_be_right_is_refused(
    tmp_path: Path, archive: dict[str, Any]
) -> None:
    """No secrets in the file, no half of a login, no unknown kind."""
    assert "node.archives.local" in faults(tmp_path, GOOD | {"archives": {"local": archive}})


TLS = {"key": "k.pem", "certificate": "c.pem", "authorities": "ca.pem"}
PEERS = [{"ae_title": "CT1", "addresses": ["10.0.0.0/24"]}]


@pytest.mark.parametrize(
    ("door", "sentence"),
    [
        ({"host": "0.0.0.0"}, "list the peers or give tls"),  # noqa: S104  # it is refused
        ({"host": "10.0.0.9", "open": True}, "list the peers or give tls"),
        ({"open": True, "peers": PEERS}, "choose one"),
        ({"peers": [{"ae_title": "CT1", "addresses": ["10.0.0.300"]}]}, "door.peers.0.addresses"),
        ({"peers": [{"ae_title": "CT1", "certificate": "a" * 64}]}, "seen only over TLS"),
        ({"tls": {"key": "k.pem", "certificate": "c.pem"}}, "authorities is needed"),
        ({"http": {}}, "senders must authenticate"),
        ({"http": {"user": "u", "token_env": "T"}}, "user and password_env belong together"),
        ({"http": {"host": "10.0.0.9", "token_env": "T"}}, "give http.tls"),
    ],
)
def test_a_door_that_would_let_strangers_in_is_refused(
    tmp_path: Path, door: dict[str, Any], sentence: str
) -> None:
    """Nothing starts insecure by oversight."""
    assert sentence in faults(tmp_path, GOOD | {"door": door})


@pytest.mark.parametrize(
    "door",
    [
        {},
        {"open": True},
        {"host": "10.0.0.9", "peers": PEERS},
        {"host": "10.0.0.9", "tls": TLS, "open": True},
        {"http": {"token_env": "T"}},
        {"http": {"host": "10.0.0.9", "user": "u", "password_env": "P", "tls": TLS}},
    ],
)
def test_a_door_that_knows_its_peers_is_right(tmp_path: Path, door: dict[str, Any]) -> None:
    """On this machine alone, or with names, or with certificates."""
    assert load_config(write(tmp_path, GOOD | {"door": door})).door


@pytest.mark.parametrize("text", ["node: [", "- 1", "application: {}", "node: 3", "", "\x00"])
def test_a_file_that_is_not_ours_is_refused_with_its_name(tmp_path: Path, text: str) -> None:
    """Malformed YAML is an error, not an empty configuration."""
    path = tmp_path / "odd.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=r"odd\.yaml"):
        load_config(path)


def test_a_missing_file_is_refused_with_its_name(tmp_path: Path) -> None:
    """And with what to do."""
    with pytest.raises(ConfigError, match="give the right --config"):
        load_config(tmp_path / "none.yaml")


def test_the_file_is_the_one_given_else_the_environments(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The variable is the MAP's."""
    assert config_path(None) == DEFAULT_PATH
    monkeypatch.setenv("HOLOSCAN_CONFIG_PATH", str(tmp_path / "env.yaml"))
    assert config_path(None) == tmp_path / "env.yaml"
    assert config_path(tmp_path / "given.yaml") == tmp_path / "given.yaml"


@given(
    st.builds(
        dict,
        settle_s=st.floats(0, 86400),
        quiet_s=st.floats(0.01, 86400),
    ),
    st.integers(0, 65535),
    st.text(st.characters(min_codepoint=33, max_codepoint=90), min_size=1, max_size=16),
)
def test_a_configuration_dumps_and_loads_to_itself(
    assemble: dict[str, float], port: int, ae_title: str
) -> None:
    """Nothing is lost between the file and the value."""
    config = Config.model_validate(
        GOOD | {"assemble": assemble, "door": {"port": port, "ae_title": ae_title}}
    )
    again = yaml.safe_load(yaml.safe_dump(config.model_dump(mode="json")))
    assert Config.model_validate(again) == config


def test_a_configuration_never_changes() -> None:
    """It is read once and passed down."""
    config = Config.model_validate(GOOD)
    with pytest.raises(ValidationError):
        config.door.port = 1  # type: ignore[misc]


PACS = {"kind": "dicomweb", "url": "https://pacs.example/dicom-web"}


@pytest.mark.parametrize(
    ("part", "words"),
    [
        ({"sources": [{"archive": "local"}]}, "no archive of that name can be asked"),
        ({"sources": [{"archive": "gone"}]}, "no archive of that name can be asked"),
        ({"sources": [{"archive": "pacs"}] * 2}, "the name 'pacs' is used twice"),
        ({"sources": [{"archive": "pacs", "query": {"Modalty": "CT"}}]}, "no DICOM keyword"),
        ({"sources": [{"archive": "pacs", "query": {"StudyDate": "2026"}}]}, "window_days"),
        ({"sources": [{"archive": "pacs", "poll_s": 0}]}, "greater than or equal to 1"),
        ({"assemble": {"count_from": "local"}}, "no archive named 'local' can be asked"),
    ],
)
def test_a_source_that_cannot_be_asked_is_refused(
    tmp_path: Path, part: dict[str, Any], words: str
) -> None:
    """An archive that is a folder lists nothing; a misspelt query would match everything."""
    archives = {"archives": GOOD["archives"] | {"pacs": PACS}}
    assert words in faults(tmp_path, GOOD | archives | part)
