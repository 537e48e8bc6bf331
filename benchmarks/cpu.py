"""Time what surrounds the networks, on the CPU: `python -m benchmarks.cpu --only ROW,…`."""

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch

from benchmarks.generators import latent_spec, random_cache, settings
from benchmarks.gpu import machine, write
from study import paths
from study.config import STAGES, Scaling
from study.data import shapes
from study.evaluation.distances import frechet_distance, statistics
from study.generators.train import LatentBatches


def seconds(function: Callable[[], object], repeats: int) -> dict[str, Any]:
    """Median, lowest and highest time of some calls."""
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        function()
        times.append(time.perf_counter() - began)
    return {"s": median(times), "s_lowest": min(times), "s_highest": max(times)}


def command(*arguments: str) -> Callable[[], object]:
    """A call of Python in the root of the repository."""
    return lambda: subprocess.run(
        [sys.executable, *arguments], cwd=paths.ROOT, check=True, capture_output=True
    )


def help_text(options: argparse.Namespace) -> dict[str, Any]:
    """`python -m study --help`."""
    return seconds(command("-m", "study", "--help"), options.repeats)


def stage_starts(options: argparse.Namespace) -> dict[str, Any]:
    """Imports of every stage; torch alone beside them."""
    names = ["torch", *(f"study.stages.{stage}" for stage in STAGES)]
    found = {name: seconds(command("-c", f"import {name}"), options.repeats)["s"] for name in names}
    return {"s": max(found.values()), "imports": found}


def no_op(options: argparse.Namespace) -> dict[str, Any]:
    """`dvc repro` of the selected profile, where it has nothing to do."""
    dvc = ("-m", "dvc", "repro")
    dry = subprocess.run(
        [sys.executable, *dvc, "--dry"], cwd=paths.ROOT, capture_output=True, text=True
    )
    if dry.returncode or "Running" in dry.stdout:
        return {"error": "the selected profile is not finished here"}
    return seconds(command(*dvc), options.repeats)


def draw_shapes(options: argparse.Namespace) -> dict[str, Any]:
    """Procedural images of 32 pixels."""
    count = 20 if options.tiny else 1000
    found = seconds(lambda: list(shapes.dataset(count, 4, 32, seed=0)), options.repeats)
    return found | {"per_s": count / found["s"]}


def draw_batches(options: argparse.Namespace) -> dict[str, Any]:
    """Batches of latents 32 x 32 x 4, posterior sampled, as the training loop draws them."""
    batch = 4 if options.tiny else 256
    with tempfile.TemporaryDirectory() as folder:
        cache = random_cache(Path(folder), latent_spec(32), 8 * batch)
        config, place = settings({"batch_size": batch}), torch.device("cpu")
        batches = LatentBatches(cache, Scaling.standardised, None, config, 0, place)
        numbers, steps = torch.Generator(), iter(range(10**9))
        found = seconds(lambda: batches.draw(next(steps), numbers), 4 * options.repeats)
    return found | {"per_s": batch / found["s"]}


def feature_statistics(options: argparse.Namespace) -> dict[str, Any]:
    """Mean, covariance and Fréchet distance of 10,000 features of width 2,048."""
    shape = (100, 16) if options.tiny else (10_000, 2048)
    rng = np.random.default_rng(0)
    real, fake = (rng.standard_normal(shape, dtype=np.float32) for _ in range(2))
    return seconds(lambda: frechet_distance(statistics(fake), statistics(real)), options.repeats)


ROWS = {
    "help": help_text,
    "stage_starts": stage_starts,
    "no_op": no_op,
    "shapes": draw_shapes,
    "batches": draw_batches,
    "statistics": feature_statistics,
}


def main(arguments: list[str] | None = None) -> int:
    """Time rows; 0."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.cpu", description=__doc__)
    parser.add_argument("--only", default=",".join(ROWS), help=f"of {', '.join(ROWS)}")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--tiny", action="store_true", help="small sizes: a rehearsal")
    parser.add_argument("--output", type=Path, default=Path("work/benchmarks/cpu.json"))
    options = parser.parse_args(arguments)
    for name in options.only.split(","):
        title = " ".join((ROWS[name].__doc__ or "").split())
        record = {"row": name, "label": "", "title": title, **machine(), **ROWS[name](options)}
        write(options.output, record)
        rate = f", {record['per_s']:.0f}/s" if "per_s" in record else ""
        shown = f"{record['s']:.3f} s{rate}" if "s" in record else record["error"]
        print(f"{name:14} {shown}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
