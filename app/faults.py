"""Die on purpose at a named place, once, so that tests can prove what a restart makes of it.

MARGINALIA_CRASH_AT is `name:/path/of/marker`. The first process to reach that name while the
marker file exists takes the marker away and is ended by SIGKILL, as a power cut would end it;
everyone after it, the restarted process included, passes. Unset, as in every real installation,
nothing happens.
"""

import os
import signal
from pathlib import Path

VARIABLE = "MARGINALIA_CRASH_AT"


def crash_point(name: str) -> None:
    """End this process here if a test asked for it and nobody has died here yet."""
    wanted, _, marker = os.environ.get(VARIABLE, "").partition(":")
    if wanted != name or not marker:
        return
    try:
        Path(marker).unlink()  # atomic: of several processes one finds it
    except FileNotFoundError:
        return
    os.kill(os.getpid(), signal.SIGKILL)
