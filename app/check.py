"""What can be said of app.yaml before any study comes: what is surely wrong, what looks wrong."""

from collections.abc import Iterator, Mapping

from app.config import Config
from app.errors import NodeError
from app.installed import Installed
from app.pipeline.overlaps import never_met, overlapping
from app.store.store import Store

_MODES = {"off": "is off, so it takes no study", "shadow": "is in shadow mode, so nothing is sent"}


def warnings(config: Config, models: Mapping[str, Installed]) -> Iterator[str]:
    """Yield what a person should look at; the node starts all the same."""
    for route in config.routes:
        yield from never_met(route)
        if route.mode in _MODES:
            yield f"routes.{route.name}: {_MODES[route.mode]}"
    yield from overlapping(config.routes)
    used = {route.model for route in config.routes}
    yield from (f"models.{name}: no route names it" for name in models if name not in used)
    named = {each.archive for route in config.routes for each in route.deliver_to}
    named |= {source.archive for source in config.sources} | config.counted
    yield from (
        f"archives.{name}: neither a route nor a source names it"
        for name in config.archives
        if name not in named
    )
    yield from _untested(config, models)


def _untested(config: Config, models: Mapping[str, Installed]) -> Iterator[str]:
    """Yield the models, by their exact weights, that never came to an end on this node."""
    try:
        tested = _finished(config)
    except NodeError as error:
        yield f"which models were tested here is not known: {error}"
        return
    for name, each in models.items():
        if each.card.identity not in tested:
            yield (
                f"models.{name}: untested, no job of {each.card.identity} has finished in this"
                " node's log"
            )


def _finished(config: Config) -> frozenset[str]:
    path = config.data / "node.db"
    if not path.exists():
        return frozenset()
    store = Store.open(path, migrate=False)
    try:
        return store.finished_models()
    finally:
        store.close()
