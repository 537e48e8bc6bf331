"""One loop for pre-training and fine-tuning autoencoders; equivariance on or off is the arm.

A step is one of three branches, drawn per batch: equivariant (reconstruct tau x from tau E(x)
[EQ-VAE 2502.09509v3, Eq. 5]), low-resolution identity (reconstruct a down-scaled x), identity.
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor, nn

from study.autoencoders.losses import (
    PatchDiscriminator,
    adaptive_weight,
    hinge_discriminator_loss,
    reconstruction_weight,
)
from study.autoencoders.models import Autoencoder
from study.config import ArmConfig, AutoencoderTrainingConfig, Reduction, Trainable
from study.config.seeds import derive
from study.data.store import to_float
from study.equivariance import Transform, draw_low_resolution, draw_transform, scale_sides
from study.evaluation.networks import PerceptualDistance

Log = Callable[[int, dict[str, float]], None]
ADAM_BETAS = (0.5, 0.9)
"""Released code, for both optimisers."""


@dataclass(slots=True)
class Draw:
    """What the batch's branch does; at most one of the two is set."""

    equivariant: Transform | None = None
    low_resolution: Transform | None = None


def draw_branch(arm: ArmConfig | None, side: int, generator: torch.Generator) -> Draw:
    """Draw the branch of one batch, and its transform.

    Args:
        arm: probabilities; None: always identity (pre-training).
        side: latent side at full resolution.
        generator: CPU generator of this step.
    """
    if arm is None:
        return Draw()
    u = float(torch.rand((), generator=generator))
    if u < arm.equivariance_probability:
        return Draw(equivariant=draw_transform(side, arm, generator))
    if u < arm.equivariance_probability + arm.low_resolution_probability:
        return Draw(low_resolution=draw_low_resolution(side, arm, generator))
    return Draw()


@dataclass(slots=True)
class Forward:
    """One forward pass: what is compared with what, and the terms on the untransformed code."""

    target: Tensor
    reconstruction: Tensor
    kl: Tensor
    codebook: Tensor
    commitment: Tensor


def forward(
    autoencoder: Autoencoder, images: Tensor, draw: Draw, noise: Tensor | None, quantise: bool
) -> Forward:
    """Encode, transform, decode [EQ-VAE, Eq. 5]; tau acts before quantisation (Sec. 3.3).

    Args:
        autoencoder: model being trained.
        images: B 3 H W in [-1, 1].
        draw: branch of the batch.
        noise: posterior noise, B c h w of full resolution, or None for the mean.
        quantise: family vq: False while the codebook does not exist yet.
    """
    if draw.low_resolution is not None:
        images = draw.low_resolution.on_images(images, autoencoder.factor)
    posterior = autoencoder.encode(images)
    if noise is not None:
        noise = noise[..., : posterior.mean.shape[-2], : posterior.mean.shape[-1]]
    latents = posterior.sample(noise)
    target, zero = images, latents.new_zeros(())
    moved = latents
    if draw.equivariant is not None:
        target = draw.equivariant.on_images(images, autoencoder.factor)
        moved = draw.equivariant.on_latents(latents)
    codebook = commitment = zero
    if autoencoder.discrete and quantise:
        plain = autoencoder.quantise(latents)
        codebook, commitment = plain.codebook_loss, plain.commitment_loss
        used = plain if draw.equivariant is None else autoencoder.quantise(moved)
        reconstruction = autoencoder.decode_embeddings(used.embeddings)
    elif autoencoder.discrete:
        reconstruction = autoencoder.decode_embeddings(moved)
    else:
        reconstruction = autoencoder.decode(moved)
    return Forward(target, reconstruction, posterior.kl().mean(), codebook, commitment)


def train_autoencoder(
    autoencoder: Autoencoder,
    images: np.ndarray,
    config: AutoencoderTrainingConfig,
    arm: ArmConfig | None,
    perceptual: PerceptualDistance,
    seed: int,
    log: Log,
    steps: Callable[[range], Iterable[int]] = iter,
) -> None:
    """Train in place.

    Args:
        autoencoder: starts from its weights; left in eval mode.
        images: uint8 training images, N 3 H W.
        config: optimisation and loss weights.
        arm: transforms; None: none (pre-training).
        perceptual: frozen in-domain distance.
        seed: data order, branches and noise; the same numbers for every arm.
        log: called with step and mean loss terms since the last call.
        steps: wraps the step range for progress.

    Raises:
        RuntimeError: a loss term is not finite.
    """
    device = next(autoencoder.parameters()).device
    side = images.shape[-1] // autoencoder.factor
    trained = _trainable(autoencoder, arm)
    optimiser = torch.optim.Adam(trained, config.learning_rate, betas=ADAM_BETAS)
    critic = _Critic(config, images.shape[-1], autoencoder.factor, seed, device)
    reduction = arm.reduction if arm else Reduction.sum
    meter = _Meter(log, every=max(1, config.steps // 100))
    autoencoder.train()
    for step in steps(range(config.steps)):
        rate = 0.5 * config.learning_rate * (1 + math.cos(math.pi * step / config.steps))
        batch = _batch(images, config.batch_size, step, seed).to(device)
        numbers = torch.Generator().manual_seed(derive(seed, "autoencoder", "branch", step))
        draw = draw_branch(arm, side, numbers)
        # Of its own generator: how much a branch draws must not shift an arm's noise.
        numbers = torch.Generator().manual_seed(derive(seed, "autoencoder", "noise", step))
        shape = (len(batch), autoencoder.channels, side, side)
        noise = torch.randn(shape, generator=numbers).to(device)
        if autoencoder.discrete and 0 < config.codebook_start == step:
            _draw_codebook(autoencoder, images, seed)
        quantise = step >= config.codebook_start

        result = forward(autoencoder, batch, draw, noise, quantise)
        weight = reconstruction_weight(result.target, batch, reduction)
        pixel = (result.target - result.reconstruction).abs().mean()
        distance = perceptual(result.target, result.reconstruction).mean()
        reconstruction = weight * (pixel + config.perceptual_weight * distance)
        loss = reconstruction + config.kl_weight * result.kl / batch[0].numel()
        loss = loss + result.codebook + config.commitment_weight * result.commitment
        adversarial = critic.generator_term(autoencoder, result, reconstruction, step)
        loss = loss + adversarial

        _set_rate(optimiser, rate)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        judged = critic.update(result, rate, step)
        terms = {
            "pixel": pixel,
            "perceptual": distance,
            "kl": result.kl,
            "codebook": result.codebook,
            "adversarial": adversarial,
            "discriminator": judged,
        }
        meter.add(step, terms, last=step == config.steps - 1)
    autoencoder.eval().requires_grad_(True)


class _Critic:
    """The discriminator with its optimiser; nothing at all where its weight is zero."""

    def __init__(
        self,
        config: AutoencoderTrainingConfig,
        image_side: int,
        factor: int,
        seed: int,
        device: torch.device,
    ) -> None:
        self.weight = config.adversarial_weight
        self.start = config.adversarial_start
        self.device = device
        if self.weight:
            smallest = scale_sides(image_side // factor)[0] * factor
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(derive(seed, "discriminator"))
                network = PatchDiscriminator(smallest, config.discriminator_width)
            self.network = network.to(device)
            self.optimiser = torch.optim.Adam(
                self.network.parameters(), config.learning_rate, betas=ADAM_BETAS
            )

    def generator_term(
        self, autoencoder: Autoencoder, result: Forward, reconstruction: Tensor, step: int
    ) -> Tensor:
        """Weighted -E[D(reconstruction)] with the adaptive weight."""
        if not self.weight or step < self.start:
            return torch.zeros((), device=self.device)
        self.network.requires_grad_(False)
        term = -self.network(result.reconstruction).mean()
        ratio = adaptive_weight(reconstruction, term, autoencoder.last_layer())
        return self.weight * ratio * term

    def update(self, result: Forward, rate: float, step: int) -> Tensor:
        """One hinge step on (tau x, reconstruction), the pair the autoencoder was judged on."""
        if not self.weight or step < self.start:
            return torch.zeros((), device=self.device)
        self.network.requires_grad_(True)
        real = self.network(result.target.detach())
        fake = self.network(result.reconstruction.detach())
        loss = hinge_discriminator_loss(real, fake)
        _set_rate(self.optimiser, rate)
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        self.optimiser.step()
        return loss.detach()


class _Meter:
    """Means of loss terms between log points; refuses terms that are not finite."""

    def __init__(self, log: Log, every: int) -> None:
        self.log, self.every = log, every
        self.sums: dict[str, Tensor] = {}
        self.count = 0

    def add(self, step: int, terms: dict[str, Tensor], last: bool) -> None:
        """Add one step's terms; log at the end of an interval."""
        for name, value in terms.items():
            self.sums[name] = self.sums.get(name, 0) + value.detach()
        self.count += 1
        if self.count < self.every and not last:
            return
        means = {name: float(total) / self.count for name, total in self.sums.items()}
        for name, value in means.items():
            if not math.isfinite(value):
                raise RuntimeError(f"step {step}: loss term {name} = {value}: must be finite")
        self.log(step + 1, means)
        self.sums, self.count = {}, 0


def _trainable(autoencoder: Autoencoder, arm: ArmConfig | None) -> list[nn.Parameter]:
    autoencoder.requires_grad_(True)
    if arm is not None and arm.trainable is Trainable.decoder:
        for module in autoencoder.encoder_modules():
            module.requires_grad_(False)
    return [p for p in autoencoder.parameters() if p.requires_grad]


def _batch(images: np.ndarray, size: int, step: int, seed: int) -> Tensor:
    """Images of one step: every image once per epoch, in an order of the seed alone."""
    first = step * size
    indices = []
    for position in range(first, first + size):
        epoch, offset = divmod(position, len(images))
        indices.append(_order(len(images), epoch, seed)[offset])
    return to_float(torch.from_numpy(images[np.sort(indices)]))


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
    with torch.no_grad():
        features = autoencoder.encode(batch).mean.permute(0, 2, 3, 1).flatten(0, 2)
        picks = rng.choice(len(features), len(codebook), replace=len(features) < len(codebook))
        codebook.copy_(features[torch.from_numpy(picks).to(codebook.device)])


def _set_rate(optimiser: torch.optim.Optimizer, rate: float) -> None:
    for group in optimiser.param_groups:
        group["lr"] = rate
