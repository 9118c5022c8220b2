"""DeliverOperator: the end of the graph, where results leave and jobs are settled."""

from typing import Any

from monai.deploy.core import Operator, OperatorSpec

from app.pipeline.work import Stages
from operators.ports import queue


class DeliverOperator(Operator):
    """Deliver results."""

    def __init__(self, fragment: Any, *args: Any, stages: Stages, **kwargs: Any) -> None:
        self.stages = stages
        super().__init__(fragment, *args, **kwargs)

    def setup(self, spec: OperatorSpec) -> None:
        """Declare the port."""
        queue(spec, "work")

    def compute(self, op_input: Any, op_output: Any, context: Any) -> None:
        """Deliver."""
        del op_output, context
        self.stages.deliver(op_input.receive("work"))
