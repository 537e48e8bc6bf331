"""State of an unfinished stage: kept on the way, found again if the stage is started anew.

It lies in `work/<stage>/<instance>/<fingerprint>/`, outside what DVC deletes before a run. The
fingerprint covers parameters, inputs and code, so that a changed stage starts afresh.
"""

import errno
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from study import distributed
from study.config.checks import StudyError

if TYPE_CHECKING:
    from torch import nn

State = dict[str, Any]
"""Tensors, numbers, strings, and lists and dictionaries of them: what `weights_only` reads."""

GENERATIONS = 2
_SHARE = 20
"""Between two saves passes at least this many times what a save takes."""
_FULL_BYTES = 1 << 20
LEAST_FREE_BYTES = 1e9
"""Free disk space below which no stage begins, beside what it will write."""
FREE_SPACE = "free some space (dvc gc --workspace removes old results), then start again"
_GRACE_S = 10
"""Time for a loop to keep its state after SIGTERM, before the process ends in any case."""

_REPEATED_S = 1.0
"""Within which signals are one: the kernel tells of a parent's death for each of its threads."""
_stop = False
_asked = float("-inf")
_kept = 0


class Keeper:
    """Keeps and finds a stage's state; a context in which SIGTERM waits for the next `save`.

    Of several processes all call it, the leader writes, and all read.

    Args:
        folder: where; None: nothing is kept.
        every_s: seconds between two saves, more where a save takes long; 0: save whenever asked.
        extra: joined to every state under `run`, and handed to `resume` when one is found.
        resume: takes back what `extra` gave.
    """

    def __init__(
        self,
        folder: Path | None = None,
        every_s: float = 60.0,
        extra: Callable[[], State] = dict,
        resume: Callable[[State], None] = lambda state: None,
    ) -> None:
        self.folder, self.wait = folder, every_s
        self.extra, self.resume = extra, resume
        self.last = time.monotonic()

    def __enter__(self) -> "Keeper":
        """Let SIGTERM wait."""
        global _kept
        _kept += self.folder is not None
        return self

    def __exit__(self, *error: object) -> None:
        """SIGTERM ends the process at once again."""
        global _kept
        _kept -= self.folder is not None

    def restore(self) -> State | None:
        """The newest state that can be read, or None; a damaged one is named and passed over."""
        import torch

        found, state = None, None
        for file in reversed(self._files()) if distributed.leader() else ():
            try:
                state = torch.load(file, map_location="cpu", weights_only=True)
                self.resume(state.pop("run"))
            except Exception as error:
                # Whatever a half-written or foreign file makes the reader raise.
                text = " ".join(str(error).split())[:120]
                print(f"warning: {file}: cannot be read ({text}); passed over", file=sys.stderr)
                state = None
                continue
            print(f"resumed from {file}", file=sys.stderr)
            found = file
            break
        found = distributed.told(found)
        if found is not None and not distributed.leader():
            state = torch.load(found, map_location="cpu", weights_only=True)
            self.resume(state.pop("run"))
        return state

    @property
    def due(self) -> bool:
        """Whether it is time to save: the interval has passed, or a process shall end."""
        if self.folder is None:
            return False
        late = distributed.leader() and time.monotonic() - self.last >= self.wait
        return distributed.agreed(_stop or late)

    def save(self, state: State) -> None:
        """Keep a state; ends the process afterwards if that was asked for."""
        if self.folder is None:
            return
        if distributed.leader():
            self._write(state)
        if distributed.agreed(_stop):
            sys.exit(128 + signal.SIGTERM)

    def _write(self, state: State) -> None:
        import torch

        assert self.folder is not None
        began = time.monotonic()
        self.folder.mkdir(parents=True, exist_ok=True)
        files = self._files()
        number = int(files[-1].stem.partition("-")[2]) + 1 if files else 0
        with complete(self.folder / f"state-{number:08d}.pt") as partial:
            torch.save({**state, "run": self.extra()}, partial)
        for old in self._files()[:-GENERATIONS]:
            old.unlink()
        self.last = time.monotonic()
        if self.wait:
            self.wait = max(self.wait, _SHARE * (self.last - began))

    def last_state(self) -> Path | None:
        """File of the newest state."""
        return next(iter(reversed(self._files())), None)

    def place(self, folder: Path) -> Path:
        """Where to write what is whole before the stage is; `folder` if nothing is kept."""
        place = self.folder / "files" if self.folder else folder
        place.mkdir(parents=True, exist_ok=True)
        return place

    def deliver(self, names: Iterable[str], folder: Path) -> None:
        """Link (or copy) files of `place` to where they belong; here they stay until `clear`."""
        place = self.place(folder)
        if place == folder or not distributed.leader():
            return
        folder.mkdir(parents=True, exist_ok=True)
        for name in names:
            (folder / name).unlink(missing_ok=True)
            try:
                os.link(place / name, folder / name)
            except OSError:
                shutil.copyfile(place / name, folder / name)

    def clear(self) -> None:
        """Forget every state of the instance, also those of other fingerprints."""
        if self.folder is not None and distributed.leader():
            shutil.rmtree(self.folder.parent, ignore_errors=True)

    def _files(self) -> list[Path]:
        return sorted(self.folder.glob("state-*.pt")) if self.folder else []


@contextmanager
def complete(file: Path) -> Iterator[Path]:
    """Another name to write to; what was written has reached the disk when it becomes `file`."""
    partial = file.with_name(f"{file.name}.partial")
    # Not every library says why it cannot write: a folder that may not be written is told here.
    partial.touch()
    try:
        yield partial
        with partial.open("rb+") as stream:
            os.fsync(stream.fileno())
        partial.replace(file)
    except Exception as error:
        if disk_is_full(file.parent):
            # torch and numpy only say that less was written than they wanted.
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(file)) from error
        raise
    finally:
        partial.unlink(missing_ok=True)


def require_disk(folder: Path, needed: float = 0.0) -> None:
    """Refuse to begin what will not fit on the folder's disk.

    Args:
        folder: where it will be written.
        needed: bytes of it, state kept on the way included.

    Raises:
        StudyError: less is free.
    """
    free, least = shutil.disk_usage(folder).free, LEAST_FREE_BYTES + needed
    if free < least:
        rule = f"must be at least {least / 1e9:.1f} GB"
        raise StudyError(f"free disk space = {free / 1e9:.1f} GB: {rule}: {FREE_SPACE}")


def disk_is_full(folder: Path) -> bool:
    """Whether there is no room for one more file."""
    return shutil.disk_usage(folder).free < _FULL_BYTES


def check_weights(network: "nn.Module", step: int) -> None:
    """Refuse to keep weights from which nothing could go on.

    Raises:
        StudyError: a weight is not finite.
    """
    for name, weight in network.named_parameters():
        own = weight.to_local() if hasattr(weight, "to_local") else weight  # pyright: ignore[reportAttributeAccessIssue]
        if not bool(own.isfinite().all()):
            raise StudyError(f"step {step}: weight {name}: must be finite")


def terminate(number: int, frame: FrameType | None) -> None:
    """Handler of SIGTERM and SIGINT: end at once or, where a state is kept, after the next save."""
    global _stop, _asked
    now = time.monotonic()
    if now - _asked < _REPEATED_S:
        return
    _asked = now
    if not _kept or _stop:
        sys.exit(128 + number)
    _stop = True
    signal.signal(signal.SIGALRM, terminate)
    signal.alarm(_GRACE_S)
