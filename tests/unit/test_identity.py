"""Identities and the UIDs that follow from them.

Covered: order, distinctness, the form of a UID. Not covered: the archive's view of equal UIDs,
which the acceptance tests have.
"""

from hypothesis import given
from hypothesis import strategies as st
from pydicom.uid import UID

from app.results.identity import Identity, input_digest

UIDS = st.lists(st.from_regex(r"1\.2\.[1-9][0-9]{0,3}", fullmatch=True), unique=True, min_size=1)


def identity(digest: str = "d") -> Identity:
    """Return an identity with a digest."""
    return Identity(study_uid="1.2.3", route="r", model="m@1+abc", digest=digest)


@given(UIDS, st.randoms())
def test_the_digest_does_not_depend_on_the_order(uids: list[str], random: object) -> None:
    """Slices arrive in any order."""
    shuffled = sorted(uids, key=lambda _: random.random())  # type: ignore[attr-defined]
    assert input_digest({"CT": uids}) == input_digest({"CT": shuffled})


@given(UIDS)
def test_the_digest_depends_on_role_and_instances(uids: list[str]) -> None:
    """One slice more, or the same slices in another role, are another input."""
    assert input_digest({"CT": uids}) != input_digest({"PET": uids})
    assert input_digest({"CT": uids}) != input_digest({"CT": [*uids, "1.3"]})


def test_result_uids_are_valid_stable_and_distinct() -> None:
    """UUID-derived UIDs, PS3.5 B.2."""
    uid = UID(identity().uid("seg.instance"))
    assert uid.is_valid
    assert uid.startswith("2.25.")
    assert uid == identity().uid("seg.instance")
    assert uid != identity().uid("seg.series")
    assert uid != identity("e").uid("seg.instance")


def test_a_job_is_named_by_its_identity() -> None:
    """Short enough to type, the same at every site."""
    assert identity().job_id == identity().job_id
    assert len(identity().job_id) == 12
    assert identity().job_id != identity("e").job_id
