"""A process that ends with the one that started it; on Linux only."""

import ctypes
import os
import select
import signal
import sys
from contextlib import suppress
from pathlib import Path
from threading import Thread

_PR_SET_PDEATHSIG = 1


def end_with_parent() -> None:
    """Have the kernel send SIGTERM when the parent ends, however that ends."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def end_with_dvc() -> None:
    """Be sent SIGTERM when the dvc that started this process ends, however that ends.

    dvc starts commands by a shell. bash becomes the command; dash, which it is where `SHELL` is not
    set, stays between the two and outlives dvc, so that its parent must be watched as well.
    """
    if sys.platform != "linux":
        return
    end_with_parent()
    parent = os.getppid()
    shell, *arguments = _command(parent)
    if shell.endswith(b"sh") and b"-c" in arguments:
        parent = int(Path(f"/proc/{parent}/stat").read_bytes().rpartition(b")")[2].split()[1])
        Thread(target=_follow, args=(parent,), daemon=True).start()
    # An orphan's parent is 1; in a container dvc itself can be.
    if parent == 1 and not any(b"dvc" in word for word in _command(1)):
        os.kill(os.getpid(), signal.SIGTERM)


def _command(process: int) -> list[bytes]:
    file = Path(f"/proc/{process}/cmdline")
    return file.read_bytes().split(b"\0") if file.exists() else [b""]


def _follow(process: int) -> None:
    with suppress(ProcessLookupError):
        select.select([os.pidfd_open(process)], [], [])
    os.kill(os.getpid(), signal.SIGTERM)
