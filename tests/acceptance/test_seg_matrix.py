"""Segmentations of every kind of source: valid, and read by others as they were made.

The judges are dicom3tools: dciodvfy of each object, dcentvfy of each with its sources. The readers
are dcmqi's segimage2itkimage and highdicom: each must find every marked voxel at its millimetre,
which is known from the affine that the series was written with. Covered: CT, PET and MR; axial,
sagittal, coronal and oblique; one slice; five encodings of the pixels; frames of one enhanced
object; 1, 2 and 104 segments;
overlapping and empty segments, stated and left out; nothing found; names in other alphabets;
headers without any optional attribute. Not covered: what viewers make of them.
"""

import subprocess
import sys
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import gdcm
import highdicom as hd
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk  # noqa: N813  # as everybody calls it
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.uid import (
    UID,
    JPEG2000Lossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    MRImageStorage,
    PositronEmissionTomographyImageStorage,
    RLELossless,
)

from app.dicom.volume import Volume, build_volume
from app.errors import ResultRejected
from app.models.card import ModelCard
from app.results.check import check_seg
from app.results.forms import TABLES, Form
from app.results.labelmap import check_labelmap, write_labelmap
from app.results.make import Made, make
from app.results.measure import measure
from app.results.result import Result, result_of
from app.results.segmentation import write_seg
from tests.peers import require
from tests.properties.enhanced import ORDER, write_enhanced
from tests.properties.strategies import (
    FRAME_UID,
    SERIES_UID,
    Edit,
    axial,
    axis_frames,
    identity,
    sop_uid,
    spoil,
    tiny_card,
    write_series,
)
from tests.unit.encoding import NOW, oblique, poor
from tests.validators import TOOL_IS_OLDER, dcentvfy, dciodvfy

pytestmark = pytest.mark.dciodvfy

SEGIMAGE2ITKIMAGE = str(Path(sys.executable).with_name("segimage2itkimage"))
LABEL_MAP_IS_NEWER = (
    *TOOL_IS_OLDER,
    "Information Object Not found",  # Supplement 243 is of 2024, the tool of 2022
    "SegmentNumber",  # 0 is the background's
)


def pet(ds: Dataset, _: int) -> None:
    """Make it a slice of a PET."""
    ds.SOPClassUID, ds.Modality = PositronEmissionTomographyImageStorage, "PT"
    ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID
    ds.Units, ds.RescaleIntercept = "BQML", 0


def mr(ds: Dataset, _: int) -> None:
    """Make it a slice of an MR, which has no slope."""
    ds.SOPClassUID, ds.Modality = MRImageStorage, "MR"
    ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID
    del ds.RescaleSlope, ds.RescaleIntercept


def western(ds: Dataset, _: int) -> None:
    """Name the patient in Latin 1."""
    ds.SpecificCharacterSet = "ISO_IR 100"
    spoil(ds, "PatientName", "Müßig^Jürgen".encode("latin-1"))


def japanese(ds: Dataset, _: int) -> None:
    """Name the patient in kanji, as in PS3.5 H.3.1."""
    ds.SpecificCharacterSet = ["", "ISO 2022 IR 87"]
    ds.PatientName = "Yamada^Tarou=山田^太郎=やまだ^たろう"


def compressed(syntax: UID) -> Callable[[Path], None]:
    """Return what compresses a file of the series with pydicom's encoders."""

    def compress(path: Path) -> None:
        ds = pydicom.dcmread(path)
        ds.compress(syntax, generate_instance_uid=False)
        ds.save_as(path)

    return compress


def jpeg_lossless(path: Path) -> None:
    """Compress a file with GDCM, as pydicom has no encoder for it."""
    reader, change, writer = (
        gdcm.ImageReader(),
        gdcm.ImageChangeTransferSyntax(),
        gdcm.ImageWriter(),
    )
    reader.SetFileName(str(path))
    assert reader.Read()
    change.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.JPEGLosslessProcess14_1))
    change.SetInput(reader.GetImage())
    assert change.Change()
    writer.SetFileName(str(path))
    writer.SetFile(reader.GetFile())
    writer.SetImage(change.GetOutput())
    assert writer.Write()
    assert pydicom.dcmread(path).file_meta.TransferSyntaxUID == JPEGLosslessSV1


def along(frame: int) -> NDArray[Any]:
    """Return the affine of oblong voxels along the patient's axes."""
    affine = np.eye(4)
    affine[:3, :3] = axis_frames()[frame][:, ::-1] * (3, 1.5, 1)
    affine[:3, 3] = (-40, 20, 7)
    return affine


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A series and what a model found in it."""

    affine: Any = None
    edit: Edit | None = None
    pack: Callable[[Path], None] | None = None
    shape: tuple[int, int, int] = (4, 9, 11)
    segments: int = 2
    missing: int = 0
    """How many of them, from the first on, were not found."""
    overlapping: bool = False
    outputs: Mapping[str, Any] = field(default_factory=dict)
    tolerated: str = "nothing"
    """Part of what dcentvfy may say."""
    enhanced: str | None = None
    """Its modality, where all slices are frames of one object, in another order."""
    compress: UID | None = None

    def write(self, folder: Path) -> list[Path]:
        """Write the series."""
        affine = axial(self.shape)[0] if self.affine is None else self.affine
        voxels = np.arange(np.prod(self.shape)).reshape(self.shape)
        if self.enhanced:
            how: dict[str, Any] = {"modality": self.enhanced, "compress": self.compress}
            return write_enhanced(folder, affine, voxels, ORDER, **how)
        paths = write_series(folder, affine, voxels, edit=self.edit)
        for path in paths if self.pack else ():
            self.pack(path)
        return paths

    def volume(self, paths: list[Path]) -> Volume:
        """Return the volume of the series; one slice is none for the node, yet can be encoded."""
        if len(paths) > 1 or self.enhanced:
            return build_volume(paths)
        return Volume(
            voxels_kji=np.zeros(self.shape, np.float32),
            affine_lps=axial(self.shape)[0],
            sop_uids=(sop_uid(0),),
            frame_of_reference_uid=FRAME_UID,
            series_uid=SERIES_UID,
        )

    def result(self, paths: list[Path]) -> Result:
        """Return what is encoded; every slice but the second holds something."""
        plain = tiny_card(range(1, self.segments + 1)).model_dump()
        if self.overlapping:
            plain["labels"][0]["includes"] = (2,)
        plain["outputs"] |= self.outputs
        found = [0, *range(self.missing + 1, self.segments + 1)]
        labels = np.random.default_rng(6).choice(found, self.shape).astype(np.uint8)
        labels[1:2] = 0
        return result_of(
            labels,
            self.volume(paths),
            paths,
            card=ModelCard.model_validate(plain),
            identity=identity(),
            node_version="0.1.0",
            now=NOW,
        )


SAGITTAL, CORONAL = 5, 8
SOURCES = {
    "CT axial": Source(),
    "CT oblique": Source(affine=oblique()),
    "CT sagittal": Source(affine=along(SAGITTAL)),
    "PET coronal": Source(edit=pet, affine=along(CORONAL)),
    "PET": Source(edit=pet),
    "MR sagittal": Source(edit=mr, affine=along(SAGITTAL)),
    "MR oblique": Source(edit=mr, affine=oblique()),
    "one slice": Source(shape=(1, 9, 11)),
    "JPEG-LS": Source(pack=compressed(JPEGLSLossless)),
    "JPEG 2000": Source(pack=compressed(JPEG2000Lossless), shape=(4, 40, 48)),
    "RLE": Source(pack=compressed(RLELossless)),
    "JPEG lossless": Source(pack=jpeg_lossless),
    "enhanced CT": Source(enhanced="CT"),
    "enhanced CT oblique": Source(enhanced="CT", affine=oblique()),
    "enhanced MR sagittal": Source(enhanced="MR", affine=along(SAGITTAL)),
    "enhanced JPEG-LS": Source(enhanced="CT", compress=JPEGLSLossless, shape=(4, 16, 20)),
    "one segment": Source(segments=1),
    "104 segments": Source(segments=104, shape=(3, 16, 16)),
    "overlapping": Source(overlapping=True),
    "one segment empty": Source(missing=1),
    "one segment left out": Source(missing=1, outputs={"empty_segments": "omit"}),
    "nothing found": Source(missing=2),
    "Latin 1": Source(edit=western),
    "Japanese": Source(edit=japanese),
    "poor header": Source(
        edit=poor,
        # What a SEG must have, if only empty, its sources should have had.
        tolerated="Attribute present in one instance but not the other",
    ),
}


def truth(source: Source, result: Result) -> dict[int, NDArray[Any]]:
    """Return the millimetres of each segment's voxels, by the affine of the series."""
    affine = axial(source.shape)[0] if source.affine is None else source.affine
    return {
        number: points(np.argwhere(result.mask(label)), affine)
        for number, label in result.segments()
    }


def points(index: NDArray[Any], affine: NDArray[Any]) -> NDArray[Any]:
    """Return voxels in millimetres, in one order that rounding does not change."""
    found = index @ affine[:3, :3].T + affine[:3, 3]
    return np.asarray(found[np.lexsort(np.round(found, 2).T)])


def by_dcmqi(seg: Path, folder: Path) -> dict[int, NDArray[Any]]:
    """Return the voxels of each segment that dcmqi finds, in millimetres."""
    folder.mkdir()
    call = [SEGIMAGE2ITKIMAGE, "--inputDICOM", seg, "--outputDirectory", folder]
    subprocess.run(call, check=True, capture_output=True, timeout=60)
    found = {}
    for path in folder.glob("*.nrrd"):
        image = sitk.ReadImage(str(path))
        affine = np.eye(4)
        directions = np.reshape(image.GetDirection(), (3, 3)) * image.GetSpacing()
        affine[:3, :3], affine[:3, 3] = directions[:, ::-1], image.GetOrigin()
        found[int(path.stem)] = points(np.argwhere(sitk.GetArrayFromImage(image)), affine)
    return found


def by_highdicom(seg: Path) -> dict[int, NDArray[Any]]:
    """Return the voxels of each segment that highdicom finds, in millimetres."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it quotes odd names
        volume = hd.seg.segread(seg).get_volume(combine_segments=False)
    return {
        number: points(np.argwhere(volume.array[..., number - 1]), volume.affine)
        for number in range(1, volume.array.shape[-1] + 1)
    }


@pytest.mark.parametrize("name", SOURCES)
def test_a_segmentation_is_valid_and_read_by_others(tmp_path: Path, name: str) -> None:
    """No judge objects, and two other readers find the same voxels at the same millimetres."""
    require("dciodvfy", "dcentvfy")
    source = SOURCES[name]
    paths = source.write(tmp_path)
    result = source.result(paths)
    seg = tmp_path / "seg.dcm"
    with seg.open("wb") as file:
        write_seg(file, result)
    check_seg(seg, result)
    assert dciodvfy(seg) == []
    said = dcentvfy([*paths, seg])
    assert [line for line in said if source.tolerated not in line] == []
    expected = truth(source, result)
    for theirs in (by_dcmqi(seg, tmp_path / "dcmqi"), by_highdicom(seg)):
        assert {number for number, found in expected.items() if len(found)} <= {*theirs}
        for number, found in theirs.items():
            assert found.shape == expected[number].shape
            np.testing.assert_allclose(found, expected[number], atol=1e-3)


LABEL_MAPS = ("CT axial", "CT oblique", "MR sagittal", "one slice", "104 segments", "nothing found")


@pytest.mark.parametrize("name", LABEL_MAPS)
def test_a_label_map_is_valid_and_read_by_another(tmp_path: Path, name: str) -> None:
    """dicom3tools of 2022 knows its modules, if not the object; highdicom finds the same voxels."""
    require("dciodvfy")
    source = SOURCES[name]
    paths = source.write(tmp_path)
    result = source.result(paths)
    seg = tmp_path / "seg.dcm"
    with seg.open("wb") as file:
        write_labelmap(file, result)
    check_labelmap(seg, result)
    assert dciodvfy(seg, LABEL_MAP_IS_NEWER) == []
    for number, found in by_highdicom(seg).items():
        np.testing.assert_allclose(found, truth(source, result)[number], atol=1e-3)


@pytest.mark.parametrize("name", ["CT axial", "PET coronal", "enhanced CT", "enhanced MR sagittal"])
def test_every_form_is_made_checked_and_valid(tmp_path: Path, name: str) -> None:
    """As the encode stage makes them: all of them leave, and the judges object to none."""
    require("dciodvfy", "dcentvfy")
    source = SOURCES[name]
    paths = source.write(tmp_path)
    result = source.result(paths)
    shares = np.stack([result.mask(label) * np.uint8(200) for label in result.card.labels])
    made = Made(result=result, measured=measure(result), probabilities=shares)
    every = [form for form in Form if form is not Form.LABELMAP]
    files = {form: make(tmp_path, form, every, made) for form in every}
    beside = [Form.LABELMAP, Form.SR]
    label_map, report = (make(tmp_path, form, beside, made) for form in beside)
    assert label_map.name == "labelmap.dcm"
    assert report.name == "sr-labelmap.dcm"
    objects = {form: path for form, path in files.items() if form not in TABLES}
    for form, path in objects.items():
        assert dciodvfy(path, (*TOOL_IS_OLDER, "Laterality")) == [], form
    said = dcentvfy([*paths, *objects.values()])
    assert [line for line in said if "AccessionNumber" not in line] == []
    assert not (tmp_path / "quarantine").exists()


def test_what_fails_its_check_is_put_aside_with_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An encoder that mirrors: the object is kept for a person, where no courier looks."""
    source = SOURCES["CT axial"]
    result = source.result(source.write(tmp_path))
    mirrored = replace(result, labels_kji=np.ascontiguousarray(result.labels_kji[:, :, ::-1]))
    monkeypatch.setattr("app.results.make.write_seg", lambda file, _: write_seg(file, mirrored))
    made = Made(result=result, measured=measure(result), probabilities=None)
    with pytest.raises(ResultRejected, match="differs from the label map"):
        make(tmp_path, Form.SEG, [Form.SEG], made)
    assert [*(tmp_path / "encode").iterdir()] == []
    assert pydicom.dcmread(tmp_path / "quarantine" / "seg.dcm").Modality == "SEG"
    told = (tmp_path / "quarantine" / "seg.txt").read_text()
    assert "differs from the label map" in told
