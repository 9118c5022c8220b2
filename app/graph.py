"""The MONAI Deploy application: the operators in the order of the stages.

The node and the batch are two compositions of it: they differ in who feeds it and when the feed
closes, not in what a study goes through.
"""

from collections.abc import Sequence

import operators  # noqa: F401  # prepares the process for Holoscan, so it comes first

# isort: split
from holoscan.schedulers import EventBasedScheduler
from monai.deploy.core import Application

from app.pipeline.work import Stages
from operators.deliver import DeliverOperator
from operators.encode import EncodeOperator
from operators.model import ModelOperator
from operators.receive import Feed, ReceiveOperator
from operators.route import RouteOperator


class Marginalia(Application):
    """Receive → route → one operator a model → encode → deliver."""

    def __init__(self, *, stages: Stages, models: Sequence[str], feed: Feed) -> None:
        self.stages = stages
        self.models = models
        self.feed = feed
        super().__init__([])

    def compose(self) -> None:
        """Connect the operators in the order of the stages."""
        receive = ReceiveOperator(self, name="receive", feed=self.feed)
        route = RouteOperator(self, name="route", stages=self.stages, models=self.models)
        encode = EncodeOperator(self, name="encode", stages=self.stages)
        deliver = DeliverOperator(self, name="deliver", stages=self.stages)
        self.add_flow(receive, route, {("work", "work")})
        for model in self.models:
            infer = ModelOperator(self, name=f"infer-{model}", stages=self.stages)
            self.add_flow(route, infer, {(model, "work")})
            self.add_flow(infer, encode, {("work", "work")})
        self.add_flow(encode, deliver, {("work", "work")})
        # One thread for each operator: a model that waits for its worker delays nobody.
        threads = len(self.models) + 4
        self.scheduler(EventBasedScheduler(self, worker_thread_number=threads, name="scheduler"))


def run(*, stages: Stages, models: Sequence[str], feed: Feed) -> None:
    """Run the graph until the feed is closed and everything offered has gone through."""
    Marginalia(stages=stages, models=models, feed=feed).run()
