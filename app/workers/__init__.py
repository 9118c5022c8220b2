"""Persistent children that compute: one call at a time, a limit for each, killed as a group.

`worker.py` is the parent's side and `process.py` the child as the parent holds it; `child.py` is
the child's closed table of functions and `serve.py` the loop it runs. They speak JSON lines:

    parent → child   {"function": "segment", "arguments": {…}, "job": "…"}
    child → parent   {"result": {…}}   or   {"errors": ["IncompleteSeries", "StudyError", …],
                                             "message": "…", "traceback": "…"}
"""

from app.workers.worker import Condition, Worker, WorkerFault

__all__ = ["Condition", "Worker", "WorkerFault"]
