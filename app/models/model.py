"""A loaded model: its card and the runner that keeps its weights warm."""

import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from app.dicom.volume import Volume
from app.errors import ModelError
from app.models.card import ModelCard

log = logging.getLogger(__name__)

_SAME_PLACE_MM = 0.01


class Runner(Protocol):
    """What every kind of runner offers."""

    @property
    def device(self) -> str:
        """Where it runs."""

    def memory(self) -> dict[str, int] | None:
        """Return the device's bytes, `used` by anybody and `total`; None without a GPU."""

    def run(self, volumes: list[Volume]) -> NDArray[np.integer]:
        """Return the label map on the grid that all the volumes share."""

    def run_fractional(
        self, volumes: list[Volume]
    ) -> tuple[NDArray[np.integer], NDArray[np.uint8]]:
        """Return the label map, and of each label of the card the probability, 255 for 1."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """A model with its weights in memory."""

    card: ModelCard
    runner: Runner

    def segment(self, volumes: Mapping[str, Volume]) -> NDArray[np.uint8]:
        """Return the labels, indexed [k, j, i] on the grid of the first input's volume."""
        ordered = self._ordered(volumes)
        labels = self.runner.run(ordered)
        return self._checked(labels, ordered[0].voxels_kji.shape)

    def segment_fractional(
        self, volumes: Mapping[str, Volume]
    ) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Return the labels, and their probabilities in 255ths as [label of the card, k, j, i]."""
        ordered = self._ordered(volumes)
        labels, probabilities = self.runner.run_fractional(ordered)
        return self._checked(labels, ordered[0].voxels_kji.shape), probabilities

    def _ordered(self, volumes: Mapping[str, Volume]) -> list[Volume]:
        roles = [each.role for each in self.card.inputs]
        if missing := [role for role in roles if role not in volumes]:
            raise ModelError(
                f"{self.card.name}: no volume for the input {', '.join(missing)};"
                " have the route assign a series to it"
            )
        ordered = [volumes[role] for role in roles]
        for role, volume in zip(roles[1:], ordered[1:], strict=True):
            if not _share_grid(ordered[0], volume):
                raise ModelError(
                    f"{self.card.name}: series {volume.series_uid} ({role}) does not lie on the"
                    f" grid of series {ordered[0].series_uid} ({roles[0]}); choose series of one"
                    " acquisition or register them first"
                )
        return ordered

    def _checked(self, labels: NDArray[np.integer], shape: tuple[int, ...]) -> NDArray[np.uint8]:
        if labels.shape != shape:
            raise ModelError(f"{self.card.name}: the output is {labels.shape}, not {shape}")
        unknown = set(np.unique(labels).tolist()) - {0, *self.card.values}
        if unknown:
            raise ModelError(
                f"{self.card.name}: the output has the values {sorted(unknown)}, which the card"
                " does not describe; add them to its labels"
            )
        return labels.astype(np.uint8)


def load_model(card: ModelCard, device: str) -> Model:
    """Load the weights that `card` names onto `device`: auto, cpu or cuda:N."""
    # torch takes seconds to import, and of all processes only the model worker needs it.
    from app.models.runners import nnunet  # noqa: PLC0415

    started = time.monotonic()
    runner = nnunet.load(card, device)
    seconds = time.monotonic() - started
    log.info("loaded weights of %s in %.1f s on %s", card.identity, seconds, runner.device)
    return Model(card=card, runner=runner)


def _share_grid(first: Volume, other: Volume) -> bool:
    if (
        first.voxels_kji.shape != other.voxels_kji.shape
        or first.frame_of_reference_uid != other.frame_of_reference_uid
    ):
        return False
    # An affine is linear: where the corners agree, every voxel does.
    corners = np.array([*np.ndindex(2, 2, 2)]) * (np.array(first.voxels_kji.shape) - 1)
    apart = (first.affine_lps - other.affine_lps) @ np.c_[corners, np.ones(8)].T
    return bool(np.abs(apart[:3]).max() < _SAME_PLACE_MM)
