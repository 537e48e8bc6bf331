"""How a stage module becomes a command: arguments, errors, threads, the end of its parent."""

import errno
import fcntl
import os
import platform
import re
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, TextIO, TypeVar

from study import distributed, paths
from study.config import STAGES, Cell, ConfigError, MissingInputs, StudyError, load
from study.config.stages import StageConfig
from study.keeper import FREE_SPACE, disk_is_full, require_disk, terminate
from study.launch import FOLLOWED, launch, processes
from study.parent import end_with_parent
from study.progress import red
from study.tracking import Run

if TYPE_CHECKING:
    import torch
    from torch import nn

Config = TypeVar("Config", bound=StageConfig)
Module = TypeVar("Module", bound="nn.Module")

LEAST_FREE_GPU = 0.1
"""Share of a GPU's memory that must be free when a stage begins."""
_OTHER_ENDED = re.compile(r"(closed|reset) by peer|Broken pipe|remote process exited")
"""As gloo and NCCL say it."""
_ATTEMPTS = 3
_LOCKED = "STUDY_LOCKED"
"""Set for processes whose launcher holds the lock of their instance."""
_AFTER_LEADER_S = 3.0


def stage(
    main: Callable[[Config, Run], None], file: str, *, record: bool = True, shared: bool = False
) -> None:
    """Run a stage's `main` on the cell given on the command line; exit 2 on bad input.

    Args:
        main: builds objects from its configuration, calls the library, records results.
        file: `__file__` of the stage module; its stem is the stage's name.
        record: write the metrics file; false for a stage that measures nothing.
        shared: several processes can share the work: as many as `STUDY_PROCESSES` says, or as
            torchrun has started. Of any other stage torchrun's first process does all.
    """
    name = Path(file).stem
    die_with_parent()
    if distributed.launched() and not shared and os.environ["RANK"] != "0":
        return
    with one_line_errors(), distributed.joined() if shared else nullcontext():
        cell = Cell.parse(sys.argv[1:])
        with _only_writer(name, cell):
            require_disk(paths.ROOT)
            config = load(STAGES[name], cell)
            if shared and not distributed.launched() and (count := processes()) > 1:
                os.environ[_LOCKED] = "1"
                if code := launch(count, ["-m", f"study.stages.{name}", *sys.argv[1:]]):
                    sys.exit(code)
                return
            with Run(name, cell, config) as run:
                _work(main, config, run)  # type: ignore[arg-type]
                if record:
                    run.finish()
                run.forget()


def _work(main: Callable[[Config, Run], None], config: Config, run: Run) -> None:
    try:
        main(config, run)
    except StudyError as error:
        kept = run.last_state()
        good = f"; last good state: {paths.shown(kept)}" if kept else ""
        raise StudyError(f"{error}{good}") from None


def device() -> "torch.device":
    """The GPU where there is one, else the CPU; the same numbers whenever it is asked twice.

    Raises:
        StudyError: the GPU is asked for the first time, and others have filled it.
    """
    import torch

    if not torch.cuda.is_available():
        return torch.device("cpu")
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True)
    # Takes time, and finds only kernels that read what none has written.
    torch.utils.deterministic.fill_uninitialized_memory = False  # pyright: ignore
    first = not torch.cuda.is_initialized()
    if distributed.world() > 1:
        torch.cuda.set_device(distributed.local_rank())
    if first:
        free, total = (count / 2**30 for count in torch.cuda.mem_get_info())
        if free < LEAST_FREE_GPU * total:
            rule = f"must be at least {LEAST_FREE_GPU:.0%} of {total:.0f} GiB"
            cure = "stop what else uses the GPU: nvidia-smi"
            raise StudyError(f"free GPU memory = {free:.1f} GiB: {rule}; {cure}")
    return torch.device("cuda")


def place(module: Module) -> Module:
    """Move a convolutional network to the device, in the memory layout that is fastest there."""
    from study.acceleration import settled

    return settled(module, device())


class one_line_errors:
    """Turn errors that are not the program's into one line on stderr.

    Exit code 2: what the user gave is wrong. Exit code 1: the run could not go on.
    """

    def __enter__(self) -> None:
        """Nothing to set up."""

    def __exit__(self, kind: type | None, error: BaseException | None, trace: object) -> None:
        if isinstance(error, MissingInputs):
            *others, last = str(error).splitlines()
            for line in others:
                print(f"{red('error:')} {line}", file=sys.stderr)
            _end(last, 2)
        if isinstance(error, ConfigError | FileNotFoundError):
            _end(error, 2)
        if isinstance(error, StudyError):
            _end(error, 1)
        if isinstance(error, OSError) and error.errno in _CURES:
            place = error.filename or "a file"
            _end(f"{place}: {error.strerror}: {_CURES[error.errno]}", 1)
        short = isinstance(error, OSError) and "requested and" in str(error)
        if short or (isinstance(error, Exception) and disk_is_full(paths.ROOT)):
            # Not every library says so when it cannot write; numpy speaks of a short write.
            _end(f"{paths.ROOT}: {os.strerror(errno.ENOSPC)}: {FREE_SPACE}", 1)
        if distributed.launched() and _OTHER_ENDED.search(str(error)):
            _end("another process of this stage has ended", FOLLOWED)
        if type(error).__name__ == "OutOfMemoryError":
            text = str(error).partition(". ")[0]
            _end(f"{text}: lower batch_size (or micro_batch_size), or free the GPU: nvidia-smi", 1)
        if isinstance(error, MemoryError) or "DefaultCPUAllocator" in str(error):
            _end(f"out of memory: {error}: lower batch_size, or stop what else runs", 1)


_CURES = {
    errno.ENOSPC: FREE_SPACE,
    errno.EDQUOT: FREE_SPACE,
    errno.EACCES: "must be readable and writable by this user",
    errno.EPERM: "must be readable and writable by this user",
    errno.EROFS: "must be on a file system that can be written",
}


def _end(error: object, code: int) -> None:
    if code == FOLLOWED or (distributed.launched() and os.environ["RANK"] != "0"):
        # Most often all processes fail alike: the leader speaks, and its end ends this one. Whom
        # another's end has ended lets the launcher see that first.
        time.sleep(_AFTER_LEADER_S)
    print(f"{red('error:')} {' '.join(str(error).split())}", file=sys.stderr)
    sys.exit(code)


def die_with_parent() -> None:
    """Stop when the parent does: SIGTERM to dvc would else leave this process running."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, terminate)
    end_with_parent()


def _taken(lock: TextIO) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        time.sleep(0.1)
        return False
    return True


@contextmanager
def _only_writer(stage: str, cell: Cell) -> Iterator[None]:
    """Hold the instance's lock; another process that holds it is named.

    Raises:
        ConfigError: the instance is being run already.
    """
    if not distributed.leader() or _LOCKED in os.environ:
        yield
        return
    file = paths.lock(stage, cell.instance)
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("a+") as lock:
        # More than once: who only looks whether the instance is being run takes it for a moment.
        if not any(_taken(lock) for _ in range(_ATTEMPTS)):
            lock.seek(0)
            holder = lock.read().strip() or "another process"
            rule = "wait for it or stop it"
            raise ConfigError(f"{stage}@{cell.instance}: already run by {holder}; {rule}")
        lock.truncate(0)
        began = datetime.now(UTC).isoformat(timespec="seconds")
        lock.write(f"process {os.getpid()} on {platform.node()} since {began}\n")
        lock.flush()
        try:
            yield
        finally:
            lock.truncate(0)
