"""One picture of a result: axial slices with the outlines of its segments, and a legend.

Slices are shown as radiologists look at them, from the feet: the patient's right is on the left,
however the array lies. Whatever was found is seen on at least one of them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from app.models.card import Label
from app.models.grid import Reorientation, reorientation
from app.results.describe import content, plain
from app.results.outline import loops
from app.results.result import Labels, Result

Picture = NDArray[np.uint8]
"""(rows, columns, 3), RGB."""
Colour = tuple[int, int, int]

_COLUMNS, _TILES = 4, 12
_TILE, _IMAGE = 320, 314
_HEAD, _LINE, _MARGIN = 68, 24, 12
_FINE = 2
"""Outlines are drawn this many times larger and made smaller again, which smooths them."""
_SEEN = 0.5
"""Share of its largest area with which a segment counts as seen on a slice."""
_CONTEXT_MM = 20.0
_FIELD_MM = 160.0
"""What is shown around the segments, and of the patient at least."""
_CT_HU = (-160.0, 240.0)
_PERCENTILES = (1.0, 99.5)
_font = lru_cache(ImageFont.load_default)  # Pillow's own, so that all machines write alike
_WHITE, _GREY, _AMBER = (240, 240, 240), (150, 150, 150), (255, 190, 60)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Axial:
    """The result with slices to the head, rows to the back and columns to the left."""

    labels: Labels
    voxels: NDArray[np.float32]
    spacing_mm: tuple[float, ...]
    turn: Reorientation
    areas: NDArray[np.int64]
    """Voxels of each label of the card on each slice."""


def montage(result: Result) -> Picture:
    """Return the picture; the same result makes the same pixels."""
    axial = _axial(result)
    slices, crop = _chosen(axial.areas), _crop(axial)
    window = _window(axial, slices, crop, result)
    tiles = [_tile(result, axial, index, crop, window) for index in slices]
    labels = result.card.labels
    rows, lines = -(-len(tiles) // _COLUMNS), -(-len(labels) // _COLUMNS)
    height = max(tile.height for tile in tiles) + _TILE - _IMAGE
    size = (_COLUMNS * _TILE, _HEAD + rows * height + lines * _LINE + 2 * _MARGIN)
    picture = Image.new("RGB", size)
    draw = ImageDraw.Draw(picture)
    _head(draw, result)
    for number, tile in enumerate(tiles):
        row, column = divmod(number, _COLUMNS)
        left = column * _TILE + (_TILE - tile.width) // 2
        picture.paste(tile, (left, _HEAD + row * height))
    voxel_ml = abs(np.linalg.det(result.volume.affine_lps[:3, :3])) / 1000
    for number, (label, voxels) in enumerate(zip(labels, axial.areas.sum(axis=1), strict=True)):
        column, row = divmod(number, lines)
        at = column * _TILE + _MARGIN, size[1] - _MARGIN - (lines - row) * _LINE
        _legend(draw, at, label, voxels * voxel_ml)
    return np.asarray(picture)


def _axial(result: Result) -> _Axial:
    turn = reorientation(result.volume.affine_lps, "SPL")
    labels = turn.apply(result.labels_kji)
    counts = np.stack([np.bincount(plane.ravel(), minlength=256) for plane in labels])
    return _Axial(
        labels=labels,
        voxels=turn.apply(result.volume.voxels_kji),
        spacing_mm=tuple(turn.spacing(result.volume.spacing_kji_mm)),
        turn=turn,
        areas=np.stack([counts[:, [*each.values]].sum(axis=1) for each in result.card.labels]),
    )


def _chosen(areas: NDArray[np.int64]) -> list[int]:
    """Return slices on which every segment is well seen, and others that fill the gaps."""
    found = areas[areas.any(axis=1)]
    share = found / found.max(axis=1, keepdims=True, initial=1)
    chosen: list[int] = []
    while len(share):
        best = int(np.where(share >= _SEEN, share, 0).sum(axis=0).argmax())
        chosen.append(best)
        share = share[share[:, best] < _SEEN]
    shown = np.flatnonzero(found.any(axis=0)) if len(found) else np.arange(areas.shape[1])
    candidates = np.arange(shown[0], shown[-1] + 1)
    chosen = chosen or [int(candidates[len(candidates) // 2])]
    wanted = max(_TILES, -(-len(chosen) // _COLUMNS) * _COLUMNS)
    while len(chosen) < min(wanted, len(candidates)):
        away = np.abs(candidates[:, np.newaxis] - chosen).min(axis=1)
        chosen.append(int(candidates[away.argmax()]))
    return sorted(chosen, reverse=True)


def _crop(axial: _Axial) -> tuple[slice, slice]:
    """Return the rows and columns around all segments, or all where nothing was found."""
    marked = np.zeros(axial.labels.shape[1:], dtype=np.bool_)
    for plane in axial.labels:
        marked |= plane != 0
    if not marked.any():
        marked[:] = True
    rows, columns = np.nonzero(marked)
    _, height, width = axial.labels.shape
    _, row_mm, column_mm = axial.spacing_mm
    return _span(rows, height, row_mm), _span(columns, width, column_mm)


def _span(marked: NDArray[np.int64], size: int, spacing_mm: float) -> slice:
    first, last = int(marked.min()), int(marked.max())
    extent_mm = (last + 1 - first) * spacing_mm
    around = round(max(_CONTEXT_MM, (_FIELD_MM - extent_mm) / 2) / spacing_mm)
    return slice(max(0, first - around), min(size, last + 1 + around))


def _window(
    axial: _Axial, slices: Sequence[int], crop: tuple[slice, slice], result: Result
) -> tuple[float, float]:
    """Return the values shown as black and as white: soft tissue, or what the picture holds."""
    if result.card.inputs[0].modality == "CT":
        return _CT_HU
    shown = np.stack([axial.voxels[index][crop][::2, ::2] for index in slices])
    low, high = np.percentile(shown, _PERCENTILES)
    return float(low), float(max(high, low + 1e-6 * max(1.0, abs(low))))


def _tile(
    result: Result,
    axial: _Axial,
    index: int,
    crop: tuple[slice, slice],
    window: tuple[float, float],
) -> Image.Image:
    """Return one slice with its outlines, its side and its height."""
    low, high = window
    shown = axial.voxels[index][crop]
    grey = np.clip((shown - low) / (high - low) * 255, 0, 255).astype(np.uint8)
    extent_mm = np.array(shown.shape) * axial.spacing_mm[1:]
    height, width = np.rint(extent_mm * _IMAGE / extent_mm.max()).astype(int).clip(1)
    scale = np.array([height, width]) * _FINE / shown.shape
    large = (int(width) * _FINE, int(height) * _FINE)
    fine = Image.fromarray(grey).resize(large, Image.Resampling.BICUBIC).convert("RGB")
    draw = ImageDraw.Draw(fine)
    labels = axial.labels[index][crop]
    for label in result.card.labels:
        for loop in loops(np.isin(labels, [*label.values])):
            points = (np.vstack([loop, loop[:1]]) * scale)[:, ::-1]
            inside = np.clip(points, 1, np.array(large) - 2)
            draw.line(
                [*map(tuple, inside.tolist())], fill=label.colour, width=_FINE + 1, joint="curve"
            )
    tile = fine.reduce(_FINE)
    draw = ImageDraw.Draw(tile)
    _write(draw, (6, 4), _height(result, axial, index), 14)
    _write(draw, (6, int(height) // 2 - 8), "R", 16)
    return tile


def _height(result: Result, axial: _Axial, index: int) -> str:
    """Return how far the middle of a slice lies to the head or to the feet, in the patient."""
    shape = np.array(axial.labels.shape)
    middle = np.array([index, (shape[1] - 1) / 2, (shape[2] - 1) / 2])
    at = np.where(axial.turn.reversed_, shape - 1 - middle, middle)
    kji = at[np.argsort(axial.turn.axes)]
    z_mm = float(result.volume.affine_lps[2] @ [*kji, 1])
    return f"{'S' if z_mm >= 0 else 'I'} {abs(z_mm):.1f} mm"


def _head(draw: ImageDraw.ImageDraw, result: Result) -> None:
    card = result.card
    _write(draw, (_MARGIN, 8), content(result.version), 22, _AMBER)
    _write(draw, (_MARGIN, 40), f"{card.name}@{card.version}", 16)


def _legend(draw: ImageDraw.ImageDraw, at: tuple[int, int], label: Label, ml: float) -> None:
    x, y = at
    colour = _WHITE if ml else _GREY
    amount = _amount(ml) if ml else "not found"
    end = x + _TILE - 2 * _MARGIN
    draw.rectangle((x, y + 3, x + 13, y + 16), outline=label.colour, width=3 if ml else 1)
    start = end - _font(15).getlength(amount)
    _write(draw, (start, y), amount, 15, colour)
    _write(draw, (x + 22, y), _fitting(plain(label.name), start - x - 34), 15, colour)


def _amount(ml: float) -> str:
    digits = next(digits for digits, least in enumerate((100, 10, 0)) if ml >= least)
    return f"{ml:.{digits}f} mL"


def _fitting(text: str, width: float) -> str:
    font = _font(15)
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(f"{text}...") > width:
        text = text[:-1]
    return f"{text.rstrip()}..."


def _write(
    draw: ImageDraw.ImageDraw,
    at: tuple[float, float],
    text: str,
    size: int,
    colour: Colour = _WHITE,
) -> None:
    draw.text(at, text, colour, _font(size), stroke_width=1, stroke_fill=(0, 0, 0))
