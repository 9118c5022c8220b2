"""Model cards: what is wrong is named, all of it at once, and the weights are the ones meant.

Covered: the shipped card, each kind of fault with its place, hashes, identity. Not covered: the
network behind the card (test_nnunet_runner) and how labels become segments (the encoder's tests).
"""

import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel
from pydicom.sr.codedict import codes

from app.errors import ConfigError, ModelError
from app.models import ModelCard, load_card
from app.models import card as card_module

ZOO = Path(card_module.__file__).parent / "zoo"
PHANTOM = ZOO / "phantom"

Change = Callable[[dict[str, Any]], Any]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a copy of the shipped model that a test may spoil."""
    return Path(shutil.copytree(PHANTOM, tmp_path / "phantom"))


def change(folder: Path, spoil: Change) -> None:
    """Apply `spoil` to the content of the card."""
    content = yaml.safe_load((folder / "card.yaml").read_text())
    spoil(content)
    (folder / "card.yaml").write_text(yaml.safe_dump(content))


def test_the_shipped_cards_load() -> None:
    """Each is named like its folder, and its weights are the ones it names."""
    for path in ZOO.glob("*/card.yaml"):
        card = load_card(path.parent)
        assert card.name == path.parent.name
        assert card.folder == path.parent


def test_the_shipped_card_says_research_only() -> None:
    """Nobody can take the phantom model for a medical device."""
    card = load_card(PHANTOM)
    assert "research only" in card.description
    assert "not for clinical use" in card.description


def test_the_shipped_codes_are_those_of_the_standard() -> None:
    """Compare with pydicom's tables, which come from PS3.16."""
    by_name = {label.name: label for label in load_card(PHANTOM).labels}
    expected = {
        "Body": (codes.SCT.Trunk, None),
        "Lungs": (codes.cid7151.Lung, "51440002"),
        "Liver": (codes.cid7151.Liver, None),
        "Spleen": (codes.cid7151.Spleen, None),
        "Right kidney": (codes.cid7151.Kidney, codes.cid244.Right.value),
        "Left kidney": (codes.cid7151.Kidney, codes.cid244.Left.value),
    }
    assert set(by_name) == set(expected)
    for name, (kind, side) in expected.items():
        label = by_name[name]
        assert label.category.value == "91723000"
        assert (label.type.value, label.type.meaning) == (kind.value, kind.meaning)
        assert (label.laterality.value if label.laterality else None) == side


def test_the_identity_names_version_and_weights(folder: Path) -> None:
    """Other files are another model, even under the same version."""
    card = load_card(folder)
    assert card.identity == f"phantom@1.0+{card.weights_sha256[:12]}"
    plans = folder / "nnunet" / "plans.json"
    plans.write_text(plans.read_text() + " ")
    with pytest.raises(ModelError):
        load_card(folder)
    digest = hashlib.sha256(plans.read_bytes()).hexdigest()
    change(folder, lambda c: c["runner"]["sha256"].update({"plans.json": digest}))
    assert load_card(folder).identity != card.identity


FAULTS: dict[str, tuple[Change, str]] = {
    "a missing key": (lambda c: c.pop("licence"), "licence: Field required; add it"),
    "an unknown key": (lambda c: c.update(licens="x"), "licens: Extra inputs are not permitted"),
    "a name with a slash": (lambda c: c.update(name="a/b"), "name: String should match"),
    "no input": (lambda c: c.update(inputs=[]), "inputs: Tuple should have at least 1 item"),
    "a modality nobody knows": (
        lambda c: c["inputs"][0].update(modality="XX"),
        "inputs.0.modality: Input should be 'CT', 'MR' or 'PT'; it is 'XX', mend it",
    ),
    "a role twice": (
        lambda c: c["inputs"].append(c["inputs"][0]),
        "inputs.role CT stands 2 times; give",
    ),
    "a value twice": (lambda c: c["labels"][1].update(value=1), "labels.value 1 stands 2 times"),
    "the background as a label": (lambda c: c["labels"][0].update(value=0), "labels.0.value: "),
    "a value over a byte": (lambda c: c["labels"][5].update(value=256), "labels.5.value: "),
    "a colour over a byte": (
        lambda c: c["labels"][2].update(colour=[0, 256, 0]),
        "labels.2.colour.1: Input should be less than or equal to 255; it is 256",
    ),
    "a code without value": (lambda c: c["labels"][3]["type"].pop("value"), "labels.3.type.value"),
    "another runner": (lambda c: c["runner"].update(kind="pickle"), "runner.kind: "),
    "a folder outside": (lambda c: c["runner"].update(folder="../x"), "runner.folder: must be a"),
    "an absolute folder": (lambda c: c["runner"].update(folder="/etc"), "runner.folder: must be"),
    "a checkpoint elsewhere": (
        lambda c: c["runner"].update(checkpoint="../../x.pth"),
        "runner.checkpoint: ",
    ),
    "an orientation with one side twice": (
        lambda c: c["runner"].update(orientation="LRS"),
        "runner.orientation: must have one of L/R",
    ),
    "weights without hash": (
        lambda c: c["runner"].update(folds=[0, 1]),
        "runner: sha256 lacks fold_1/checkpoint_final.pth; add what `sha256sum` prints",
    ),
    "a hash that is none": (
        lambda c: c["runner"]["sha256"].update({"plans.json": "abc"}),
        "runner.sha256.plans.json: String should match",
    ),
    "no time at all": (lambda c: c["limits"].update(timeout_s=0), "limits.timeout_s: "),
    "a content label in lower case": (
        lambda c: c["outputs"].update(content_label="phantom"),
        "outputs.content_label: ",
    ),
}


@pytest.mark.parametrize(("spoil", "sentence"), FAULTS.values(), ids=FAULTS)
def test_a_fault_is_named_with_its_place(folder: Path, spoil: Change, sentence: str) -> None:
    """The sentence starts with the file and the path of the key."""
    change(folder, spoil)
    with pytest.raises(ConfigError) as caught:
        load_card(folder)
    assert f"{folder}/card.yaml: {sentence}" in str(caught.value)


def test_all_faults_are_named_at_once(folder: Path) -> None:
    """The author mends the card once, not once for each fault."""

    def spoil(content: dict[str, Any]) -> None:
        content.pop("version")
        content["labels"][1]["colour"] = [1, 2]
        content["limits"]["memory"] = 4

    change(folder, spoil)
    with pytest.raises(ConfigError) as caught:
        load_card(folder)
    lines = str(caught.value).splitlines()
    for place in ("version: ", "labels.1.colour.2: ", "limits.memory: "):
        assert any(f"card.yaml: {place}" in line for line in lines)
    assert len(lines) == 3


@pytest.mark.parametrize("text", ["", "- a list", "key: [", "\x00"])
def test_what_is_no_card_is_refused(folder: Path, text: str) -> None:
    """Neither nothing nor a list nor broken YAML is a card."""
    (folder / "card.yaml").write_text(text)
    with pytest.raises(ConfigError, match=r"card\.yaml: "):
        load_card(folder)


def test_yaml_that_would_make_objects_is_refused(folder: Path) -> None:
    """The card is read as plain values; its tags make nothing."""
    marker = folder / "made"
    payload = f"name: !!python/object/apply:os.mkdir ['{marker}']\n"
    (folder / "card.yaml").write_text(payload)
    with pytest.raises(ConfigError, match="is not YAML"):
        load_card(folder)
    assert not marker.exists()


def test_a_folder_without_card_is_refused(tmp_path: Path) -> None:
    """The path of the missing card is in the sentence."""
    with pytest.raises(ConfigError, match=r"card\.yaml: cannot be read"):
        load_card(tmp_path)


@pytest.mark.parametrize("name", ["plans.json", "fold_0/checkpoint_final.pth"])
def test_other_weights_than_the_card_names_are_refused(folder: Path, name: str) -> None:
    """A changed and a missing file are both named."""
    path = folder / "nnunet" / name
    path.write_bytes(path.read_bytes() + b"\0")
    with pytest.raises(ModelError, match=f"{name} is not the file that the card names"):
        load_card(folder)
    path.unlink()
    with pytest.raises(ModelError, match=f"{name} cannot be read"):
        load_card(folder)


def test_a_card_cannot_be_changed() -> None:
    """What was checked stays as it was checked."""
    card = load_card(PHANTOM)
    with pytest.raises(ValueError, match="frozen"):
        card.name = "other"


def test_every_key_is_described() -> None:
    """Descriptions feed the help of the commands."""

    def check(kind: type[BaseModel]) -> None:
        for name, field in kind.model_fields.items():
            assert field.description, f"{kind.__name__}.{name}"

    parts = (each for each in vars(card_module).values() if isinstance(each, type))
    for part in parts:
        if issubclass(part, BaseModel) and part.__module__ == card_module.__name__:
            check(part)
    assert len(ModelCard.model_fields) > 5
