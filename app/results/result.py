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
from app.results.forms import Form
from app.results.identity import Identity
from app.results.sources import Sources, read_sources

Labels = NDArray[np.uint8]
Mask = NDArray[np.bool_]


BEHIND = {
    Form.SEG: 0,
    Form.SR: 1,
    Form.LABELMAP: 2,
    Form.RTSTRUCT: 3,
    Form.OVERVIEW: 4,
    Form.FRACTIONAL: 5,
    Form.TEXT_SR: 6,
}
"""What is added to the series number that the card gives."""

_MAX_NUMBER = 2**31 - 1


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

    def series_number(self, form: Form) -> int:
        """Return the number of a form's series: each is a series of its own behind the source's."""
        offset = self.card.outputs.series_number_offset + BEHIND[form]
        return min(int(self.sources.headers[0].SeriesNumber) + offset, _MAX_NUMBER)

    def segments(self) -> list[tuple[int, Label]]:
        """Return the segments of the SEG with their numbers, which count from 1.

        Where nothing was found each label is a segment, or the SEG would have none.
        """
        labels = [*self.card.labels]
        if self.card.outputs.empty_segments == "omit":
            found = np.flatnonzero(values_by_slice(self.labels_kji).any(axis=0)).tolist()
            labels = [label for label in labels if not label.values.isdisjoint(found)] or labels
        return [*enumerate(labels, 1)]


def values_by_slice(labels_kji: Labels) -> NDArray[np.bool_]:
    """Return which values each slice has, indexed [k, value].

    Every value of a slice begins a run of equal pixels; few pixels do, so counting these is quick.
    """
    found = np.zeros((len(labels_kji), 256), dtype=np.bool_)
    begins = np.ones(labels_kji[0].size, dtype=np.bool_)  # the first pixel does
    for k, plane in enumerate(labels_kji):
        pixels = plane.ravel()
        np.not_equal(pixels[1:], pixels[:-1], out=begins[1:])
        found[k, pixels[begins]] = True
    return found


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
    present = values_by_slice(labels_kji).any(axis=0)
    if unknown := np.flatnonzero(present & ~described).tolist():
        raise ModelError(
            f"{card.name}: the label map has the values {unknown}, which the card does not"
            " describe; add them to its labels"
        )
