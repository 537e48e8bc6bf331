"""One training loop for all generators.

All random numbers of a step derive from (seed, step), so that arms and generators with the same
seed see the same images, flips, times, noise and label dropout.
"""

import copy
import math
from collections.abc import Callable, Iterable
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from study import distributed
from study.config import BackboneConfig, Scaling, StudyError, TrainGeneratorConfig
from study.config.seeds import derive
from study.data.store import to_float
from study.generators.checkpoints import Checkpoint, GeneratorIndex, save_weights
from study.generators.common import Batch, GeneratorObjective
from study.generators.sharded import local, restore, shard, wanted, whole
from study.generators.step import Step, compiled_parts
from study.keeper import GENERATIONS, Keeper, check_weights, require_disk
from study.latents import LatentCache

Log = Callable[[int, dict[str, float]], None]


class LatentBatches:
    """Batches of a cache: every image once per epoch, flips and posterior samples drawn anew.

    Of several processes each has its rows of the batch that one alone would have.
    """

    def __init__(
        self,
        cache: LatentCache,
        scaling: Scaling,
        images: np.ndarray | None,
        config: TrainGeneratorConfig,
        seed: int,
        device: torch.device,
    ) -> None:
        self.cache, self.images, self.seed, self.device = cache, images, seed, device
        self.size, self.label_dropout = config.batch_size, config.label_dropout
        self.rows = distributed.rows(config.batch_size, config.micro_batch_size)
        if not cache.spec.discrete:
            self.offset, self.divisor = (v.to(device) for v in cache.spec.affine(scaling))

    def draw(self, step: int, numbers: torch.Generator) -> Batch:
        """The batch of a step.

        Args:
            step: from 0.
            numbers: this step's generator on the device.
        """
        rng = np.random.default_rng(derive(self.seed, "generator", "batch", step))
        first = step * self.size
        indices = self._indices(np.arange(first, first + self.size))[self.rows]
        flips = rng.random(self.size)[self.rows] < 0.5
        labels = self.cache.labels[indices]
        dropped = torch.from_numpy(rng.random(self.size)[self.rows] < self.label_dropout)
        labels = self._placed(labels.masked_fill(dropped, self.cache.spec.num_classes))
        images = None
        if self.images is not None:
            images = to_float(self._placed(torch.from_numpy(self.images[indices])))
            flipped = self._placed(torch.from_numpy(flips)).view(-1, 1, 1, 1)
            images = torch.where(flipped, images.flip(-1), images)
        if self.cache.spec.discrete:
            tokens = self._placed(self.cache.tokens(indices, flips).flatten(1))
            return Batch(latents=None, tokens=tokens, labels=labels, images=images)
        latents, logvar = self.cache.moments(indices, flips, self._placed)
        shape = (self.size, *latents.shape[1:])
        noise = torch.randn(shape, generator=numbers, device=self.device)
        if distributed.world() > 1:
            noise = noise[self._placed(torch.from_numpy(self.rows))]
        if logvar is not None:
            latents = latents + (0.5 * logvar).exp() * noise
        latents = (latents - self.offset) / self.divisor
        return Batch(latents=latents, tokens=None, labels=labels, images=images)

    def _placed(self, values: Tensor) -> Tensor:
        """On the device; from pinned memory, so that the host does not wait for a GPU."""
        if self.device.type != "cuda":
            return values.to(self.device)
        return values.pin_memory().to(self.device, non_blocking=True)

    def _indices(self, positions: np.ndarray) -> np.ndarray:
        epochs, offsets = np.divmod(positions, len(self.cache))
        orders = ((_order(len(self.cache), int(e), self.seed), e) for e in np.unique(epochs))
        return np.concatenate([order[offsets[epochs == epoch]] for order, epoch in orders])


@lru_cache(maxsize=2)
def _order(count: int, epoch: int, seed: int) -> np.ndarray:
    return np.random.default_rng(derive(seed, "generator", "order", epoch)).permutation(count)


class MovingAverage:
    """EMA of weights whose half-life grows with training.

    half-life = min(published, ramp x images seen): the papers' 0.9999 would mostly hold the initial
    weights in short runs.
    """

    def __init__(self, network: nn.Module, config: TrainGeneratorConfig) -> None:
        self.network = copy.deepcopy(network).eval().requires_grad_(False)
        self.half_life, self.ramp = config.ema_half_life_images, config.ema_ramp
        self.trained = network

    @torch.no_grad()
    def update(self, batch_size: int, images_seen: int) -> None:
        """Move towards the current weights after a step of `batch_size` images."""
        half_life = min(self.half_life, self.ramp * images_seen)
        decay = 0.5 ** (batch_size / half_life)
        ours, theirs = (list(map(local, n.parameters())) for n in (self.network, self.trained))
        torch._foreach_lerp_(ours, theirs, 1 - decay)  # pyright: ignore[reportPrivateImportUsage]


def checkpoint_steps(config: TrainGeneratorConfig) -> list[int]:
    """Steps after which weights are kept."""
    return sorted({max(1, round(share * config.steps)) for share in config.checkpoints})


def train_generator(
    folder: Path,
    objective: GeneratorObjective,
    cache: LatentCache,
    images: np.ndarray | None,
    backbone: BackboneConfig,
    config: TrainGeneratorConfig,
    scaling: Scaling,
    seed: int,
    device: torch.device,
    log: Log,
    steps: Callable[[range], Iterable[int]] = iter,
    keeper: Keeper | None = None,
) -> GeneratorIndex:
    """Train a generator on cached latents and keep its weights at the listed steps.

    Several processes share every batch; all call it alike, and the leader writes.

    Args:
        folder: where checkpoints and index go.
        objective: loss terms and network.
        cache: latents or tokens with labels.
        images: pixel store, uint8 N 3 H W, for objectives that need images.
        backbone: size of the transformer.
        config: optimisation.
        scaling: how latents are scaled.
        seed: initial weights, data order and all noise.
        device: where to train.
        log: called with step and mean values since the last call.
        steps: wraps the step range for progress.
        keeper: keeps the state on the way, and has that of an earlier start; None: nothing is kept.

    Raises:
        ConfigError: the batch cannot be shared evenly.
        StudyError: a loss term, the gradient or a weight is not finite.
    """
    _require_shares(config)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive(seed, "generator", "weights"))
        network = objective.build(backbone, cache.spec).to(device)
    average, size = MovingAverage(network, config), _bytes(network)
    if wanted():
        for each in (network, average.network):
            shard(each, compiled_parts(each))
    update = Step(network, objective, config, device)
    batches = LatentBatches(
        cache, scaling, images if objective.needs_images else None, config, seed, device
    )
    keeper = keeper or Keeper()
    place = keeper.place(folder)
    kept, saved = checkpoint_steps(config), []
    first, interval, meter, since = 0, max(1, config.steps // 100), {}, 0
    parts = {"network": network, "average": average.network, "optimiser": update.optimiser}
    if state := keeper.restore():
        for name, part in parts.items():
            restore(part, state[name])
        first, since = state["step"], state["since"]
        meter = {name: total.to(device) for name, total in state["meter"].items()}
        saved = [Checkpoint(**row) for row in state["saved"]]
    else:
        files = len(kept) * (1 + config.raw_weights)
        # Weights, their average and two moments in every state.
        require_disk(place, size * (files + 4 * (GENERATIONS + 1)))
    numbers = torch.Generator(device)
    for step in steps(range(first, config.steps)):
        if keeper.due:
            _means(step, meter, since)
            check_weights(network, step)
            progress = {"step": step, "meter": meter, "since": since}
            rows = {"saved": [asdict(checkpoint) for checkpoint in saved]}
            states = {name: whole(part.state_dict()) for name, part in parts.items()}
            keeper.save({**states, **progress, **rows})
        # learning rate
        rate = config.learning_rate * min(1.0, (step + 1) / max(1, config.warmup_steps))
        # batch
        numbers.manual_seed(derive(seed, "generator", "noise", step))
        batch = batches.draw(step, numbers)
        # loss terms, backward, clip, step
        values = update(batch, numbers, rate)
        # EMA
        images_seen = (step + 1) * config.batch_size
        average.update(config.batch_size, images_seen)
        # log
        meter = {name: meter.get(name, 0) + value for name, value in values.items()}
        since += 1
        if since == interval or step + 1 in kept:
            log(step + 1, {**_means(step + 1, meter, since), "learning_rate": rate})
            meter, since = {}, 0
        # checkpoint
        if step + 1 in kept:
            file = f"checkpoint-{step + 1:08d}.safetensors"
            raw = file.replace("checkpoint", "raw") if config.raw_weights else None
            for name, source in ((file, average.network), (raw, network)):
                weights = whole(source.state_dict()) if name else {}
                if name and distributed.leader():
                    save_weights(place / name, weights)
            saved.append(
                Checkpoint(step=step + 1, images_seen=images_seen, file=file, raw_file=raw)
            )
    names = [name for point in saved for name in (point.file, point.raw_file) if name]
    keeper.deliver(names, folder)
    index = GeneratorIndex(
        backbone=backbone,
        spec=cache.spec,
        scaling=scaling,
        features=getattr(objective, "features", 0),
        target=getattr(objective, "target_name", ""),
        checkpoints=saved,
    )
    if distributed.leader():
        index.save(folder)
    distributed.wait()
    return index


def _require_shares(config: TrainGeneratorConfig) -> None:
    for field in ("batch_size", "micro_batch_size"):
        distributed.require_share(getattr(config, field), f"train_generator.{field}")


def _bytes(network: nn.Module) -> int:
    return sum(parameter.nbytes for parameter in network.parameters())


def _means(step: int, sums: dict[str, Tensor], count: int) -> dict[str, float]:
    distributed.average(list(sums.values()))
    means = {name: float(total) / count for name, total in sums.items()}
    for name, value in means.items():
        if not math.isfinite(value):
            raise StudyError(f"step {step}: {name} = {value}: must be finite")
    return means
