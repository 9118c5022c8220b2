"""Die or hang on purpose at a named place, once, so that tests can prove what becomes of it.

MARGINALIA_CRASH_AT is `name:/path/of/marker`. The first process to reach that name while the
marker file exists takes the marker away and is ended by SIGKILL, as a power cut would end it;
everyone after it, the restarted process included, passes. MARGINALIA_HANG_AT does the same with
SIGSTOP: the process stays and does nothing. Unset, as in every real installation, nothing happens.
"""

import os
import signal
from pathlib import Path

VARIABLE = "MARGINALIA_CRASH_AT"
HANG_VARIABLE = "MARGINALIA_HANG_AT"


def crash_point(name: str) -> None:
    """End or stop this process here if a test asked for it and nobody has met it here yet."""
    for variable, fate in ((VARIABLE, signal.SIGKILL), (HANG_VARIABLE, signal.SIGSTOP)):
        wanted, _, marker = os.environ.get(variable, "").partition(":")
        if wanted != name or not marker:
            continue
        try:
            Path(marker).unlink()  # atomic: of several processes one finds it
        except FileNotFoundError:
            continue
        os.kill(os.getpid(), fate)
