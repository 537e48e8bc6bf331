"""What one training step of an autoencoder reconstructs, and the terms of its loss.

A batch takes one of three branches: equivariant (reconstruct tau x from tau E(x) [EQ-VAE
2502.09509v3, Eq. 5]), low-resolution identity (reconstruct a down-scaled x; released code only),
identity. The explicit term [Eq. 4] and the down-scaled term [2502.14831] come on top of a branch at
full resolution.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from study.acceleration import autocast
from study.autoencoders.losses import reconstruction_weight
from study.autoencoders.models import Autoencoder
from study.config import ArmConfig, AutoencoderTrainingConfig, Reduction
from study.equivariance import (
    Transform,
    draw_downscaled,
    draw_low_resolution,
    draw_transform,
)


@dataclass(frozen=True, slots=True)
class Draw:
    """What is done with a batch; `equivariant` and `low_resolution` exclude each other."""

    equivariant: Transform | None = None
    low_resolution: Transform | None = None
    explicit: Transform | None = None
    downscaled: Transform | None = None

    def areas(self, side: int) -> tuple[float, float]:
        """What is encoded and what is decoded, in areas of the full image.

        The adaptive weight, the discriminator and the perceptual distance are not counted.
        """

        def share(transform: Transform | None) -> float:
            return transform.height * transform.width / side**2 if transform else 0.0

        if self.low_resolution is not None:
            return share(self.low_resolution), share(self.low_resolution)
        decoded = share(self.equivariant) if self.equivariant else 1.0
        return 1.0 + share(self.explicit), decoded + share(self.downscaled)


def draw_branch(arm: ArmConfig | None, side: int, generator: torch.Generator) -> Draw:
    """Draw the branch of one batch, and its transforms.

    Args:
        arm: probabilities and weights; None: always identity (pre-training).
        side: latent side at full resolution.
        generator: CPU generator of this step.
    """
    if arm is None:
        return Draw()
    u = float(torch.rand((), generator=generator))
    draws: dict[str, Transform] = {}
    if u < arm.equivariance_probability:
        draws["equivariant"] = draw_transform(side, arm, generator)
    elif u < arm.equivariance_probability + arm.low_resolution_probability:
        return Draw(low_resolution=draw_low_resolution(side, arm, generator))
    if arm.explicit_weight:
        draws["explicit"] = draw_transform(side, arm, generator)
    if arm.downscaled_weight:
        draws["downscaled"] = draw_downscaled(side, arm, generator)
    return Draw(**draws)


@dataclass(slots=True)
class Forward:
    """One forward pass: what is compared with what, and the terms on the latents."""

    target: Tensor
    reconstruction: Tensor
    kl: Tensor
    """Per image and summed over dimensions, mean over the batch."""
    codebook: Tensor
    commitment: Tensor
    explicit: Tensor
    downscaled: tuple[Tensor, Tensor] | None
    """Target and reconstruction of the down-scaled term."""

    def decoded(self) -> list[Tensor]:
        """Every decoded image batch; the discriminator judges the first."""
        return [self.reconstruction, *([self.downscaled[1]] if self.downscaled else [])]

    def cut(self) -> "Forward":
        """The same with decoded images as leaves: terms on images stop at them.

        So that each network behind such a term is passed backwards once, whatever becomes of the
        gradient by the image.
        """
        leaves = [image.detach().requires_grad_() for image in self.decoded()]
        pair = (self.downscaled[0], leaves[1]) if self.downscaled else None
        return replace(self, reconstruction=leaves[0], downscaled=pair)


@dataclass(slots=True)
class Recipe:
    """What stays the same over a run: the arm, and the options of the quantisation terms."""

    arm: ArmConfig | None
    transformed_quantisation_loss: bool = False

    @property
    def reduction(self) -> Reduction:
        """How a step at smaller size weighs."""
        return self.arm.reduction if self.arm else Reduction.sum


def forward(
    autoencoder: Autoencoder,
    images: Tensor,
    draw: Draw,
    noise: Tensor | None,
    recipe: Recipe,
    quantise: bool = True,
) -> Forward:
    """Encode, transform, decode [EQ-VAE, Eq. 5].

    tau acts on the sampled latent or, for family vq, on the features before quantisation (Sec. 3.3)
    unless the arm says `after_quantisation`. KL, codebook and commitment terms are those of the
    untransformed code.

    Args:
        autoencoder: model being trained.
        images: B 3 H W in [-1, 1].
        draw: branch of the batch.
        noise: posterior noise, B c h w of full resolution, or None for the mean.
        recipe: the arm and the quantisation option.
        quantise: family vq: False while the codebook does not exist yet.
    """
    if draw.low_resolution is not None:
        images = draw.low_resolution.on_images(images, autoencoder.factor)
    posterior = autoencoder.encode(images)
    if noise is not None:
        noise = noise[..., : posterior.mean.shape[-2], : posterior.mean.shape[-1]]
    latents = posterior.sample(noise)
    zero = latents.new_zeros(())
    result = Forward(images, images, posterior.kl().mean(), zero, zero, zero, None)
    if draw.equivariant is not None:
        result.target = draw.equivariant.on_images(images, autoencoder.factor)
    if autoencoder.discrete and quantise:
        result.reconstruction = _decode_quantised(autoencoder, latents, draw, recipe, result)
    else:
        moved = draw.equivariant.on_latents(latents) if draw.equivariant else latents
        result.reconstruction = _decode(autoencoder, moved)
    if draw.explicit is not None:
        result.explicit = _explicit_error(
            autoencoder, images, posterior.mean, draw.explicit, recipe
        )
    if draw.downscaled is not None:
        smaller = draw.downscaled.on_latents(latents)
        decoded = autoencoder.decode(smaller) if quantise else _decode(autoencoder, smaller)
        small_images = draw.downscaled.on_images(images, autoencoder.factor)
        result.downscaled = (small_images, decoded)
    return result


def _decode(autoencoder: Autoencoder, latents: Tensor) -> Tensor:
    """Decode without quantising."""
    if autoencoder.discrete:
        return autoencoder.decode_embeddings(latents)
    return autoencoder.decode(latents)


def _decode_quantised(
    autoencoder: Autoencoder, features: Tensor, draw: Draw, recipe: Recipe, result: Forward
) -> Tensor:
    """Quantise and decode; puts the quantisation terms into `result`."""
    code = autoencoder.quantise(features)
    result.codebook, result.commitment = code.codebook_loss, code.commitment_loss
    if draw.equivariant is None:
        return autoencoder.decode_embeddings(code.embeddings)
    if recipe.arm is not None and recipe.arm.after_quantisation:
        return autoencoder.decode_embeddings(draw.equivariant.on_latents(code.embeddings))
    moved = autoencoder.quantise(draw.equivariant.on_latents(features))
    if recipe.transformed_quantisation_loss:
        result.codebook = (code.codebook_loss + moved.codebook_loss) / 2
        result.commitment = (code.commitment_loss + moved.commitment_loss) / 2
    return autoencoder.decode_embeddings(moved.embeddings)


def _explicit_error(
    autoencoder: Autoencoder, images: Tensor, mean: Tensor, transform: Transform, recipe: Recipe
) -> Tensor:
    """Mean squared difference of tau E(x) and E(tau x) over latent elements [EQ-VAE, Eq. 4]."""
    moved = transform.on_images(images, autoencoder.factor)
    constant = recipe.arm is not None and recipe.arm.explicit_stop_gradient
    with torch.set_grad_enabled(torch.is_grad_enabled() and not constant):
        of_moved = autoencoder.encode(moved).mean
    return (transform.on_latents(mean) - of_moved).square().mean()


@dataclass(slots=True)
class Loss:
    """Terms of the loss of one forward pass, without the adversarial one."""

    reconstruction: Tensor
    """Weighted pixel and perceptual terms, against which the adversarial term is balanced."""
    latent: Tensor
    """Weighted terms on latents: KL, codebook and commitment, explicit."""
    terms: dict[str, Tensor]
    """Unweighted, for the log."""


def loss(
    result: Forward,
    images: Tensor,
    perceptual: nn.Module,
    config: AutoencoderTrainingConfig,
    recipe: Recipe,
) -> Loss:
    """Combine the terms [EQ-VAE, Eq. 1, 4, 5].

    Args:
        result: of `forward`.
        images: the batch at full resolution, which a summed step's weight is relative to.
        perceptual: distance per image.
        config: weights of the terms.
        recipe: the arm.
    """

    def compare(target: Tensor, reconstruction: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        pixel = (target - reconstruction).abs().mean()
        with autocast(images.device, config.precision):
            distance = perceptual(target, reconstruction).float().mean()
        weight = reconstruction_weight(target, images, recipe.reduction)
        return weight * (pixel + config.perceptual_weight * distance), pixel, distance

    reconstruction, pixel, distance = compare(result.target, result.reconstruction)
    if result.downscaled is not None and recipe.arm is not None:
        smaller, _, _ = compare(*result.downscaled)
        reconstruction = reconstruction + recipe.arm.downscaled_weight * smaller
    latent = config.kl_weight * result.kl / images[0].numel()
    latent = latent + result.codebook + config.commitment_weight * result.commitment
    if recipe.arm is not None and recipe.arm.explicit_weight:
        latent = latent + recipe.arm.explicit_weight * result.explicit
    terms = {
        "pixel": pixel,
        "perceptual": distance,
        "kl": result.kl,
        "codebook": result.codebook,
        "explicit": result.explicit,
    }
    return Loss(reconstruction, latent, terms)
