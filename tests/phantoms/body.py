"""A synthetic trunk, known exactly: every point in patient millimetres has a tissue.

Nothing is stored on a grid. A phantom is a list of bent ellipsoids drawn from a seed, so that the
same patient can be sampled by a series of any orientation and spacing, and the truth is sampled
with it. Patient axes are LPS: x grows to the left, y to the back, z to the head. Arrays are
indexed [k, j, i]; an affine maps (k, j, i, 1) to LPS millimetres.
"""

from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

Affine = NDArray[np.float64]

LABELS = {
    "background": 0,
    "body": 1,
    "lungs": 2,
    "liver": 3,
    "spleen": 4,
    "kidney_right": 5,
    "kidney_left": 6,
}


class Tissue(IntEnum):
    """What a point consists of; from `FLESH` on, organs may be painted over it."""

    AIR = 0
    TABLE = 1
    SKIN_FAT = 2
    FLESH = 3
    LUNG = 4
    HEART = 5
    BONE = 6
    LIVER = 7
    SPLEEN = 8
    STOMACH = 9
    KIDNEY_FAT = 10
    KIDNEY_RIGHT = 11
    KIDNEY_LEFT = 12


_LABEL_OF = np.zeros(len(Tissue), np.uint8)
_LABEL_OF[Tissue.SKIN_FAT :] = LABELS["body"]
_LABEL_OF[Tissue.LUNG] = LABELS["lungs"]
_LABEL_OF[Tissue.LIVER] = LABELS["liver"]
_LABEL_OF[Tissue.SPLEEN] = LABELS["spleen"]
_LABEL_OF[Tissue.KIDNEY_RIGHT] = LABELS["kidney_right"]
_LABEL_OF[Tissue.KIDNEY_LEFT] = LABELS["kidney_left"]

_BLUR_MM = 0.7
"""Standard deviation of the in-plane blur, in millimetres, so that it does not follow the grid."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Blob:
    """A bent ellipsoid of one tissue, in the body's own millimetres.

    With `u` the offset from `centre` in units of `semi_mm`, x and y are first shifted by `bend`
    times z squared and x is widened by `taper` times z; a point is inside where the sum of
    u to the power of twice `power` is below one (1, 1, 1 is an ellipsoid, 3, 3, 3 almost a box).
    """

    tissue: Tissue
    centre: tuple[float, float, float]
    semi_mm: tuple[float, float, float]
    tilt: tuple[float, float, float] = (0.0, 0.0, 0.0)
    bend: tuple[float, float] = (0.0, 0.0)
    taper: float = 0.0
    power: tuple[int, int, int] = (1, 1, 1)

    def unit(self) -> Affine:
        """Return the 4×4 affine from body millimetres to units of this blob."""
        to_unit = np.eye(4)
        to_unit[:3, :3] = rotation(self.tilt).T / np.array(self.semi_mm)[:, None]
        to_unit[:3, 3] = -to_unit[:3, :3] @ np.array(self.centre)
        return to_unit


class Phantom:
    """One synthetic patient: tissues, their HU, and a pose, all drawn from `seed`."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        rng = np.random.default_rng([0x70AD, seed])
        self._blobs = _anatomy(rng)
        self._hu_of = _intensities(rng)
        self._noise_hu = rng.uniform(6, 16)
        self._from_patient = np.linalg.inv(_pose(rng))

    def truth(self, affine_lps: Affine, shape_kji: tuple[int, int, int]) -> NDArray[np.uint8]:
        """Return the labels (see `LABELS`) at every voxel of the grid."""
        painter = _Painter(self._blobs, self._from_patient @ affine_lps, shape_kji)
        return np.stack([_LABEL_OF[painter.slice(k)] for k in range(shape_kji[0])])

    def hu(
        self, affine_lps: Affine, shape_kji: tuple[int, int, int], seed: int = 0
    ) -> NDArray[np.int16]:
        """Return a noisy CT of the grid; `seed` draws the noise, not the patient."""
        painter = _Painter(self._blobs, self._from_patient @ affine_lps, shape_kji)
        spacing_mm = np.linalg.norm(affine_lps[:3, 1:3], axis=0)
        side = np.minimum(0.25, (_BLUR_MM / spacing_mm) ** 2 / 2)
        # The blur averages the noise away; start with as much more of it.
        gain = self._noise_hu / np.sqrt(np.prod((1 - 2 * side) ** 2 + 2 * side**2))
        hu = np.empty(shape_kji, np.int16)
        for k in range(shape_kji[0]):
            rng = np.random.default_rng([0x401E, self.seed, seed, k])
            plane = self._hu_of[painter.slice(k)]
            plane += rng.standard_normal(plane.shape, np.float32) * np.float32(gain)
            hu[k] = np.clip(np.rint(_blur(plane, side)), -1024, 3071)
        return hu


def rotation(angles_rad: tuple[float, float, float]) -> Affine:
    """Return the rotation about x, then y, then z."""
    (cx, cy, cz), (sx, sy, sz) = np.cos(angles_rad), np.sin(angles_rad)
    about_x = np.array([[1, 0, 0], [0, cx, -sx], [0, sx, cx]])
    about_y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    about_z = np.array([[cz, -sz, 0], [sz, cz, 0], [0, 0, 1]])
    return about_z @ about_y @ about_x


def _pose(rng: np.random.Generator) -> Affine:
    pose = np.eye(4)
    turn = rng.uniform(-1, 1, 3) * np.radians([5, 4, 6])
    pose[:3, :3] = rotation(tuple(turn)) * rng.uniform(0.9, 1.1)
    pose[:3, 3] = rng.uniform(-1, 1, 3) * [20, 15, 25]
    return pose


def _intensities(rng: np.random.Generator) -> NDArray[np.float32]:
    ranges = {
        Tissue.AIR: (-1000, -1000),
        Tissue.TABLE: (-600, -100),
        Tissue.SKIN_FAT: (-110, -80),
        Tissue.FLESH: (-20, 15),
        Tissue.LUNG: (-850, -750),
        Tissue.HEART: (35, 140),
        Tissue.BONE: (250, 700),
        Tissue.LIVER: (50, 75),
        Tissue.SPLEEN: (45, 70),
        Tissue.STOMACH: (-700, 30),
        Tissue.KIDNEY_FAT: (-105, -80),
    }
    hu = np.zeros(len(Tissue), np.float32)
    for tissue, (low, high) in ranges.items():
        hu[tissue] = rng.uniform(low, high)
    hu[[Tissue.KIDNEY_RIGHT, Tissue.KIDNEY_LEFT]] = rng.uniform(35, 180)
    return hu


def _anatomy(rng: np.random.Generator) -> list[Blob]:
    """Return the blobs in the order they are painted; later ones cover earlier ones."""
    half_width, half_depth = rng.uniform(160, 188), rng.uniform(108, 132)
    trunk = {
        "centre": (0.0, 0.0, 0.0),
        "taper": rng.uniform(-0.10, 0.10),
        "power": (1, 1, 3),
    }
    fat_mm, length_mm = rng.uniform(8, 16), rng.uniform(330, 420)

    def organ(
        tissue: Tissue, x: float, y: float, z: float, *semi_mm: float, grow_mm: float = 0.0
    ) -> Blob:
        return Blob(
            tissue=tissue,
            centre=(
                (x + rng.uniform(-8, 8)) * half_width / 174,
                (y + rng.uniform(-6, 6)) * half_depth / 120,
                z + rng.uniform(-12, 12),
            ),
            semi_mm=tuple(s * rng.uniform(0.88, 1.12) + grow_mm for s in semi_mm),
            tilt=tuple(rng.uniform(-0.22, 0.22, 3)),
            bend=tuple(rng.uniform(-0.2, 0.2, 2)),
            taper=rng.uniform(-0.15, 0.15),
        )

    kidneys = [
        organ(Tissue.KIDNEY_RIGHT, -64, 50, -125, 29, 25, 52),
        organ(Tissue.KIDNEY_LEFT, 64, 50, -112, 29, 25, 52),
    ]
    return [
        Blob(
            tissue=Tissue.TABLE,
            centre=(rng.uniform(-15, 15), half_depth + rng.uniform(20, 30), 0.0),
            semi_mm=(rng.uniform(190, 230), rng.uniform(6, 14), 800.0),
            power=(3, 3, 3),
        ),
        Blob(tissue=Tissue.SKIN_FAT, semi_mm=(half_width, half_depth, length_mm), **trunk),
        Blob(
            tissue=Tissue.FLESH,
            semi_mm=(half_width - fat_mm, half_depth - fat_mm, length_mm - 5),
            **trunk,
        ),
        organ(Tissue.LUNG, -82, 5, 100, 60, 84, 120),
        organ(Tissue.LUNG, 82, 5, 100, 60, 84, 120),
        organ(Tissue.HEART, 18, -28, 62, 52, 46, 52),
        Blob(
            tissue=Tissue.BONE,
            centre=(rng.uniform(-4, 4), half_depth * 0.62, 0.0),
            semi_mm=(rng.uniform(18, 24), rng.uniform(18, 24), length_mm - 15),
            bend=(0.0, rng.uniform(-0.4, 0.4)),
            power=(1, 1, 3),
        ),
        organ(Tissue.STOMACH, 60, -35, -45, 40, 34, 44),
        organ(Tissue.SPLEEN, 108, 30, -30, 36, 46, 56),
        organ(Tissue.LIVER, -66, -12, -45, 86, 78, 68),
        *(_halo(kidney, rng.uniform(5, 9)) for kidney in kidneys),
        *kidneys,
    ]


def _halo(kidney: Blob, thickness_mm: float) -> Blob:
    return Blob(
        tissue=Tissue.KIDNEY_FAT,
        centre=kidney.centre,
        semi_mm=tuple(s + thickness_mm for s in kidney.semi_mm),
        tilt=kidney.tilt,
        bend=kidney.bend,
        taper=kidney.taper,
    )


class _Painter:
    """Paints blobs slice by slice, each only inside its box, in float32."""

    def __init__(
        self, blobs: list[Blob], body_from_index: Affine, shape_kji: tuple[int, int, int]
    ) -> None:
        self._shape = shape_kji
        self._layers = []
        for blob in blobs:
            unit_from_index = blob.unit() @ body_from_index
            box = _box(unit_from_index, blob, shape_kji)
            self._layers.append((blob, unit_from_index, box))

    def slice(self, k: int) -> NDArray[np.uint8]:
        """Return the tissue of each pixel of slice `k`."""
        plane = np.zeros(self._shape[1:], np.uint8)
        for blob, unit_from_index, (box_k, box_j, box_i) in self._layers:
            if not box_k.start <= k < box_k.stop:
                continue
            inside = _inside(blob, unit_from_index, k, box_j, box_i)
            part = plane[box_j, box_i]
            if blob.tissue > Tissue.FLESH:
                inside &= part >= Tissue.FLESH
            part[inside] = blob.tissue
        return plane


def _inside(
    blob: Blob, unit_from_index: Affine, k: int, box_j: slice, box_i: slice
) -> NDArray[np.bool_]:
    along_k, along_j, along_i, origin = unit_from_index[:3].T
    j = np.arange(box_j.start, box_j.stop)
    i = np.arange(box_i.start, box_i.stop)
    rows = (origin + k * along_k + j[:, None] * along_j).astype(np.float32)
    columns = (i[:, None] * along_i).astype(np.float32)
    x, y, z = (rows[:, a, None] + columns[None, :, a] for a in range(3))
    x *= 1 + np.float32(blob.taper) * z
    z2 = z * z
    x += np.float32(blob.bend[0]) * z2
    y += np.float32(blob.bend[1]) * z2
    terms = (_power(x * x, blob.power[0]), _power(y * y, blob.power[1]), _power(z2, blob.power[2]))
    return terms[0] + terms[1] + terms[2] < 1


def _power(square: NDArray[np.float32], power: int) -> NDArray[np.float32]:
    return square if power == 1 else square**power


def _box(
    unit_from_index: Affine, blob: Blob, shape_kji: tuple[int, int, int]
) -> tuple[slice, slice, slice]:
    """Return the index box that holds the blob (exact for an ellipsoid, with room for its bend)."""
    index_from_unit = np.linalg.inv(unit_from_index)
    boxy = max(blob.power) > 1
    room = 1 / (1 - abs(blob.taper)) + max(abs(b) for b in blob.bend)
    if boxy:
        half = np.abs(index_from_unit[:3, :3]).sum(axis=1) * room
    else:
        half = np.linalg.norm(index_from_unit[:3, :3], axis=1) * room
    low = np.floor(index_from_unit[:3, 3] - half).astype(int)
    high = np.ceil(index_from_unit[:3, 3] + half).astype(int) + 1
    edges = zip(low, high, shape_kji, strict=True)
    box = [slice(min(max(a, 0), n), max(min(b, n), 0)) for a, b, n in edges]
    if any(edge.stop <= edge.start for edge in box):
        return (slice(0, 0), slice(0, 0), slice(0, 0))
    return box[0], box[1], box[2]


def _blur(plane: NDArray[np.float32], side: NDArray[np.float64]) -> NDArray[np.float32]:
    """Blur with three taps along each in-plane axis; `side` is the weight of the outer two."""
    for axis, weight in enumerate(side):
        padded = np.pad(plane, [(1, 1) if a == axis else (0, 0) for a in range(2)], mode="edge")
        lower = padded[:-2] if axis == 0 else padded[:, :-2]
        upper = padded[2:] if axis == 0 else padded[:, 2:]
        plane = np.float32(1 - 2 * weight) * plane + np.float32(weight) * (lower + upper)
    return plane
