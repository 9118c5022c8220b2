"""How many past studies a second are judged by today's rules.

`python -m tests.bench_replay [--studies N]`. A log of 10,000 routine CTs, seven series and 282
objects each, is made and rehearsed with one route that takes other series than before.
"""

import argparse
import resource
import sys
import tempfile
import time
from contextlib import closing
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

from sqlalchemy import insert

from app import replay
from app.dicom.headers import read_series
from app.dicom.series import Series
from app.pipeline.rehearse import Rehearsal, judged
from app.store.store import Store
from app.store.tables import SeriesHeaders, Studies
from tests.log_rows import START
from tests.phantoms import studies
from tests.unit.built import routes

THEN, NOW = (
    routes(f"""
- name: thin
  inputs: {{CT: {{where: [{{op: equals, tag: Modality, value: CT}}], prefer: [{prefer}]}}}}
""")["thin"]
    for prefer in ("bone_kernel", "soft_kernel, thinnest")
)


def fill(store: Store, study: list[Series], number: int) -> None:
    """Put so many copies of a study into the log, past its methods, which sync each of them."""
    trace = judged(study, [THEN])
    count = sum(len(each.sop_uids) for each in study)
    with store._database.writing() as connection:
        for n in range(number):
            uid, received = f"2.25.1{n:030}", START + timedelta(seconds=n)
            row = {"study_uid": uid, "state": "routed", "source": "", "instances": count}
            times = {"first_received_at": received, "last_received_at": received}
            connection.execute(insert(Studies).values(**row, **times, version=count, trace=trace))
            rows = [
                {
                    "study_uid": uid,
                    "series_uid": each.series_uid,
                    "instances": len(each.sop_uids),
                    "summary": replace(each, study_uid=uid).to_json(),
                    "headers": {},
                }
                for each in study
            ]
            connection.execute(insert(SeriesHeaders), rows)


def main(argv: list[str] | None = None) -> int:
    """Print studies a second and the largest memory."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--studies", type=int, default=10_000)
    number = parser.parse_args(argv).studies
    with tempfile.TemporaryDirectory() as folder:
        studies.write(Path(folder) / "files", "bench", studies.CT_TRUNK)
        study = read_series((Path(folder) / "files").rglob("*.dcm"))
        with closing(Store.open(Path(folder) / "node.db")) as store:
            fill(store, study, number)
            size_mb = (Path(folder) / "node.db").stat().st_size / 1e6
            rehearsal, began = Rehearsal([NOW]), time.perf_counter()
            replay.replay_log(store, replay.Days.of("2030-01-01", None), None, rehearsal)
            seconds = time.perf_counter() - began
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    sys.stdout.write(
        f"{rehearsal.studies} studies, {len(rehearsal.changed)} changes, log {size_mb:.0f} MB:"
        f" {seconds:.1f} s, {rehearsal.studies / seconds:.0f} a second, {peak_mb:.0f} MB\n"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
