"""The discriminator beside an autoencoder: its judgement, its own training step."""

import torch
from torch import Tensor, nn

from study import distributed
from study.acceleration import autocast, settled
from study.autoencoders.losses import PatchDiscriminator, hinge_discriminator_loss
from study.autoencoders.objective import Forward
from study.config import AutoencoderTrainingConfig
from study.config.seeds import derive
from study.equivariance import scale_sides
from study.recorded import adam, set_rate

ADAM_BETAS = (0.5, 0.9)
"""Released code, for both optimisers."""


class Critic:
    """Hinge PatchGAN with its optimiser; nothing at all where its weight is zero.

    Args:
        config: weight, start, width, learning rate, precision.
        image_side: side at full resolution.
        factor: of the autoencoder; with the side it gives the smallest image of the recipe.
        seed: of the initial weights, the same for every arm.
        device: where it runs.
    """

    def __init__(
        self,
        config: AutoencoderTrainingConfig,
        image_side: int,
        factor: int,
        seed: int,
        device: torch.device,
    ) -> None:
        self.weight, self.start = config.adversarial_weight, config.adversarial_start
        self.precision, self.device = config.precision, device
        if self.weight:
            smallest = scale_sides(image_side // factor)[0] * factor
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(derive(seed, "discriminator"))
                network = PatchDiscriminator(smallest, config.discriminator_width)
            self.network = settled(network, device)
            trained = list(self.network.parameters())
            self.optimiser = adam(trained, config.learning_rate, ADAM_BETAS)

    def parts(self) -> dict[str, nn.Module | torch.optim.Optimizer]:
        """What has a state, by name."""
        if not self.weight:
            return {}
        return {"critic": self.network, "critic_optimiser": self.optimiser}

    def networks(self) -> list[nn.Module]:
        """The discriminator, where there is one."""
        return [self.network] if self.weight else []

    def acts(self, step: int) -> bool:
        """Whether there is a discriminator, and its step has come."""
        return bool(self.weight) and step >= self.start

    def term(self, reconstruction: Tensor) -> Tensor:
        """-E[D(reconstruction)], with a gradient to the images only."""
        self.network.requires_grad_(False)
        return -self._judge(reconstruction).mean()

    def set_rate(self, rate: float) -> None:
        """Set the learning rate of the next step."""
        if self.weight:
            set_rate(self.optimiser, rate)

    def update(self, result: Forward) -> Tensor:
        """One hinge step on target and reconstruction; its loss."""
        self.network.requires_grad_(True)
        real = self._judge(result.target.detach())
        fake = self._judge(result.reconstruction.detach())
        loss = hinge_discriminator_loss(real, fake)
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        distributed.average([p.grad for p in self.network.parameters() if p.grad is not None])
        self.optimiser.step()
        return loss.detach()

    def _judge(self, images: Tensor) -> Tensor:
        with autocast(self.device, self.precision):
            return self.network(images).float()
