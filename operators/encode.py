"""EncodeOperator: from label maps to DICOM objects."""

from typing import Any

from monai.deploy.core import Operator, OperatorSpec

from app.pipeline.work import Stages
from operators.ports import queue


class EncodeOperator(Operator):
    """Encode results."""

    def __init__(self, fragment: Any, *args: Any, stages: Stages, **kwargs: Any) -> None:
        self.stages = stages
        super().__init__(fragment, *args, **kwargs)

    def setup(self, spec: OperatorSpec) -> None:
        """Declare the ports."""
        queue(spec, "work")
        spec.output("work")

    def compute(self, op_input: Any, op_output: Any, context: Any) -> None:
        """Encode and emit."""
        del context
        op_output.emit(self.stages.encode(op_input.receive("work")), "work")
