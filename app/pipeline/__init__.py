"""The data's way, one module a stage; STAGES states its order once."""

from enum import StrEnum


class Stage(StrEnum):
    """One step of the data's way; a job's stage says where it resumes."""

    RECEIVE = "receive"
    ASSEMBLE = "assemble"
    ROUTE = "route"
    INFER = "infer"
    ENCODE = "encode"
    DELIVER = "deliver"


STAGES = tuple(Stage)
JOB_STAGES = STAGES[STAGES.index(Stage.INFER) :]
