"""Every form of a result to a real Orthanc, by STOW-RS and by C-STORE.

Covered: that it takes and lists each form, and that an archive which refuses label maps on the wire
gets the binary segmentation with the report that refers to it. Not covered: what a viewer shows.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pydicom
import pytest

from app.results.forms import Form, file_name
from app.results.make import Made, make
from app.results.measure import measure
from tests.delivering import PROVED, Site
from tests.peers import Orthanc, require
from tests.sockets.pulls import NODE
from tests.unit.encoding import Case, organs

pytestmark = pytest.mark.orthanc

EVERY = [form for form in Form if form not in {Form.LABELMAP, Form.FRACTIONAL, Form.JSON, Form.CSV}]
LABEL_MAP = [Form.LABELMAP, Form.SR]


@pytest.fixture(scope="module")
def orthanc() -> Iterator[Orthanc]:
    """An Orthanc that knows us, and refuses by C-STORE what it has never heard of."""
    require("Orthanc", "orthanc-dicomweb")
    with Orthanc(settings={"UnknownSopClassAccepted": False}) as running:
        running.introduce(NODE, 9)
        yield running
        running.kill()  # its orderly end takes seconds


def results(site: Site, folder: Path, number: int, forms: list[Form], to: str) -> str:
    """Hand real results of a small series over; `number` makes them another job's."""
    labels = np.roll(organs(), number, axis=2)
    folder.mkdir()
    result = Case(folder).result(labels)
    made = Made(result=result, measured=measure(result), probabilities=None)
    job_id = site.results(to, forms=[str(form) for form in forms])
    job = site.config.data / "jobs" / job_id
    for bundle in (forms, [Form.SEG, Form.SR]):
        for form in bundle:
            make(job, form, bundle, made).touch()
    return job_id


def uids(site: Site, job_id: str, forms: list[Form]) -> set[str]:
    """Return the SOP Instance UIDs of a job's results."""
    folder = site.config.data / "jobs" / job_id / "encode"
    paths = [folder / file_name(form, forms) for form in forms]
    return {str(pydicom.dcmread(path).SOPInstanceUID) for path in paths}


@pytest.mark.parametrize("by", ["stow", "store"])
def test_orthanc_holds_every_form(tmp_path: Path, orthanc: Orthanc, by: str) -> None:
    """SEG, both reports, contours and the overview, proved by its own list."""
    archives = {
        "stow": {"kind": "dicomweb", "url": orthanc.dicomweb_url},
        "store": {
            "kind": "dimse",
            "host": "127.0.0.1",
            "port": orthanc.dicom_port,
            "ae_title": "ORTHANC",
            "calling_ae_title": NODE,
        },
    }
    with Site(tmp_path / "site", {by: archives[by]}) as site:
        job_id = results(site, tmp_path / "series", 0, EVERY, by)
        site.work(site.courier(by), 20)
        assert site.delivery(job_id, by).state is PROVED, site.delivery(job_id, by).reason
        assert uids(site, job_id, EVERY) <= {*orthanc.instances()}


def test_an_archive_that_refuses_label_maps_gets_the_binary_one(
    tmp_path: Path, orthanc: Orthanc
) -> None:
    """Orthanc accepts no presentation context for it; the report beside it is exchanged too."""
    archive = {
        "kind": "dimse",
        "host": "127.0.0.1",
        "port": orthanc.dicom_port,
        "ae_title": "ORTHANC",
        "calling_ae_title": NODE,
    }
    with Site(tmp_path / "site", {"pacs": archive}) as site:
        job_id = results(site, tmp_path / "series", 1, LABEL_MAP, "pacs")
        site.work(site.courier(), 20)
        given = site.delivery(job_id)
        assert given.state is PROVED, given.reason
        assert given.forms == ("seg", "sr")
        held = {*orthanc.instances()}
        assert uids(site, job_id, [Form.SEG, Form.SR]) <= held
        assert not uids(site, job_id, [Form.LABELMAP]) & held
