"""One training step of an autoencoder and of the discriminator beside it."""

import copy
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from study import distributed
from study.acceleration import compile_parts
from study.autoencoders.critic import ADAM_BETAS, Critic
from study.autoencoders.losses import adaptive_weight
from study.autoencoders.models import Autoencoder
from study.autoencoders.objective import Draw, Recipe, forward, loss
from study.config import AutoencoderTrainingConfig, Interpolation
from study.equivariance import Transform, scale_sides
from study.recorded import adam, set_rate


@dataclass(frozen=True, slots=True)
class Variant:
    """What decides which operations a step consists of, and their shapes."""

    draw: Draw
    critic_draw: Draw | None
    """Of the discriminator's step; None: that of the autoencoder."""
    quantise: bool
    """Family vq: whether the codebook exists."""
    adversarial: bool
    """Whether there is a discriminator and its step has come."""


class TrainingStep:
    """Forward, losses, backward and both optimisers' steps.

    Args:
        autoencoder: trained in place.
        trained: those of its parameters that are.
        critic: the discriminator.
        perceptual: distance per image.
        config: optimisation and loss weights.
        recipe: the arm.
    """

    def __init__(
        self,
        autoencoder: Autoencoder,
        trained: list[nn.Parameter],
        critic: Critic,
        perceptual: nn.Module,
        config: AutoencoderTrainingConfig,
        recipe: Recipe,
    ) -> None:
        self.autoencoder, self.critic, self.perceptual = autoencoder, critic, perceptual
        self.config, self.recipe = config, recipe
        self.trained = trained
        self.optimiser = adam(trained, config.learning_rate, ADAM_BETAS)
        if config.compile:
            # Processes exchange the moments of its batch norms, which no compiler follows.
            judges = critic.networks() if distributed.world() == 1 else []
            networks = [perceptual, *judges]
            compile_parts([*autoencoder.trained_parts(), *networks], dynamic=None)

    def compile(self, images: Tensor, noise: Tensor, side: int) -> None:
        """Compile for full resolution and, once for all, smaller sizes; changes nothing else.

        Before the first step, so that the code does not depend on which sizes come first: a run
        that is resumed uses the same as one that was not interrupted.
        """
        parts = self.parts()
        before = {name: copy.deepcopy(part.state_dict()) for name, part in parts.items()}
        small = scale_sides(side)[0]
        reduced = Transform(small, small, 0, Interpolation.bilinear, antialias=False)
        for draw in (Draw(), Draw(low_resolution=reduced)):
            for adversarial in {False, bool(self.critic.weight)}:
                self(Variant(draw, None, True, adversarial), (images, noise))
        for name, part in parts.items():
            part.load_state_dict(before[name])

    def parts(self) -> dict[str, nn.Module | torch.optim.Optimizer]:
        """What has a state, by name."""
        own = {"autoencoder": self.autoencoder, "optimiser": self.optimiser}
        return {**own, **self.critic.parts()}

    def set_rate(self, rate: float) -> None:
        """Set the learning rate of both optimisers."""
        set_rate(self.optimiser, rate)
        self.critic.set_rate(rate)

    def __call__(self, variant: Variant, inputs: tuple[Tensor, ...]) -> dict[str, Tensor]:
        """Train on images B 3 H W in [-1, 1] and posterior noise B c h w; terms of the loss."""
        autoencoder, critic, recipe = self.autoencoder, self.critic, self.recipe
        images, noise = inputs
        result = forward(autoencoder, images, variant.draw, noise, recipe, variant.quantise)
        cut = result.cut()
        losses = loss(cut, images, self.perceptual, self.config, recipe)
        adversarial = judged = torch.zeros((), device=images.device)
        gradients = list(torch.autograd.grad(losses.reconstruction, cut.decoded()))
        if variant.adversarial:
            term = critic.term(cut.reconstruction)
            (theirs,) = torch.autograd.grad(term, cut.reconstruction)
            ratio = adaptive_weight(result.decoded(), gradients, theirs, autoencoder.last_layer())
            gradients[0] = gradients[0] + critic.weight * ratio * theirs
            adversarial = critic.weight * ratio * term

        self.optimiser.zero_grad(set_to_none=True)
        latent = [losses.latent] if losses.latent.requires_grad else []
        torch.autograd.backward([*result.decoded(), *latent], [*gradients, *(None for _ in latent)])
        distributed.average([p.grad for p in self.trained if p.grad is not None])
        self.optimiser.step()
        if variant.adversarial:
            if variant.critic_draw is not None:
                with torch.no_grad():
                    draw, quantise = variant.critic_draw, variant.quantise
                    result = forward(autoencoder, images, draw, noise, recipe, quantise)
            judged = critic.update(result)
        terms = {**losses.terms, "adversarial": adversarial, "discriminator": judged}
        return {name: value.detach() for name, value in terms.items()}
