"""The frames of one object among the images of a series: packed to be kept, unpacked to be judged.

What all frames share stands once. What differs is kept in columns, the values of all frames one
after another, which for a position of three numbers is three numbers a frame.
"""

from collections.abc import Mapping, Sequence

from app.dicom.image import ENHANCED, FRAMES, Image
from app.dicom.series import Scalar

_COLUMN = "frames:"
"""Begins the keys of values that are not the same for all frames."""
_MARK = "\0"
"""Stands between a SOP Instance UID and a frame; no text of a header has it."""
_DIGITS = 6


def packed(shared: Image, frames: Sequence[Image]) -> dict[str, tuple[Scalar, ...]]:
    """Return one image that says what its header and each of its frames say."""
    image = {**shared, ENHANCED: (len(frames),)}
    for keyword in sorted({keyword for frame in frames for keyword in frame}):
        values = [frame.get(keyword, shared.get(keyword, ())) for frame in frames]
        if len({*values}) == 1:
            image[keyword] = values[0]
        else:
            image[_COLUMN + keyword] = _column(values)
    return image


def unpacked(images: Mapping[str, Image]) -> Mapping[str, Image]:
    """Return the images with each frame as an image of its own; their order is that of volumes."""
    if not any(ENHANCED in image for image in images.values()):
        return images
    apart: dict[str, Image] = {}
    for uid, image in images.items():
        if ENHANCED in image:
            frames = enumerate(_frames(image), start=1)
            apart |= {f"{uid}{_MARK}{n:0{_DIGITS}}": frame for n, frame in frames}
        else:
            apart[uid] = image
    return apart


def instance_of(name: str) -> tuple[str, int | None]:
    """Return the SOP Instance UID and, of a frame, its number for a key of unpacked images."""
    uid, _, number = name.partition(_MARK)
    return uid, int(number) if number else None


def with_column(image: Image, keyword: str, values: Mapping[int, Scalar]) -> Image:
    """Return a packed image of which some frames, counted from 1, say one thing more."""
    frames = _frames(image)
    column = [
        (values[n],) if n in values else frame.get(keyword, ())
        for n, frame in enumerate(frames, start=1)
    ]
    return {**image, _COLUMN + keyword: _column(column)}


def _column(values: Sequence[tuple[Scalar, ...]]) -> tuple[Scalar, ...]:
    """Join values of one width; shorter ones are filled up with what no header has."""
    width = max(map(len, values))
    return tuple(value for each in values for value in each + ("",) * (width - len(each)))


def _frames(image: Image) -> list[dict[str, tuple[Scalar, ...]]]:
    """Take a packed image apart; a column that does not fit, of two that disagree, is left out."""
    count = int(image[ENHANCED][0])
    # An archive may not tell of the groups that the file has: what describes the frames counts.
    shared = {
        key: values
        for key, values in image.items()
        if key != FRAMES and not key.startswith(_COLUMN)
    }
    frames = [dict(shared) for _ in range(count)]
    for key in image.keys() - shared.keys() - {FRAMES}:
        column, keyword = image[key], key.removeprefix(_COLUMN)
        width, rest = divmod(len(column), count)
        for n, frame in enumerate(frames):
            own = () if rest else column[n * width : (n + 1) * width]
            frame[keyword] = tuple(value for value in own if value != "")
    return [{key: values for key, values in frame.items() if values} for frame in frames]
