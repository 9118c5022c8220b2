"""Three planes through a study with its segments laid over."""

from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from numpy.typing import NDArray
from pydicom import dcmread

from app.models import ModelCard
from app.models.card import Label
from tests.phantoms.dicom import StudyFiles

mpl.use("agg")
from matplotlib import pyplot as plt  # after the choice of a backend without screen
from matplotlib.patches import Patch

LOWEST_HU, HIGHEST_HU = -900, 400
STRENGTH = 0.35
WIDTH_INCHES = 15


def draw(study: StudyFiles, labels: NDArray[Any], card: ModelCard, path: Path) -> Path:
    """Write the picture to `path`; the planes go through the middle of the smallest organ."""
    hu = np.stack([_hu(each) for each in study.paths])
    k, j, i = _centre(labels, card)
    dk, dj, di = np.linalg.norm(study.affine_lps[:3, :3], axis=0)
    views = [
        ("axial, seen from the feet", hu[k], labels[k], dj, di),
        ("coronal, seen from the front", hu[::-1, j], labels[::-1, j], dk, di),
        ("sagittal, seen from the left", hu[::-1, :, i], labels[::-1, :, i], dk, dj),
    ]
    widths = [image.shape[1] * across for _, image, _, _, across in views]
    heights = [image.shape[0] * down for _, image, _, down, _ in views]
    size = (WIDTH_INCHES, WIDTH_INCHES * max(heights) / sum(widths) + 1)
    figure, axes = plt.subplots(1, 3, figsize=size, facecolor="black", width_ratios=widths)
    for axis, (title, image, overlay, down, across) in zip(axes, views, strict=True):
        axis.imshow(_blend(image, overlay, card), aspect=down / across)
        for label in card.labels:
            if (overlay == label.value).any():
                axis.contour(overlay == label.value, [0.5], colors=[_rgb(label)], linewidths=1.2)
        axis.set_title(title, color="white")
        axis.axis("off")
    for axis, (left, right) in zip(axes, ("RL", "RL", "AP"), strict=True):
        axis.text(0.01, 0.5, left, color="white", transform=axis.transAxes)
        axis.text(0.99, 0.5, right, color="white", transform=axis.transAxes, ha="right")
    figure.legend(
        handles=[Patch(color=_rgb(label), label=label.name) for label in card.labels],
        loc="lower center",
        ncols=len(card.labels),
        labelcolor="white",
        frameon=False,
    )
    figure.tight_layout(rect=(0, 0.07, 1, 1))
    figure.savefig(path, dpi=100, facecolor="black")
    plt.close(figure)
    return path


def _rgb(label: Label) -> tuple[float, ...]:
    return tuple(channel / 255 for channel in label.colour)


def _hu(path: Path) -> NDArray[Any]:
    ds = dcmread(path)
    return ds.pixel_array * float(ds.RescaleSlope) + float(ds.RescaleIntercept)


def _centre(labels: NDArray[Any], card: ModelCard) -> tuple[int, ...]:
    sizes = {label.value: int((labels == label.value).sum()) for label in card.labels}
    smallest = min((value for value, size in sizes.items() if size), key=sizes.__getitem__)
    return tuple(int(np.median(index)) for index in np.nonzero(labels == smallest))


def _blend(image: NDArray[Any], overlay: NDArray[Any], card: ModelCard) -> NDArray[Any]:
    """Return grey values with every label but the largest, which holds the others, tinted."""
    grey = np.clip((image - LOWEST_HU) / (HIGHEST_HU - LOWEST_HU), 0, 1)
    picture = np.repeat(grey[..., None], 3, axis=-1)
    largest = max(card.labels, key=lambda label: (overlay == label.value).sum())
    for label in card.labels:
        inside = (overlay == label.value) & (label != largest)
        picture[inside] = (1 - STRENGTH) * picture[inside] + STRENGTH * np.array(_rgb(label))
    return picture
