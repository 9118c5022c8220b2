"""Series → volume: values and geometry of sound series, and pixels that cannot be decoded.

Held against what was written and against SimpleITK's and highdicom's own readers. Not covered:
odd series (test_odd_series.py), any orientation and order (properties/test_geometry.py).
"""

from pathlib import Path

import highdicom as hd
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk  # noqa: N813  # its own short name
from pydicom.dataset import Dataset
from pydicom.uid import (
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    RLELossless,
)

from app.dicom import volume as volume_module
from app.dicom.volume import build_volume, load, save
from app.errors import UnreadableDicom, UnsupportedGeometry
from tests.properties.strategies import (
    axial,
    ct_slice,
    write_series,
)


def test_each_slice_is_calibrated_by_its_own_slope(tmp_path: Path) -> None:
    """PET: slopes differ, the first slice may be empty, and nothing is rounded to integers."""
    affine, voxels = axial()
    voxels[0] = 0

    def edit(ds: Dataset, k: int) -> None:
        ds.Modality, ds.RescaleIntercept, ds.RescaleSlope = "PT", 0, f"{0.3 * (k + 1):.1f}"

    volume = build_volume(write_series(tmp_path, affine, voxels, edit=edit))
    slopes = np.array([0.3, 0.6, 0.9, 1.2])[:, np.newaxis, np.newaxis]
    stored = np.where(voxels == 0, 1024, voxels + 1024)
    np.testing.assert_allclose(volume.voxels_kji, stored * slopes, rtol=1e-6)


def test_bits_above_the_stored_ones_are_no_part_of_the_value(tmp_path: Path) -> None:
    """12 bits are stored in 16; the upper four may hold anything (PS3.5 8.1.1)."""
    affine, voxels = axial()

    def edit(ds: Dataset, _: int) -> None:
        garbage = np.frombuffer(ds.PixelData, "<u2") | 0xA000
        ds.PixelData = garbage.astype("<u2").tobytes()

    volume = build_volume(write_series(tmp_path, affine, voxels, edit=edit))
    np.testing.assert_array_equal(volume.voxels_kji, voxels)


def test_signed_values_and_padding_stay_below_zero(tmp_path: Path) -> None:
    """PixelPaddingValue −2000 lies outside the body and must not wrap round."""
    affine, voxels = axial()

    def edit(ds: Dataset, k: int) -> None:
        signed = voxels[k].astype("<i2")
        signed[0, 0] = -2000
        ds.PixelData = signed.tobytes()
        ds.BitsStored, ds.HighBit, ds.PixelRepresentation, ds.RescaleIntercept = 16, 15, 1, 0

    volume = build_volume(write_series(tmp_path, affine, voxels, edit=edit))
    expected = voxels.copy()
    expected[:, 0, 0] = -2000
    np.testing.assert_array_equal(volume.voxels_kji, expected)


@pytest.mark.parametrize(
    "syntax", [JPEG2000Lossless, JPEGLSLossless, RLELossless], ids=lambda uid: uid.name
)
def test_lossless_compression_changes_no_value(tmp_path: Path, syntax: str) -> None:
    """The decoders that the node is installed with give the same pixels."""
    affine, voxels = axial((2, 32, 32))
    voxels %= 2000
    paths = write_series(tmp_path, affine, voxels)
    for path in paths:
        ds = pydicom.dcmread(path)
        ds.compress(syntax, generate_instance_uid=False)
        ds.save_as(path)
    np.testing.assert_array_equal(build_volume(paths).voxels_kji, voxels)


@pytest.mark.parametrize("big", [True, False])
def test_other_native_encodings_change_no_value(tmp_path: Path, big: bool) -> None:
    """Implicit VR and the retired big endian still come out of old archives."""
    affine, voxels = axial()
    paths = [tmp_path / f"{k}.dcm" for k in range(len(voxels))]
    for k, path in enumerate(paths):
        ds = ct_slice(affine, voxels[k], k)
        ds.file_meta.TransferSyntaxUID = ExplicitVRBigEndian if big else ImplicitVRLittleEndian
        if big:
            ds.PixelData = np.frombuffer(ds.PixelData, "<u2").astype(">u2").tobytes()
        ds.save_as(path, enforce_file_format=True)
    np.testing.assert_array_equal(build_volume(paths).voxels_kji, voxels)


def test_a_truncated_file_is_refused(tmp_path: Path) -> None:
    """A transfer that was cut off must not become a volume."""
    paths = write_series(tmp_path, *axial())
    paths[1].write_bytes(paths[1].read_bytes()[:-20])
    with pytest.raises(UnreadableDicom, match=r"^001\.dcm: "):
        build_volume(paths)


def test_a_broken_codestream_is_refused(tmp_path: Path) -> None:
    """Pydicom raises StopIteration and worse on these; the sentence names the file."""
    affine, voxels = axial((3, 16, 16))
    paths = write_series(tmp_path, affine, voxels)
    for path in paths:
        ds = pydicom.dcmread(path)
        ds.compress(RLELossless, generate_instance_uid=False)
        ds.PixelData = pydicom.encaps.encapsulate([b"\xff" * 64])
        ds.save_as(path)
    with pytest.raises(UnreadableDicom, match=r"^000\.dcm: is not readable DICOM"):
        build_volume(paths)


def test_the_limit_holds_before_a_pixel_is_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A volume just below the limit is built, one just above it is refused."""
    paths = write_series(tmp_path, *axial())
    monkeypatch.setattr(volume_module, "MAX_BYTES", 4 * 5 * 6 * 4)
    build_volume(paths)
    monkeypatch.setattr(volume_module, "MAX_BYTES", 4 * 5 * 6 * 4 - 1)
    with pytest.raises(UnsupportedGeometry, match="4 slices of 5×6 need"):
        build_volume(paths)


def test_geometry_and_values_agree_with_other_readers(tmp_path: Path) -> None:
    """SimpleITK and highdicom place an oblique series with oblong pixels just as we do."""
    turn = sitk.Euler3DTransform((0, 0, 0), 0.3, -0.2, 0.5)
    affine, voxels = axial((5, 7, 4), spacing=(2.5, 0.8, 1.7))
    affine[:3, :3] = np.array(turn.GetMatrix()).reshape(3, 3) @ affine[:3, :3]
    paths = write_series(tmp_path, affine, voxels, order=(3, 1, 4, 0, 2))
    volume = build_volume(paths)

    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(tmp_path)))
    theirs = reader.Execute()
    np.testing.assert_array_equal(volume.voxels_kji, sitk.GetArrayFromImage(theirs))
    for kji in np.ndindex(2, 2, 2):
        index = np.array(kji) * (np.array(voxels.shape) - 1)
        point = theirs.TransformIndexToPhysicalPoint([int(each) for each in index[::-1]])
        np.testing.assert_allclose((volume.affine_lps @ [*index, 1])[:3], point, atol=1e-4)

    other = hd.get_volume_from_series([pydicom.dcmread(path) for path in paths])
    if other.affine[:3, 0] @ volume.affine_lps[:3, 0] < 0:
        other = other.flip_spatial(0)
    np.testing.assert_array_equal(volume.voxels_kji, other.array)
    np.testing.assert_allclose(volume.affine_lps, other.affine, atol=1e-5)
    np.testing.assert_allclose(volume.spacing_kji_mm, (2.5, 0.8, 1.7), atol=1e-6)


def test_a_saved_volume_is_the_same_and_not_in_memory(tmp_path: Path) -> None:
    """The voxels are mapped from the file; header and array are whole or absent."""
    paths = write_series(tmp_path, *axial())
    volume = build_volume(paths)
    save(volume, tmp_path, "ct")
    loaded = load(tmp_path, "ct")
    assert isinstance(loaded.voxels_kji, np.memmap)
    np.testing.assert_array_equal(loaded.voxels_kji, volume.voxels_kji)
    np.testing.assert_array_equal(loaded.affine_lps, volume.affine_lps)
    assert loaded.sop_uids == volume.sop_uids
    assert loaded.frame_of_reference_uid == volume.frame_of_reference_uid
    assert loaded.series_uid == volume.series_uid
    assert not list(tmp_path.glob("*.part"))
