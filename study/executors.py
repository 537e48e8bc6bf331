"""Where stage instances run: processes of this machine, or jobs of a Slurm cluster by submitit.

Each runs `dvc repro -s INSTANCE`: of several plain `dvc repro` with an upstream in common, all but
one fail.
"""

import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

import psutil

from study import paths
from study.config import ConfigError
from study.parent import end_with_parent

LOST = -1
"""Exit code of a job of which the cluster knows nothing more."""


class Executor(Protocol):
    """Starts instances in numbered places, of which there are `workers`."""

    workers: int

    def place(self, slot: int) -> str:
        """What a place is called in the table."""
        ...

    def start(self, name: str, slot: int, log: Path) -> Any:
        """Begin an instance; what it prints goes to `log`."""
        ...

    def poll(self, handle: Any) -> int | None:
        """Exit code; None while it runs."""
        ...

    def stop(self, handle: Any) -> None:
        """Ask it to end; stages keep their state and end with their parent."""
        ...


def command(name: str) -> list[str]:
    """What runs one instance and nothing upstream of it."""
    return [sys.executable, "-m", "dvc", "--wait-for-lock", "repro", "-s", name]


def several(processes: int) -> dict[str, str]:
    """Environment that tells a stage of how many processes it consists."""
    return {"STUDY_PROCESSES": str(processes)} if processes > 1 else {}


class LocalProcesses:
    """Processes of this machine, each with its share of the GPUs."""

    def __init__(self, workers: int, gpus: list[str], processes: int = 1) -> None:
        """Give every worker GPUs of its own; where there are fewer, workers share them.

        Args:
            workers: instances at once.
            gpus: as `CUDA_VISIBLE_DEVICES` names them; none: the CPU.
            processes: of an instance, a GPU each.
        """
        self.workers, self.gpus, self.processes = workers, gpus, processes

    def place(self, slot: int) -> str:
        """GPU or number."""
        return f"gpu {self._gpu(slot)}" if self.gpus else f"worker {slot}"

    def _gpu(self, slot: int) -> str:
        first = slot * self.processes
        chosen = [self.gpus[(first + i) % len(self.gpus)] for i in range(self.processes)]
        return ",".join(dict.fromkeys(chosen))

    def start(self, name: str, slot: int, log: Path) -> "subprocess.Popen[bytes]":
        """A process in a session of its own, so that Ctrl-C reaches it through `stop` only."""
        with log.open("ab") as stream:
            return subprocess.Popen(
                command(name),
                cwd=paths.ROOT,
                env=os.environ | self.environment(slot),
                stdout=stream,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
                preexec_fn=end_with_parent,
            )

    def environment(self, slot: int) -> dict[str, str]:
        """What a worker's instances find set: GPUs, and their share of the cores beside these.

        Threads that wait for work keep a core busy each: 16 of every worker starve each other.
        """
        chosen = several(self.processes)
        if self.gpus:
            chosen["CUDA_VISIBLE_DEVICES"] = self._gpu(slot)
            cores = len(os.sched_getaffinity(0)) // (self.workers * self.processes)
            chosen["OMP_NUM_THREADS"] = os.environ.get("OMP_NUM_THREADS", str(max(1, cores)))
        return chosen

    def poll(self, handle: "subprocess.Popen[bytes]") -> int | None:
        """Exit code; of a dvc that failed once its stage has ended, which may be later."""
        code = handle.poll()
        return None if code and _runs(handle.pid) else code

    def stop(self, handle: "subprocess.Popen[bytes]") -> None:
        """SIGTERM to dvc; the stage below it has asked the kernel to be told of that."""
        if handle.poll() is None:
            handle.terminate()


def _runs(session: int) -> bool:
    for process in psutil.process_iter():
        # Processes end while they are looked at.
        with suppress(psutil.Error, OSError):
            if os.getsid(process.pid) == session and process.status() != psutil.STATUS_ZOMBIE:
                return True
    return False


def visible_gpus() -> list[str]:
    """GPUs of this machine that the caller may use, by the names `CUDA_VISIBLE_DEVICES` takes."""
    import torch

    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    if chosen is not None:
        return [name.strip() for name in chosen.split(",") if name.strip()]
    return [str(number) for number in range(torch.cuda.device_count())]


class ClusterJobs:
    """Jobs of a cluster, one an instance, over a file system that its nodes share."""

    def __init__(
        self,
        workers: int,
        folder: Path,
        options: dict[str, Any],
        cluster: str = "slurm",
        processes: int = 1,
    ) -> None:
        """Prepare submission.

        Args:
            workers: jobs in flight.
            folder: for the files of submitit.
            options: parameters of submitit's AutoExecutor, such as `timeout_min`,
                `slurm_partition`.
            cluster: submitit's name of it; `local` stands in for a cluster.
            processes: of an instance, a GPU each.

        Raises:
            ConfigError: submitit is not installed, there is no Slurm, or an option is unknown.
        """
        try:
            import submitit
        except ModuleNotFoundError:
            rule = "needs package submitit; install extra slurm"
            raise ConfigError(f"--executor slurm: {rule}") from None
        self.workers, self.cluster, self.processes = workers, cluster, processes
        try:
            self.executor = submitit.AutoExecutor(folder=folder, cluster=cluster)
            self.executor.update_parameters(**options)
        except (RuntimeError, NameError, TypeError, ValueError, AssertionError) as error:
            text = " ".join(str(error).split())[:300]
            raise ConfigError(f"--executor slurm, --option {options}: {text}") from None

    def place(self, slot: int) -> str:
        """All jobs are alike."""
        return self.cluster

    def start(self, name: str, slot: int, log: Path) -> Any:
        """A job, which may wait in the cluster's queue."""
        return self.executor.submit(repro, name, log, paths.ROOT, self.processes)

    def poll(self, handle: Any) -> int | None:
        """Exit code; LOST where the job has died without one."""
        if not handle.done():
            return None
        return LOST if handle.exception() is not None else int(handle.result())

    def stop(self, handle: Any) -> None:
        """Cancel it."""
        if not handle.done():
            handle.cancel()


def repro(name: str, log: Path, root: Path, processes: int) -> int:
    """Run an instance inside a job; returns the exit code."""
    with log.open("ab") as stream:
        return subprocess.run(
            command(name),
            cwd=root,
            env=os.environ | several(processes),
            stdout=stream,
            stderr=subprocess.STDOUT,
            check=False,
        ).returncode
