"""Our encoder of frames writes what highdicom writes, element by element.

Covered: binary and label map segmentations of one and of two segments, over any grid, with
overlapping and with empty segments. Other than highdicom's may be: what it draws at random or takes
from the clock; the padding byte behind an odd number of bytes of pixels (highdicom writes the
character 0, DICOM asks for a null); the compression of pixels; and the spacing between slices,
which highdicom takes from rounded decimals, or from the one slice that it sees when nothing was
found. Not covered: sources of several frames, and frames of fewer than 8 pixels, which highdicom
0.28 packs wrong (unit/test_overlap.py).
"""

import warnings
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import highdicom as hd
import numpy as np
import pydicom
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian

from app.dicom.kind import MANUFACTURER, MODEL_NAME
from app.dicom.volume import build_volume
from app.models.card import ModelCard
from app.results import describe
from app.results.labelmap import encode_labelmap
from app.results.result import Result, result_of
from app.results.segmentation import encode_seg
from tests.properties.strategies import grids, identity, tiny_card, write_series
from tests.unit.encoding import NOW, as_bytes

ENOUGH_FOR_JPEG_LS = 30
"""Pixels; its encoder has no room for its own header beside fewer."""
NOT_COMPARED = {
    "ContributionDateTime",
    "DimensionOrganizationUID",
    "InstanceCreationDate",
    "InstanceCreationTime",
    "PixelData",  # compared as pixels
}


@st.composite
def results(draw: st.DrawFn) -> tuple[Any, ...]:
    """Draw a grid, a card and a label map in which any slice or label may be empty."""
    affine, shape = draw(grids())
    values = draw(st.sampled_from([(1,), (1, 2), (2, 1)]))
    size = int(np.prod(shape))
    cells = draw(st.lists(st.integers(0, size - 1), max_size=9, unique=True))
    labels = np.zeros(size, np.uint8)
    for cell in cells:
        labels[cell] = draw(st.sampled_from(values))
    plain = tiny_card(values).model_dump()
    if len(values) == 2 and draw(st.booleans()):
        plain["labels"][0]["includes"] = (values[1],)
    return affine, labels.reshape(shape), ModelCard.model_validate(plain)


def by_highdicom(result: Result, kind: str, name: str, number: int) -> Dataset:
    """Encode as highdicom's documentation says: every source image, every voxel."""
    card = result.card
    masks = np.stack([result.mask(label) for label in card.labels], axis=-1)
    found = masks.any()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        seg = hd.seg.Segmentation(
            source_images=result.sources.headers,
            pixel_array=(masks if found else masks[:1]).astype(np.uint8),
            plane_positions=None
            if found
            else [
                hd.PlanePositionSequence("PATIENT", result.sources.headers[0].ImagePositionPatient)
            ],
            omit_empty_frames=bool(found),
            segmentation_type=kind,
            segment_descriptions=[
                describe.describe_segment(at, label, card, result.identity)
                for at, label in enumerate(card.labels, 1)
            ],
            series_instance_uid=result.identity.uid(f"{name}.series"),
            series_number=number,
            series_description="Phantom organs RESEARCH",
            sop_instance_uid=result.identity.uid(f"{name}.instance"),
            instance_number=1,
            manufacturer=MANUFACTURER,
            manufacturer_model_name=MODEL_NAME,
            software_versions=describe.software(card, result.node_version),
            device_serial_number=card.weights_sha256,
            content_label="PHANTOM",
            content_description=describe.CONTENT,
            content_creator_name="phantom-organs^^^^",
            content_date=result.local.date(),
            content_time=result.local.time(),
            series_date=result.local.date(),
            series_time=result.local.time(),
            transfer_syntax_uid=ExplicitVRLittleEndian,
            contributing_equipment=describe.equipment(card, result.node_version, result.local),
            specific_character_set=None,
        )
        result.sources.identify(seg)
        return pydicom.dcmread(BytesIO(as_bytes(seg)))


def differences(one: Dataset, other: Dataset, where: str = "") -> Iterator[str]:
    """Yield each element that stands in one data set only, or differs in VR or value."""
    for tag in sorted({*one.keys(), *other.keys()}):
        if tag not in one or tag not in other:
            yield f"{where}{tag} is in one only"
            continue
        here, there = one[tag], other[tag]
        path = f"{where}{here.keyword}"
        if here.keyword in NOT_COMPARED:
            continue
        if here.VR != there.VR:
            yield f"{path}: {here.VR}, {there.VR}"
        elif here.VR != "SQ":
            if not _equal(here.keyword, here.value, there.value):
                yield f"{path}: {here.value!r}, {there.value!r}"
        elif len(here.value) != len(there.value):
            yield f"{path}: {len(here.value)} items, {len(there.value)}"
        else:
            for number, (a, b) in enumerate(zip(here.value, there.value, strict=True)):
                yield from differences(a, b, f"{path}[{number}].")


def _equal(keyword: str, here: Any, there: Any) -> bool:
    if keyword == "SpacingBetweenSlices":  # theirs is of rounded decimals
        return bool(np.isclose(here, there, rtol=1e-6))
    return bool(here == there)


def compare(result: Result) -> Iterator[str]:
    """Yield how the objects that we make of a result differ from those that highdicom makes."""
    pairs = [(by_highdicom(result, "BINARY", "seg", 302), encode_seg(result))]
    if not result.card.overlaps and result.labels_kji[0].size >= ENOUGH_FOR_JPEG_LS:
        theirs = by_highdicom(result, "LABELMAP", "labelmap", 304)
        pairs.append((theirs, encode_labelmap(result)))
    for theirs, ours in pairs:
        yield from differences(theirs, ours)
        if not np.array_equal(theirs.pixel_array, ours.pixel_array):
            yield "pixels"


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(results())
def test_every_element_is_as_highdicom_writes_it(drawn: tuple[Any, ...]) -> None:
    """Same elements, same VRs, same values, same pixels."""
    affine, labels, card = drawn
    with TemporaryDirectory() as folder:
        paths = write_series(Path(folder), affine, np.zeros(labels.shape))
        result = result_of(
            labels,
            build_volume(paths),
            paths,
            card=card,
            identity=identity(),
            node_version="0.1.0",
            now=NOW,
        )
        found = [*compare(result)]
    if not labels.any():
        found = [each for each in found if "SpacingBetweenSlices" not in each]
    assert found == []
