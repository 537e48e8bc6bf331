"""Times one stage instance with little to do, by the stage's own function, in a root of its own.

A process of `study.estimate`, which gives it the choices of the instance and takes what it prints:
the seconds of the whole instance as predicted from a few steps or images, start-up included.
"""

import importlib
import json
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields, replace
from statistics import fmean
from typing import Any

from study import paths
from study.clock import Clock, replays, synchronise, typical
from study.command import one_line_errors
from study.config import STAGES, Cell, load, load_grid
from study.tracking import Run

BUDGET_S = 3.0
"""Time that what is timed should take, so that a rate is known to some per cent."""
LEAST_STEPS, MOST_STEPS = 8, 400
LEAST_BRANCHES = 24
"""Steps of an arm whose steps differ: as many as there are scales to draw."""
LEAST_RECORDED = 60
"""Steps of a loop whose steps are recorded and replayed."""
LOOPS = ("train_network", "pretrain_autoencoder", "finetune_autoencoder", "train_generator")
"""Stages whose work is steps."""
SHARES = {
    "reference_statistics": ("degraded_images",),
    "evaluate_autoencoder": ("num_images",),
    "cache_latents": (),
    "evaluate_generator": ("num_samples", "reconstructions", "nearest_samples", "grid_images"),
}
"""Of the others: fields that grow with the images."""


class Probe:
    """One instance, run again and again with other amounts of work.

    Args:
        stage: its stage.
        choices: what its command is given.
        began: when the process was started, by `time.time()`.
        few: distances may be of fewer images than the profile allows.
    """

    def __init__(self, stage: str, choices: dict[str, Any], began: float, few: bool = True) -> None:
        self.stage, self.cell, self.began, self.few = stage, Cell(**choices), began, few
        self.module: Any = importlib.import_module(f"study.stages.{stage}")
        self.config: Any = load(STAGES[stage], self.cell)
        self.section: Any = getattr(self.config, stage)
        self.startup = time.time() - began
        self.run: Run | None = None

    def time(self, changes: dict[str, Any], clock: Clock | None = None) -> float:
        """Seconds of the stage's function with changes of its section."""
        import torch

        synchronise()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
            torch.compiler.reset()
        config = replace(self.config, **{self.stage: replace(self.section, **changes)})
        if hasattr(config, "evaluation") and self.few:
            config = replace(config, evaluation=replace(config.evaluation, allow_few_samples=True))
        plain = getattr(self.module, "track", None)
        if clock is not None:
            self.module.track = clock.track
        began = time.monotonic()
        self.run = Run(self.stage, self.cell, config)
        shutil.rmtree(self.run.output(), ignore_errors=True)
        try:
            self.module.main(config, self.run)
        finally:
            self.module.track = plain
        self.run.finish()
        self.run.forget()
        synchronise()
        return time.monotonic() - began

    def size(self) -> int:
        """Bytes of the instance's large outputs."""
        assert self.run is not None
        return sum(f.stat().st_size for f in self.run.output().rglob("*") if f.is_file())


def steps(probe: Probe) -> dict[str, float]:
    """Seconds of a training instance: a few steps are timed inside its loop."""
    total = probe.section.steps
    turn = _turn(probe.section)
    short = min(total, 4)
    clock = Clock()
    changes = _shortened(probe, short, short // 2 if turn else 0)
    with replays() as replayed:
        probe.time(changes, clock)
    first = time.time() - probe.began
    whole = short == total and changes == _shortened(probe, total, turn)
    if whole or not clock.marks:  # An arm that trains nothing has no steps.
        return {"seconds": first, "cold": first, "bytes": probe.size()}
    rough = max(fmean(clock.times()[2:]), 1e-4)
    varied = getattr(getattr(probe.config, "arm", None), "equivariance_probability", 0) > 0
    least = LEAST_BRANCHES if varied else LEAST_STEPS
    if replayed:
        least = MOST_STEPS if varied else LEAST_RECORDED
    count = int(min(total, max(least, min(MOST_STEPS, BUDGET_S / rough)))) // 2 * 2
    half = count // 2 if turn else 0
    clock = Clock()
    with replays() as replayed:
        seconds = probe.time(_shortened(probe, count, half), clock)
    times, warm = clock.times(), 2

    def step_s(begin: int, end: int) -> float:
        return typical(times[begin:end], replayed[begin:end])

    # The last step is logged, and the first after the turn is new.
    late = step_s(min(half + 1 if turn else warm, count - 2), count - 1)
    early = step_s(min(warm, half - 1), half) if turn else late
    timed = early * half + late * (count - half)
    # What the first run would have taken, had all been imported and compiled.
    before = short // 2 if turn else 0
    again = seconds - timed + early * before + late * (short - before)
    lazy = _lazy(first, again, probe)
    once = max(0.0, seconds - timed) + probe.startup + lazy
    predicted = once + early * turn + late * (total - turn)
    predicted += monitor_seconds(probe) * max(0, getattr(probe.section, "monitor_points", 1) - 1)
    kept = len(getattr(probe.section, "checkpoints", [1]))
    cold = predicted + max(0.0, first - probe.startup - again - lazy)
    return {"seconds": predicted, "cold": cold, "bytes": probe.size() * kept}


def _lazy(first: float, later: float, probe: Probe) -> float:
    """Imports that only the first run in a process makes."""
    return max(0.0, min(first - probe.startup - later, 6.0))


def _turn(section: Any) -> int:
    """Step from which steps take longer: the discriminator acts, or codes are looked up."""
    starts = [getattr(section, "codebook_start", 0)]
    if getattr(section, "adversarial_weight", 0):
        starts.append(section.adversarial_start)
    return max((s for s in starts if 0 < s < section.steps), default=0)


def _shortened(probe: Probe, count: int, turn: int) -> dict[str, Any]:
    names = {item.name for item in fields(probe.section)}
    changes: dict[str, Any] = {"steps": count}
    if "monitor_points" in names:
        changes["monitor_points"] = 1
        for start in ("adversarial_start", "codebook_start"):
            changes[start] = turn if 0 < getattr(probe.section, start) < probe.section.steps else 0
        if probe.section.adversarial_start >= probe.section.steps:
            changes["adversarial_start"] = count
    if "checkpoints" in names:
        changes["checkpoints"] = [1.0]
    return changes


def monitor_seconds(probe: Probe) -> float:
    """Seconds of the measurements of held-out images during fine-tuning."""
    if not hasattr(probe.section, "monitor_points"):
        return 0.0
    from study.autoencoders.models import load_autoencoder
    from study.autoencoders.monitor import Views
    from study.command import device, place
    from study.data.store import PixelStore

    assert probe.run is not None
    held_out = PixelStore(paths.store(probe.cell)).images("validation")
    network = paths.network(probe.cell, "perceptual")
    views = Views.load(probe.section, network, held_out, device())
    autoencoder = place(load_autoencoder(probe.run.output()))
    if views.monitor is None:
        return 0.0
    views.monitor(autoencoder)
    synchronise()
    began = time.monotonic()
    views.monitor(autoencoder)
    synchronise()
    return time.monotonic() - began


def images(probe: Probe, total: int, least: int, most: int) -> dict[str, float]:
    """Seconds of an instance that passes over images: two amounts are timed.

    Args:
        probe: of the instance.
        total: images of the whole instance.
        least: the smaller amount.
        most: images that there are to try with.
    """
    generated = probe.stage == "evaluate_generator"
    parts = checkpoints_of(probe) if generated else 1
    tried = min(parts, 2)
    # Other sizes of a batch would be compiled anew: amounts are whole batches, of which two fit.
    name, fewer = "micro_batch_size" if generated else "batch_size", {}
    batch = getattr(probe.section, name) if getattr(probe.section, "compile", False) else 1
    if total > batch > most // 2:
        batch = most // 2
        fewer = {name: batch}
    small = min(total, -(-least // batch) * batch)
    most = max(small, most // batch * batch)

    def timed(count: int, part: int = 1) -> float:
        if generated:
            keep_checkpoints(probe, part)
        with few_images(probe, count):
            return probe.time(_fewer(probe, count, total, small) | fewer)

    timed(small, tried)
    first = time.time() - probe.began
    if small == total and tried == parts:
        return {"seconds": first, "cold": first, "bytes": probe.size()}
    again = timed(small)
    # As the first run, had it found imported and compiled what it needs.
    both = timed(small, tried) if tried > 1 else again
    large, rate, seconds = small, 0.0, again
    while large < min(total, most) and seconds - again < BUDGET_S:
        large = min(total, most, 4 * large)
        seconds = timed(large)
        rate = max(0.0, seconds - again) / (large - small)
    lazy = _lazy(first, both, probe)
    once = probe.startup + lazy + max(0.0, again - rate * small)
    predicted = once + rate * total
    if parts > 1:
        another = max(0.0, both - again)
        rate_of_another = max(0.0, timed(large, 2) - seconds - another) / max(1, large - small)
        # Beside a checkpoint's samples stand, once, those of raw weights and the reconstructions.
        per_image = min(max(rate_of_another, rate / 3), rate) if large > small else 0.0
        predicted += (parts - 1) * (another + per_image * (total - small))
    return {
        "seconds": predicted,
        "cold": predicted + max(0.0, first - probe.startup - both - lazy),
        "bytes": probe.size() * total / large,
    }


def prepare(probe: Probe, there: dict[str, int], least: int, most: int) -> dict[str, float]:
    """Seconds of writing the store; the larger of two is what the other stages are tried with.

    Args:
        probe: of the instance.
        there: images of both splits that the profile keeps.
        least: images of a split at first.
        most: then.
    """

    def written(count: int) -> tuple[float, int]:
        few = {split: min(count, whole) for split, whole in there.items()}
        seconds = probe.time({f"{split}_images": some for split, some in few.items()})
        return seconds, sum(few.values())

    before, small = written(least)
    first, total = time.time() - probe.began, sum(there.values())
    seconds, large = written(most)
    rate = max(0.0, seconds - before) / (large - small) if large > small else 0.0
    return {
        "seconds": first + rate * (total - small),
        "bytes": probe.size() * total / large,
    }


def checkpoints_of(probe: Probe) -> int:
    """Checkpoints that the profile's generators keep."""
    profile = load_grid(paths.PARAMS / "profile" / f"{probe.cell.profile}.yaml")
    return len(profile["train_generator"]["checkpoints"])


def keep_checkpoints(probe: Probe, count: int) -> None:
    """Let the generator have so many checkpoints, all of them its last."""
    from study.generators.checkpoints import load_index

    folder = paths.generator(probe.cell)
    index = load_index(folder)
    index.checkpoints = [index.checkpoints[-1]] * count
    index.save(folder)


@contextmanager
def few_images(probe: Probe, count: int) -> Iterator[None]:
    """The stage sees the first images of the store only."""
    whole = getattr(probe.module, "PixelStore", None)
    if whole is None or probe.stage not in ("cache_latents", "reference_statistics"):
        yield
        return

    class Few(whole):
        def images(self, split: str) -> Any:
            return super().images(split)[:count]

        def labels(self, split: str) -> Any:
            return super().labels(split)[:count]

    probe.module.PixelStore = Few
    try:
        yield
    finally:
        probe.module.PixelStore = whole


def _fewer(probe: Probe, count: int, total: int, least: int) -> dict[str, Any]:
    """The section's fields that grow with images, in proportion.

    Where a distance of few images is refused, those that it is measured of grow from `least` on.
    """
    changes: dict[str, Any] = {}
    for name in SHARES[probe.stage]:
        whole = getattr(probe.section, name)
        first = whole * least // total if probe.few else min(whole, least)
        more = (whole - first) * (count - least) // max(1, total - least)
        changes[name] = max(2, first + more)
    if probe.stage == "evaluate_autoencoder":
        wanted = probe.section.intrinsic_dimension_images
        counts = {max(10, n * count // total) for n in wanted}
        changes["intrinsic_dimension_images"] = sorted(n for n in counts if n <= count)
    if probe.stage == "evaluate_generator":
        for name in ("nearest_samples", "grid_images"):
            changes[name] = max(1, min(changes[name], changes["num_samples"]))
    return changes


def main() -> None:
    """Probe what stands on the command line as JSON; the last line printed is the result."""
    task = json.loads(sys.argv[1])
    with one_line_errors():
        probe = Probe(task["stage"], task["choices"], task["began"], task["few"])
        if probe.stage in LOOPS:
            result = steps(probe)
        elif probe.stage == "prepare_data":
            result = prepare(probe, task["there"], task["least"], task["most"])
        else:
            result = images(probe, task["total"], task["least"], task["most"])
    print(json.dumps(result | {"startup": probe.startup}))


if __name__ == "__main__":
    main()
