"""Time the study's loops on one and on several devices: `python -m benchmarks.scale --output FILE`.

Weak scaling: every process has the batch that one alone has; strong: all share it. Starts its own
processes, one round for each number of them. `--tiny` rehearses on a CPU.
"""

import argparse
import gc
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks import generators
from benchmarks.autoencoders import SIDE, sd_vae
from benchmarks.gpu import machine
from benchmarks.timing import Clock
from study import distributed
from study.command import device, die_with_parent
from study.config import Precision, SamplerConfig, load_group
from study.generators.objectives import build_objective
from study.generators.sample import prepare, sample_batches
from study.latents import write_cache
from study.launch import launch

AIMS = {"dit_xl2": 1.9, "sit_b2": 1.9, "sample_xl2": 1.95, "cache": 1.95}
"""Images/s of two devices over those of one, weak scaling."""
BATCH = {"dit_xl2": 256, "sit_b2": 256, "sample_xl2": 128, "cache": 64}
"""Images of one process at once."""
MICRO = {"XL_2": 128}
"""Images of one process in one pass, so that the step fits into 80 GB."""
CALLS = 8
"""Network calls of a timed sample."""


def training(clock: Clock, batch: int, tiny: bool, name: str, size: str) -> dict[str, object]:
    """Rate of a generator's training loop, data and gradients' exchange included."""
    world = distributed.world()
    changes: dict[str, Any] = {"compile": not tiny}
    if batch > MICRO.get(size, batch):
        changes["micro_batch_size"] = MICRO[size] * world
    return generators.train(clock, name, size, batch * world, tiny=tiny, changes=changes)


def sampling(clock: Clock, batch: int, tiny: bool) -> dict[str, object]:
    """Rate of XL/2 samples of a few network calls each, dealt to the processes."""
    spec, world = generators.latent_spec(4 if tiny else 32), distributed.world()
    objective = generators.awake(build_objective(generators.generator_group("sit")), clock.device)
    network = objective.build(generators.backbone("XL_2", tiny), spec).eval().requires_grad_(False)
    prepare(network, Precision.bf16, compiled=not tiny)
    batches = sample_batches(
        network,
        objective,
        spec,
        np.arange(10**4 * batch) % generators.CLASSES,
        load_group(SamplerConfig, "sampler", "euler_maruyama"),
        CALLS,
        batch,
        0,
        clock.device,
        distributed.rank(),
        world,
        precision=Precision.bf16,
    )
    for _ in zip(clock.loop(range(10**9)), batches, strict=False):
        pass
    return clock.result(batch * world) | {"calls": CALLS}


def caching(clock: Clock, batch: int, tiny: bool) -> dict[str, object]:
    """Rate of the latent cache, encoding and writing: from the first shard's end to the last's.

    Images are encoded unflipped and flipped, so twice as many pass the encoder.
    """
    world, side = distributed.world(), 32 if tiny else SIDE
    autoencoder = sd_vae(clock.device, tiny)
    autoencoder.prepare(Precision.bf16, compiled=not tiny)
    shard = batch * (1 if tiny else 8)
    turns = clock.warm_up + clock.repeats + 1
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (shard, 3, side, side), dtype=np.uint8)
    many = np.broadcast_to(images, (turns * world, *images.shape))
    folder = distributed.told(tempfile.mkdtemp())
    marks: list[float] = []

    def track(numbers: range) -> Any:
        for number in numbers:
            distributed.wait()
            marks.append(time.monotonic())
            yield number
        distributed.wait()
        marks.append(time.monotonic())

    flat: Any = _Repeated(many, shard)
    labels = np.zeros(len(flat), np.int64)
    write_cache(
        Path(folder),
        autoencoder,
        flat,
        labels,
        10,
        1.0,
        batch,
        shard,
        track,  # type: ignore
    )
    if distributed.leader():
        shutil.rmtree(folder)
    times = np.diff(marks)[clock.warm_up :]
    typical = float(np.median(times))
    return {
        "images_per_s": shard * world / typical,
        "ms": typical * 1e3,
        "ms_lowest": float(times.min()) * 1e3,
        "ms_highest": float(times.max()) * 1e3,
        "repeats": len(times),
    }


class _Repeated:
    """The same images as often as it takes, for the cache to read."""

    def __init__(self, images: np.ndarray, shard: int) -> None:
        self.images, self.shard = images, shard
        self.shape = (len(images) * shard, *images.shape[2:])

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice) -> np.ndarray:
        return self.images[rows.start // self.shard]


TIMED: dict[str, Callable[[Clock, int, bool], dict[str, object]]] = {
    "sit_b2": partial(training, name="sit", size="B_2"),
    "dit_xl2": partial(training, name="dit", size="XL_2"),
    "sample_xl2": sampling,
    "cache": caching,
}


def member(options: argparse.Namespace) -> None:
    """Time all rows as one of the processes; the leader adds them to the output."""
    die_with_parent()
    with distributed.joined():
        place, world = device(), distributed.world()
        for scaling in ("weak", "strong"):
            for name in options.only.split(","):
                if distributed.agreed(time.time() > options.until):
                    return
                batch = 4 if options.tiny else BATCH[name]
                if scaling == "strong":
                    if world == 1 or name in ("sample_xl2", "cache"):
                        continue
                    batch = batch // world
                record = {"row": name, "scaling": scaling, "processes": world, "batch": batch}
                clock = Clock(
                    device=place, warm_up=options.warm_up, repeats=options.repeats, seconds=1e6
                )
                try:
                    record |= TIMED[name](clock, batch, options.tiny)
                except torch.OutOfMemoryError as error:
                    record["error"] = str(error).partition(". ")[0]
                gc.collect()
                torch.cuda.empty_cache()
                if distributed.leader():
                    _add(options.output, record)


def main(arguments: list[str] | None = None) -> int:
    """Time every row with each number of processes; 1 if one is missing."""
    given = sys.argv[1:] if arguments is None else arguments
    options = _options(given)
    if options.member:
        member(options)
        return 0
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.unlink(missing_ok=True)
    until, failed = time.time() + options.seconds, 0
    own = ["-m", "benchmarks.scale", "--member", *given, "--until", str(until)]
    for count in map(int, options.processes.split(",")):
        failed |= launch(count, own)
    records = _read(options.output)
    summary = [*_summary(records)]
    content = {"machine": machine(), "records": records, "summary": summary}
    options.output.write_text(json.dumps(content, indent=1) + "\n")
    for row in summary:
        print(
            f"{row['row']:12} {row['scaling']:7} {row['processes']} processes "
            f"{row['images_per_s']:10.2f} images/s {row['speed_up']:5.3f} of one"
        )
    rows = {(r["row"], r["processes"]) for r in records if "images_per_s" in r}
    wanted = len(options.only.split(",")) * len(options.processes.split(","))
    return int(bool(failed) or len(rows) < wanted)


def _summary(records: list[dict[str, Any]]) -> Any:
    good = [record for record in records if "images_per_s" in record]
    alone = {r["row"]: r["images_per_s"] for r in good if r["processes"] == 1}
    for record in good:
        if record["processes"] > 1 and record["row"] in alone:
            speed_up = record["images_per_s"] / alone[record["row"]]
            kept = {key: record[key] for key in ("row", "scaling", "processes", "images_per_s")}
            aim = AIMS[record["row"]] if record["scaling"] == "weak" else None
            share = speed_up / record["processes"]
            yield kept | {"speed_up": speed_up, "efficiency": share, "aim_for_two": aim}


def _read(file: Path) -> list[dict[str, Any]]:
    return json.loads(file.read_text()) if file.is_file() else []


def _add(file: Path, record: dict[str, Any]) -> None:
    partial_file = file.with_suffix(".partial")
    partial_file.write_text(json.dumps([*_read(file), record], indent=1) + "\n")
    partial_file.replace(file)
    print(json.dumps({k: v for k, v in record.items() if k != "settings"}), flush=True)


def _options(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scale", description=__doc__)
    parser.add_argument("--only", default=",".join(TIMED), help=f"of {', '.join(TIMED)}")
    parser.add_argument("--processes", default="1,2", help="numbers of processes, one first")
    parser.add_argument("--output", type=Path, default=Path("work/benchmarks/scale.json"))
    parser.add_argument("--warm-up", type=int, default=6)
    parser.add_argument("--repeats", type=int, default=14)
    parser.add_argument("--seconds", type=float, default=240, help="no row begins after")
    parser.add_argument("--tiny", action="store_true", help="small networks: a rehearsal")
    parser.add_argument("--member", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--until", type=float, default=0.0, help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
