"""What the header of one object tells, with what it says of each of its frames."""

from collections.abc import Mapping

import pydicom

from app.dicom.columns import packed
from app.dicom.frames import frames_of, is_enhanced
from app.dicom.image import NOT_OF_FRAMES, Image, attributes_of, image_of
from app.dicom.kind import is_image
from app.dicom.series import Scalar, text_of
from app.dicom.tags import smallest, tags_of
from app.errors import StudyError

Tags = Mapping[str, tuple[Scalar, ...]]


def told(ds: pydicom.Dataset, name: str) -> tuple[Tags, Image]:
    """Return the tags and the image of one header.

    An object that says of frames what cannot be is one whose frames nobody knows: routes may ask
    for that, and the rest of its study goes on.
    """
    tags, image = tags_of(ds), image_of(ds)
    if not is_enhanced(ds) or not is_image(tags, text_of(ds, "SOPClassUID")):
        return tags, image  # a segmentation has thousands of frames, of which no route asks
    try:
        frames = frames_of(ds, name)
    except StudyError:
        return tags, image
    shared = {key: values for key, values in image.items() if key not in NOT_OF_FRAMES}
    is_mr = "MR" in tags.get("Modality", ())
    of_frames = [attributes_of(frame, is_mr=is_mr) for frame in frames]
    return _with_frames(tags, frames), packed(shared, of_frames)


def _with_frames(tags: Tags, frames: list[pydicom.Dataset]) -> Tags:
    found = {keyword: set(values) for keyword, values in tags.items()}
    for frame in frames:
        for keyword, values in tags_of(frame).items():
            found.setdefault(keyword, set()).update(values)
    return {keyword: smallest(values) for keyword, values in found.items()}
