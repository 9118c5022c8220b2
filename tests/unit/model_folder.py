"""The shipped phantom model, and copies of it that a test may spoil."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import yaml

from app.models import Model, load_card, load_model
from app.models import card as card_module

PHANTOM = Path(card_module.__file__).parent / "zoo" / "phantom"
CHECKPOINT = "nnunet/fold_0/checkpoint_final.pth"

Change = Callable[[dict[str, Any]], Any]


def change(path: Path, spoil: Change) -> None:
    """Apply `spoil` to the content of a JSON file."""
    content = json.loads(path.read_text())
    spoil(content)
    path.write_text(json.dumps(content))


def load(folder: Path, spoil_card: Change = lambda _: None) -> Model:
    """Load the model of `folder`, with a card that names whatever lies there."""
    content = yaml.safe_load((folder / "card.yaml").read_text())
    spoil_card(content)
    files = [path for path in (folder / "nnunet").rglob("*") if path.is_file()]
    content["runner"]["sha256"] = {
        str(path.relative_to(folder / "nnunet")): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files
    }
    (folder / "card.yaml").write_text(yaml.safe_dump(content))
    return load_model(load_card(folder), "cpu")


def read_checkpoint(folder: Path) -> dict[str, Any]:
    """Return the shipped checkpoint."""
    checkpoint: dict[str, Any] = torch.load(folder / CHECKPOINT, weights_only=True)
    return checkpoint


def at(*keys: str) -> Callable[[dict[str, Any]], Any]:
    """Return a look-up below the plans' one configuration."""

    def find(plans: dict[str, Any]) -> Any:
        found = plans["configurations"]["3d_fullres"]
        for key in keys:
            found = found[key]
        return found

    return find
