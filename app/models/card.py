"""The card of a model: all that the node knows of it, checked when it is loaded.

A model is a folder with `card.yaml` and weights. Nothing in the card is code: it names values
from closed lists, and the files that hold the weights by their SHA-256.
"""

import hashlib
from collections import Counter
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    PrivateAttr,
    ValidationError,
    ValidationInfo,
    model_validator,
)

from app.errors import ConfigError, ModelError

CARD = "card.yaml"

_TO_DO = {
    "missing": "; add it",
    "extra_forbidden": "; remove it or mend its spelling",
}


def _inside(path: str) -> str:
    parts = PurePosixPath(path).parts
    if not parts or path.startswith("/") or ".." in parts or "\\" in path:
        raise ValueError("must be a path inside the model's folder, such as nnunet/plans.json")
    return path


def _axes(orientation: str) -> str:
    if sorted("LPS"["LRPASI".index(letter) // 2] for letter in orientation) != ["L", "P", "S"]:
        raise ValueError("must have one of L/R, one of P/A and one of S/I, such as SPL")
    return orientation


RelativePath = Annotated[str, Field(min_length=1, max_length=200), AfterValidator(_inside)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Byte = Annotated[int, Field(ge=0, le=255)]
Value = Annotated[int, Field(ge=1, le=255)]
Millilitres = Annotated[float, Field(ge=0, le=1_000_000)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Code(_Part):
    """A coded concept (PS3.3 table 8.8-1)."""

    scheme: str = Field(min_length=1, max_length=16, description="coding scheme, such as SCT")
    value: str = Field(min_length=1, max_length=16, description="code value in that scheme")
    meaning: str = Field(min_length=1, max_length=64, description="what the code means")


class Input(_Part):
    """One series that the model needs."""

    role: str = Field(
        pattern=r"^[A-Z][A-Z0-9_]{0,15}$", description="name by which routes assign a series"
    )
    modality: Literal["CT", "MR", "PT"] = Field(description="modality the series must have")


class NnunetRunner(_Part):
    """An nnU-Net v2 model folder: dataset.json, plans.json, fold_N/checkpoint."""

    kind: Literal["nnunet"] = Field(description="the runner that knows these weights")
    folder: RelativePath = Field(description="nnU-Net's model folder, inside the card's folder")
    configuration: str = Field(
        min_length=1, max_length=64, description="configuration in plans.json, such as 3d_fullres"
    )
    folds: tuple[Annotated[int, Field(ge=0, le=99)] | Literal["all"], ...] = Field(
        min_length=1, max_length=20, description="folds whose outputs are averaged"
    )
    checkpoint: Literal["checkpoint_final.pth", "checkpoint_best.pth"] = Field(
        default="checkpoint_final.pth", description="name of the checkpoint in each fold"
    )
    orientation: Annotated[str, Field(pattern=r"^[LRPASI]{3}$"), AfterValidator(_axes)] = Field(
        description="for each array axis the side to which the index grows, such as SPL"
    )
    mirroring: bool = Field(
        default=True, description="average over the mirrored axes that the checkpoint allows"
    )
    step: float = Field(
        default=0.5, ge=0.25, le=1.0, description="step of the sliding window, in window sizes"
    )
    sha256: dict[RelativePath, Sha256] = Field(
        description="SHA-256 of each file of the model, by its path inside the runner's folder"
    )

    @property
    def checkpoints(self) -> tuple[str, ...]:
        """The checkpoint of each fold, relative to the runner's folder."""
        return tuple(f"fold_{fold}/{self.checkpoint}" for fold in self.folds)

    @model_validator(mode="after")
    def _every_file_has_a_hash(self) -> Self:
        needed = {"plans.json", "dataset.json", *self.checkpoints}
        if missing := sorted(needed - set(self.sha256)):
            raise ValueError(f"sha256 lacks {', '.join(missing)}; add what `sha256sum` prints")
        return self


Runner = Annotated[NnunetRunner, Field(description="how the weights are run")]


class Limits(_Part):
    """What a run may take before it is ended."""

    timeout_s: int = Field(ge=1, le=86_400, description="seconds a run may take")
    memory_gib: float = Field(gt=0, le=1024, description="main memory a run needs, in GiB")


class Label(_Part):
    """One value of the label map and the segment it becomes."""

    value: Value = Field(description="value in the label map; 0 is the background")
    includes: tuple[Value, ...] = Field(
        default=(),
        description="other labels' values that belong to this segment as well: it overlaps them",
    )
    name: str = Field(min_length=1, max_length=64, description="segment label that readers see")
    category: Code = Field(description="segmented property category, such as SCT 91723000")
    type: Code = Field(description="segmented property type, such as SCT 10200004 Liver")
    laterality: Code | None = Field(
        default=None, description="modifier of the type: right, left, both"
    )
    region: Code | None = Field(default=None, description="anatomic region, where type is none")
    colour: tuple[Byte, Byte, Byte] = Field(description="recommended display colour, RGB")
    lesion: bool = Field(default=False, description="its long and short diameter are reported")
    volume_ml: tuple[Millilitres, Millilitres] | None = Field(
        default=None,
        description="smallest and largest volume that can be right where it is found; a result"
        " outside is not sent",
    )

    @property
    def values(self) -> frozenset[int]:
        """The values in the label map that belong to the segment."""
        return frozenset({self.value, *self.includes})

    @model_validator(mode="after")
    def _volume_can_be_met(self) -> Self:
        if self.volume_ml is not None and self.volume_ml[0] > self.volume_ml[1]:
            raise ValueError("volume_ml: the smallest volume is above the largest")
        return self


class Outputs(_Part):
    """How the result is named in the archive."""

    series_description: str = Field(min_length=1, max_length=64, description="SeriesDescription")
    content_label: str = Field(pattern=r"^[A-Z0-9_ ]{1,16}$", description="ContentLabel (CS)")
    content_creator: str = Field(
        min_length=1, max_length=64, description="ContentCreatorName: the model, not a person"
    )
    series_number_offset: int = Field(
        ge=1, le=1_000_000, description="added to the source's SeriesNumber"
    )
    segmentation: Literal["binary", "labelmap", "fractional"] = Field(
        default="binary",
        description="the SEG for archives that accept it; others get the binary one",
    )
    empty_segments: Literal["state", "omit"] = Field(
        default="state",
        description="`state`: a label that was not found is a segment without voxels;"
        " `omit`: it is left out of the SEG, the report still names it",
    )
    nothing_found: Literal["send", "refuse"] = Field(
        default="send", description="what becomes of a result in which no label was found"
    )
    fills_volume: Literal["refuse", "send"] = Field(
        default="refuse", description="what becomes of a result in which one label is everywhere"
    )


class ModelCard(_Part):
    """What a model is, what it needs and what it makes."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,39}$", description="name of the model")
    version: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,19}$", description="its version")
    licence: str = Field(min_length=1, max_length=64, description="SPDX identifier or name")
    description: str = Field(
        min_length=1, max_length=1024, description="what it segments and what it is fit for"
    )
    inputs: tuple[Input, ...] = Field(
        min_length=1, max_length=8, description="series it needs, in the order of its channels"
    )
    runner: Runner
    limits: Limits = Field(description="what a run may take")
    labels: tuple[Label, ...] = Field(
        min_length=1, max_length=255, description="the values of the label map"
    )
    outputs: Outputs = Field(description="how the result is named")
    metrics: dict[str, str | int | float] = Field(
        default_factory=dict, description="published figures, free text or numbers"
    )
    _folder: Path = PrivateAttr(default=Path())

    @property
    def folder(self) -> Path:
        """The folder the card was loaded from."""
        return self._folder

    @property
    def values(self) -> frozenset[int]:
        """The values of the labels, without the background."""
        return frozenset(label.value for label in self.labels)

    @property
    def overlaps(self) -> bool:
        """Whether a voxel can belong to several segments."""
        return any(label.includes for label in self.labels)

    @property
    def weights_sha256(self) -> str:
        """One digest over every file of the model."""
        lines = (f"{digest}  {path}\n" for path, digest in sorted(self.runner.sha256.items()))
        return hashlib.sha256("".join(lines).encode()).hexdigest()

    @property
    def identity(self) -> str:
        """The exact model: name, version, and the start of its weights' digest."""
        return f"{self.name}@{self.version}+{self.weights_sha256[:12]}"

    @model_validator(mode="after")
    def _nothing_twice(self) -> Self:
        faults = [
            *_repeated("inputs.role", (each.role for each in self.inputs)),
            *_repeated("labels.value", (label.value for label in self.labels)),
            *_repeated("labels.name", (label.name for label in self.labels)),
        ]
        faults += [
            f"labels {label.name} includes {value}, which is no other label's value"
            for label in self.labels
            for value in sorted({*label.includes})
            if value == label.value or value not in self.values
        ]
        if faults:
            raise ValueError("; ".join(faults))
        return self

    @model_validator(mode="after")
    def _remember_folder(self, info: ValidationInfo) -> Self:
        self._folder = (info.context or {}).get("folder", Path())
        return self


def load_card(folder: Path) -> ModelCard:
    """Read and check `card.yaml` in `folder`, and that the weights are the ones it names."""
    path = folder / CARD
    try:
        content = yaml.safe_load(path.read_bytes())
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror})") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: is not YAML: {error}") from error
    try:
        card = ModelCard.model_validate(content, context={"folder": folder.resolve()})
    except ValidationError as error:
        raise ConfigError("\n".join(f"{path}: {fault}" for fault in _faults(error))) from error
    _verify(card)
    return card


def _verify(card: ModelCard) -> None:
    for name, digest in card.runner.sha256.items():
        path = card.folder / card.runner.folder / name
        try:
            with path.open("rb") as file:
                found = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise ModelError(
                f"{card.name}: {path} cannot be read ({error.strerror}); install the model again"
            ) from error
        if found != digest:
            raise ModelError(
                f"{card.name}: {path} is not the file that the card names (SHA-256 {found[:12]}…,"
                f" card {digest[:12]}…); install the model again"
            )


def _faults(error: ValidationError) -> list[str]:
    faults = []
    for fault in error.errors(include_url=False):
        where = ".".join(str(step) for step in fault["loc"])
        what = fault["msg"].removeprefix("Value error, ")
        to_do = _TO_DO.get(fault["type"], _what_stands(fault["input"]))
        faults.append((f"{where}: " if where else "") + what + to_do)
    return faults


def _what_stands(value: Any) -> str:
    return f"; it is {value!r}, mend it" if isinstance(value, str | int | float | None) else ""


def _repeated(where: str, values: Iterable[Any]) -> list[str]:
    counts = Counter(values)
    again = "times; give each its own"
    return [f"{where} {value} stands {n} {again}" for value, n in counts.items() if n > 1]
