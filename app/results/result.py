"""What a model made of a series, and all that the DICOM objects made of it must say.

Every encoder of this package takes one Result and returns one object. Nothing in it is random: the
same job makes the same objects; only the time, which is in here, tells two encodings apart.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from app.dicom.volume import Volume
from app.errors import ModelError, NodeError
from app.models.card import Label, ModelCard
from app.results.identity import Identity
from app.results.sources import Sources, read_sources

Labels = NDArray[np.uint8]
Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Result:
    """A label map on the grid of its source; made by `result_of`, which checks that all fits."""

    labels_kji: Labels
    volume: Volume
    """Of the first input's series; its slices are in the order of `labels_kji`."""
    sources: Sources
    card: ModelCard
    identity: Identity
    version: int
    """Counts the answers of one route to one study, as late slices make new ones."""
    node_version: str
    local: datetime
    """When it was encoded; DICOM times are the site's, like those of its scanners."""

    def mask(self, label: Label) -> Mask:
        """Return the voxels of one label."""
        return np.isin(self.labels_kji, sorted(label.values))


def result_of(
    labels_kji: Labels,
    volume: Volume,
    source_paths: Iterable[str | Path],
    *,
    card: ModelCard,
    identity: Identity,
    node_version: str,
    now: datetime,
    version: int = 1,
) -> Result:
    """Read the sources' headers and refuse what does not fit together."""
    _check_labels(labels_kji, volume, card)
    sources = read_sources(source_paths, volume.sop_uids, volume.affine_lps)
    first = sources.headers[0]
    if first.StudyInstanceUID != identity.study_uid:
        raise NodeError(
            f"the sources are of study {first.StudyInstanceUID}, the job is of study"
            f" {identity.study_uid}; nothing was encoded"
        )
    rows, columns = labels_kji.shape[1:]
    if (rows, columns) != (first.Rows, first.Columns):
        raise ModelError(
            f"{card.name}: the label map has slices of {rows}×{columns}, its source of"
            f" {first.Rows}×{first.Columns}; bring it back onto the source's grid"
        )
    return Result(
        labels_kji=labels_kji,
        volume=volume,
        sources=sources,
        card=card,
        identity=identity,
        version=version,
        node_version=node_version,
        local=now.astimezone(),
    )


def _check_labels(labels_kji: Labels, volume: Volume, card: ModelCard) -> None:
    slices = len(volume.sop_uids)
    if labels_kji.ndim != 3 or len(labels_kji) != slices or labels_kji.dtype != np.uint8:  # noqa: PLR2004  # k, j, i
        raise ModelError(
            f"{card.name}: the label map is {labels_kji.dtype} {labels_kji.shape}, not uint8 with"
            f" {slices} slices; bring it back onto the source's grid"
        )
    described = np.zeros(256, dtype=np.bool_)
    described[[0, *card.values]] = True
    present = np.zeros(256, dtype=np.bool_)
    for plane in labels_kji:
        present |= np.bincount(plane.ravel(), minlength=256).astype(np.bool_)
    if unknown := np.flatnonzero(present & ~described).tolist():
        raise ModelError(
            f"{card.name}: the label map has the values {unknown}, which the card does not"
            " describe; add them to its labels"
        )
