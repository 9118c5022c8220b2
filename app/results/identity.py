"""What makes a job the same job, and the UIDs of its results that follow from it.

Everything here is a pure function of the inputs, so that a study sent twice makes no second job
and a result made twice, here or in the batch composition, is the same DICOM object.
"""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from uuid import NAMESPACE_OID, uuid4, uuid5

_NAMESPACE = uuid5(NAMESPACE_OID, "marginalia.results")


def new_uid() -> str:
    """Return a UID that nothing else has, for what is no result, such as a transaction."""
    return f"2.25.{uuid4().int}"


def input_digest(inputs: Mapping[str, Iterable[str]]) -> str:
    """Return the digest of the SOP Instance UIDs that fill each role, whatever their order."""
    text = "\n".join(f"{role}={','.join(sorted(inputs[role]))}" for role in sorted(inputs))
    return hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """One route on one study with one exact model on one exact set of instances."""

    study_uid: str
    route: str
    model: str
    digest: str

    @property
    def key(self) -> str:
        """The identity as one unique string."""
        return f"{self.study_uid}/{self.route}/{self.model}/{self.digest}"

    @property
    def job_id(self) -> str:
        """A short name for people; the same job has the same name at every site."""
        return hashlib.sha256(self.key.encode()).hexdigest()[:12]

    def uid(self, what: str) -> str:
        """Return the UID of one result, such as `seg.instance` (UUIDv5 under 2.25, PS3.5 B.2)."""
        return f"2.25.{uuid5(_NAMESPACE, f'{self.key}/{what}').int}"
