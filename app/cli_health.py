"""The command `health`: what the running node says of itself, in words and as an exit status."""

import argparse
import http.client
import json
from typing import Any

from app.command import answer
from app.config import Config
from app.config_web import Web
from app.errors import NODE_WRONG, ConfigError, NodeError
from app.files import READY, read_json

HEALTHY, DEGRADED = 0, 1
STATUS = {"ready": HEALTHY, "degraded": DEGRADED, "not ready": NODE_WRONG}
EVERYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104  # an address to ask, not to bind
WAIT_S = 5.0


def add_command(add: Any) -> None:
    """Add it to the parser of all commands."""
    add("health", _health, "ask the running node how it is", asks=True, wrong=NODE_WRONG)


def _health(args: argparse.Namespace, config: Config) -> int:
    if config.web is None:
        raise ConfigError("app.yaml has no `node.web`, so the node serves no health; add it")
    told = _ask(config.web, config)
    parts = [
        f"{name}: {part['state']} since {part['since']}, {part['says']}"
        for name, part in told["parts"].items()
    ]
    answer(args, told, "\n".join([told["status"], *parts]))
    return STATUS[told["status"]]


def _ask(web: Web, config: Config) -> Any:
    """Return what the node answers at the port that it noted when it was ready."""
    try:
        port = read_json(config.data / READY)["web_port"]
        host = EVERYWHERE.get(web.host, web.host)
        connection = http.client.HTTPConnection(host, port, timeout=WAIT_S)
        connection.request("GET", "/readyz")
        told = json.loads(connection.getresponse().read())
        connection.close()
    except FileNotFoundError as error:
        raise NodeError(
            f"no node is ready in {config.data}; start it, or look at its log"
        ) from error
    except (OSError, ValueError, KeyError, http.client.HTTPException) as error:
        raise NodeError(
            f"the node of {config.data} does not answer at its web port ({type(error).__name__});"
            " look at its log, or start it again"
        ) from error
    return told
