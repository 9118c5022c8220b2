"""Holoscan shells: receive from a port, call one stage, emit.

They hold no decisions, so that everything that decides is tested without Holoscan. Importing this
package prepares the process for Holoscan and must come before Holoscan's own import:

- Holoscan needs libcudart.so.13 even where no GPU is, and does not depend on the package that
  brings it. Loading the environment's own copy first makes the linker find it on any machine.
- It warns of stacks under 32 MiB and logs at a level of its own.
"""

import ctypes
import os
import resource
import sysconfig
from contextlib import suppress
from pathlib import Path

_STACK = 32 * 1024 * 1024


def _prepare() -> None:
    cudart = Path(sysconfig.get_path("purelib"), "nvidia/cu13/lib/libcudart.so.13")
    ctypes.CDLL(str(cudart), mode=ctypes.RTLD_GLOBAL)
    os.environ.setdefault("HOLOSCAN_LOG_LEVEL", "ERROR")  # what matters is said by the job log
    soft, hard = resource.getrlimit(resource.RLIMIT_STACK)
    if soft != resource.RLIM_INFINITY and soft < _STACK:
        with suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_STACK, (_STACK, hard))


_prepare()
