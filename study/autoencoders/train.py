"""One loop for pre-training and fine-tuning autoencoders; equivariance on or off is the arm."""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor, nn

from study import distributed
from study.acceleration import plain_code
from study.autoencoders.critic import Critic
from study.autoencoders.models import Autoencoder
from study.autoencoders.monitor import Views
from study.autoencoders.objective import Recipe, draw_branch
from study.autoencoders.step import TrainingStep, Variant
from study.config import ArmConfig, AutoencoderTrainingConfig, Precision, StudyError, Trainable
from study.config.seeds import derive
from study.data.store import to_float
from study.distributed import mine
from study.keeper import Keeper, check_weights
from study.recorded import Recorded, placed

Log = Callable[[int, dict[str, float]], None]


@dataclass(slots=True)
class Work:
    """Mean area encoded and decoded per training image, in areas of the full image."""

    encoded: float
    decoded: float


def train_autoencoder(
    autoencoder: Autoencoder,
    images: np.ndarray,
    config: AutoencoderTrainingConfig,
    arm: ArmConfig | None,
    views: Views,
    seed: int,
    log: Log,
    steps: Callable[[range], Iterable[int]] = iter,
    keeper: Keeper | None = None,
) -> Work:
    """Train in place; says how much was encoded and decoded.

    Several processes share every batch; all call it alike and end with the same weights.

    Args:
        autoencoder: starts from its weights; left in eval mode.
        images: uint8 training images, N 3 H W.
        config: optimisation and loss weights.
        arm: transforms; None: none (pre-training).
        views: perceptual distance and held-out measurements.
        seed: data order, branches and noise; the same numbers for every arm.
        log: called with step and mean loss terms since the last call, at `monitor_points` steps
            with the held-out measurements too, and before the first step with these alone.
        steps: wraps the step range for progress.
        keeper: keeps the state on the way, and has that of an earlier start; None: nothing is kept.

    Raises:
        ConfigError: the autoencoder's factor does not divide the image side, or the batch cannot be
            shared evenly.
        StudyError: a loss term is not finite.
    """
    distributed.require_share(config.batch_size, "batch_size")
    device = next(autoencoder.parameters()).device
    side = autoencoder.latent_side(images)
    critic = Critic(config, images.shape[-1], autoencoder.factor, seed, device)
    recipe = Recipe(arm, config.transformed_quantisation_loss)
    trained = _trainable(autoencoder, arm)
    training = TrainingStep(autoencoder, trained, critic, views.perceptual, config, recipe)
    recorded = Recorded(training, device)
    points = monitor_steps(config) if views.monitor else set()
    meter = _Meter(max(1, config.steps // 100))
    areas = torch.zeros(2, dtype=torch.float64)
    keeper = keeper or Keeper()
    first = 0
    if kept := keeper.restore():
        for name, part in training.parts().items():
            part.load_state_dict(kept[name])
        first, areas = kept["step"], kept["areas"]
        meter.sums, meter.count = {k: v.to(device) for k, v in kept["sums"].items()}, kept["count"]
    elif views.monitor:
        log(0, views.monitor(autoencoder))
    autoencoder.train()
    autoencoder.precision = config.precision
    shape = (config.batch_size, autoencoder.channels, side, side)
    if config.compile:
        example = to_float(placed(_batch(images, config.batch_size, 0, seed), device))
        training.compile(example, mine(torch.zeros(shape, device=device)), side)
    for step in steps(range(first, config.steps)):
        if keeper.due:
            meter.check(step)
            check_weights(autoencoder, step)
            state = {name: part.state_dict() for name, part in training.parts().items()}
            progress = {"step": step, "areas": areas, "sums": meter.sums, "count": meter.count}
            keeper.save({**state, **progress})
        training.set_rate(decay(step, config.steps) * config.learning_rate)
        draw = draw_branch(arm, side, _generator(seed, "branch", step))
        areas += torch.tensor(draw.areas(side), dtype=torch.float64)
        critic_draw = None
        if config.separate_draws:
            critic_draw = draw_branch(arm, side, _generator(seed, "critic branch", step))
        if autoencoder.discrete and 0 < config.codebook_start == step:
            _draw_codebook(autoencoder, images, seed)
        variant = Variant(draw, critic_draw, step >= config.codebook_start, critic.acts(step))
        batch = to_float(placed(_batch(images, config.batch_size, step, seed), device))
        # Of its own generator: how much a branch draws must not shift an arm's noise.
        noise = mine(torch.randn(shape, generator=_generator(seed, "noise", step)))
        noise = placed(noise, device)
        meter.add(recorded(variant, batch, noise))
        if step + 1 in points or meter.full or step + 1 == config.steps:
            means = meter.means(step)
            if step + 1 in points and views.monitor:
                means |= views.monitor(autoencoder.eval())
                autoencoder.train()
            log(step + 1, means)
    autoencoder.precision = Precision.fp32
    autoencoder.eval().requires_grad_(True)
    encoded, decoded = (areas / config.steps).tolist()
    return Work(encoded, decoded)


def decay(step: int, steps: int) -> float:
    """Share of the peak rate at a step: a half cosine, squared, from 1 to 0.

    Which branch a batch draws moves an autoencoder back and forth by about the rate; squared, the
    last fifth of a run is spent below 1 % of the peak, so that it ends where it is at rest.
    """
    return (0.5 * (1 + math.cos(math.pi * step / steps))) ** 2


def monitor_steps(config: AutoencoderTrainingConfig) -> set[int]:
    """Steps after which held-out images are measured; the last is among them."""
    count = config.monitor_points
    return {round(config.steps * point / count) for point in range(1, count + 1)} - {0}


def _generator(seed: int, purpose: str, step: int) -> torch.Generator:
    return torch.Generator().manual_seed(derive(seed, "autoencoder", purpose, step))


class _Meter:
    """Means of loss terms between log points."""

    def __init__(self, every: int) -> None:
        self.every = every
        self.sums: dict[str, Tensor] = {}
        self.count = 0

    def add(self, terms: dict[str, Tensor]) -> None:
        """Add one step's terms."""
        for name, value in terms.items():
            self.sums[name] = self.sums.get(name, 0) + value
        self.count += 1

    @property
    def full(self) -> bool:
        """Whether an interval is complete."""
        return self.count == self.every

    def check(self, step: int) -> dict[str, float]:
        """Means so far.

        Raises:
            StudyError: a term is not finite.
        """
        distributed.average(list(self.sums.values()))
        means = {name: float(total) / self.count for name, total in self.sums.items()}
        for name, value in means.items():
            if not math.isfinite(value):
                raise StudyError(f"step {step}: loss term {name} = {value}: must be finite")
        return means

    def means(self, step: int) -> dict[str, float]:
        """Means since the last call; errors as those of `check`."""
        means = self.check(step)
        self.sums, self.count = {}, 0
        return means


def _trainable(autoencoder: Autoencoder, arm: ArmConfig | None) -> list[nn.Parameter]:
    autoencoder.requires_grad_(True)
    if arm is not None and arm.trainable is Trainable.decoder:
        for module in autoencoder.encoder_modules():
            module.requires_grad_(False)
    return [p for p in autoencoder.parameters() if p.requires_grad]


def _batch(images: np.ndarray, size: int, step: int, seed: int) -> Tensor:
    """This process's uint8 images of one step: every image once per epoch, ordered by the seed."""
    first = step * size
    indices = []
    for position in range(first, first + size):
        epoch, offset = divmod(position, len(images))
        indices.append(_order(len(images), epoch, seed)[offset])
    return torch.from_numpy(images[np.sort(indices)[distributed.rows(size)]])


@lru_cache(maxsize=2)
def _order(count: int, epoch: int, seed: int) -> np.ndarray:
    return np.random.default_rng(derive(seed, "autoencoder", "order", epoch)).permutation(count)


def _draw_codebook(autoencoder: Autoencoder, images: np.ndarray, seed: int) -> None:
    """Set the codebook to encoder features of random positions, so that no entry starts dead."""
    rng = np.random.default_rng(derive(seed, "autoencoder", "codebook"))
    codebook = autoencoder.model.quantize.embedding.weight
    count = min(len(images), 256)
    chosen = np.sort(rng.choice(len(images), count, replace=False))
    batch = to_float(torch.from_numpy(images[chosen])).to(codebook.device)
    with torch.no_grad(), plain_code():
        features = autoencoder.encode(batch).mean.permute(0, 2, 3, 1).flatten(0, 2)
        picks = rng.choice(len(features), len(codebook), replace=len(features) < len(codebook))
        codebook.copy_(features[torch.from_numpy(picks).to(codebook.device)])
