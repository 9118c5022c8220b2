"""RouteOperator: from a study to its jobs, from a job to the port of its model."""

from collections.abc import Sequence
from typing import Any

from monai.deploy.core import Operator, OperatorSpec

from app.pipeline.work import Stages
from operators.ports import queue, send


class RouteOperator(Operator):
    """Route studies and jobs."""

    def __init__(
        self, fragment: Any, *args: Any, stages: Stages, models: Sequence[str], **kwargs: Any
    ) -> None:
        self.stages = stages
        self.models = models
        super().__init__(fragment, *args, **kwargs)

    def setup(self, spec: OperatorSpec) -> None:
        """Declare the ports, one output a model."""
        queue(spec, "work")
        for model in self.models:
            spec.output(model)

    def compute(self, op_input: Any, op_output: Any, context: Any) -> None:
        """Route and emit by the model's port."""
        del context
        send(op_output, self.stages.route(op_input.receive("work")))
