"""Whether a contrast agent was given, from the agent itself or else from the descriptions."""

import re
from collections.abc import Mapping

from app.dicom.series import Scalar

_NO_AGENT = re.compile(
    r"|no(?:ne)?|nein|keine?s?|nil|null|0|n/?a|unknown|-+|\.+|w/?o|without|ohne|sin|sans|senza"
    r"|(?:non?|without|ohne|w/?o)[ -]?(?:iv|contrast|contrast agent|km)|nati[vf]e?|pre|plain"
)
_BY_MOUTH = re.compile(r"\b(?:oral|orally|p\.?o\.?|rectal|water|wasser)\b")
_IN_VEIN = re.compile(r"\b(?:iv|i\.v\.?|intraven\w*|art\w*)\b")

_AGENT = r"(?:i\.?v\.?[ -]?)?(?:contrast\w*|kontrast\w*|contraste|km|gd|gad\w*|ce|cm|c)\b"
_WITHOUT = r"(?<!\w)(?:w/?o|without|no|non|ohne|sin|sans|senza|pre)"
_NEGATED = re.compile(
    rf"{_WITHOUT}[ ./-]*(?:{_AGENT}|$)"
    r"|\b(?:pre|native|nativ|unenhanced|plain|noncontrast|precontrast|nect|ncct)\b"
    r"|(?<!\w)(?:c-|-c)(?!\w)"
)
_GIVEN = re.compile(
    r"(?<!\w)(?:\+ ?(?:c|gd|km|k|iv|contrast)|(?:c|gd|km) ?\+)(?!\w)"
    r"|\b(?:post|postgad|postcontrast|ce|t1ce|t1c|t1gd|cect|cecst|enhanced|gd|gad|gado\w*)\b"
    r"|\b(?:contrast\w*|kontrast\w*|contraste|mit km|i\.?v\.? ?km|km|cta|mra ce)\b"
    r"|\b(?:arteri\w*|portal\w*|portven\w*|venous|venoes|ven[oö]s\w*|nephro\w*)\b"
)


def contrast(tags: Mapping[str, tuple[Scalar, ...]]) -> tuple[str, ...]:
    """Return yes or no, or nothing when neither agent nor descriptions say."""
    agents = [str(value).casefold() for value in tags.get("ContrastBolusAgent", ())]
    if any(not _NO_AGENT.fullmatch(each) and not _is_oral(each) for each in agents):
        return ("yes",)
    if any(_NO_AGENT.fullmatch(each) for each in agents):
        return ("no",)
    for keyword in ("SeriesDescription", "ProtocolName"):
        for text in tags.get(keyword, ()):
            if said := _said(str(text).casefold().replace("_", " ")):
                return (said,)
    return ()


def _is_oral(agent: str) -> bool:
    """Say whether the agent went into the bowel alone, which enhances no vessel."""
    return bool(_BY_MOUTH.search(agent)) and not _IN_VEIN.search(agent)


def _said(text: str) -> str:
    """Return what one description says; one that says both says nothing."""
    rest, negations = _NEGATED.subn(" ", text)
    given = _GIVEN.search(rest)
    if negations and given:
        return ""
    return "no" if negations else "yes" if given else ""
