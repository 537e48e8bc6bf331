"""Start a command as several processes of one machine, by torch.distributed's own launcher."""

import logging
import os
import signal
import sys
import tempfile
from collections.abc import Sequence

from study.config import ConfigError

VARIABLE = "STUDY_PROCESSES"
"""Environment variable: processes of a stage; `gpu`: one for each GPU; unset: one."""

FOLLOWED = 3
"""Exit code of a process that ends because another of its stage has."""
_ENDED = (FOLLOWED, 128 + signal.SIGTERM, -signal.SIGTERM, -signal.SIGKILL)
"""Of processes that the launcher has ended, too."""


def processes() -> int:
    """How many processes a stage shall have.

    Raises:
        ConfigError: not a number from 1, or more than there are GPUs.
    """
    given = os.environ.get(VARIABLE, "1")
    if given == "1":
        return 1
    import torch

    gpus = torch.cuda.device_count()
    if given == "gpu":
        return max(1, gpus)
    if not given.isdecimal() or int(given) < 1:
        raise ConfigError(f"{VARIABLE} = {given!r}: must be a number from 1, or gpu")
    if gpus and int(given) > gpus:
        raise ConfigError(f"{VARIABLE} = {given}: must be at most the number of GPUs, {gpus}")
    return int(given)


def launch(count: int, arguments: Sequence[str]) -> int:
    """Run Python with arguments in so many processes, and wait for them; their exit code.

    Each finds its rank in the environment, as from torchrun. One that fails ends the others, and
    so do SIGTERM and SIGINT, which are handed on; who has not ended after 30 s is killed.
    """
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    # Of a failure the process itself has told.
    logging.disable(logging.ERROR)
    threads = max(1, (os.cpu_count() or 1) // count)
    os.environ.setdefault("OMP_NUM_THREADS", str(threads))
    with tempfile.TemporaryDirectory(prefix="processes-") as folder:
        config = LaunchConfig(
            min_nodes=1,
            max_nodes=1,
            nproc_per_node=count,
            logs_specs=DefaultLogsSpecs(log_dir=folder),
            run_id=str(os.getpid()),
            rdzv_backend="c10d",
            rdzv_endpoint="localhost:0",
            local_addr="127.0.0.1",
            max_restarts=0,
        )
        try:
            elastic_launch(config, sys.executable)(*arguments)
        except ChildFailedError as error:
            # Which was first is known to the second only.
            failures = sorted(error.failures.values(), key=lambda failure: failure.timestamp)
            codes = [failure.exitcode for failure in failures]
            code = next((code for code in codes if code not in _ENDED), codes[0])
            return code if code > 0 else 128 - code
        except SignalException as error:
            return 128 + error.sigval
        finally:
            logging.disable(logging.NOTSET)
    return 0
