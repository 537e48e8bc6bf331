import pytest
import torch

from study.autoencoders.losses import (
    PatchDiscriminator,
    adaptive_weight,
    hinge_discriminator_loss,
    reconstruction_weight,
)
from study.config import ConfigError, Reduction
from study.equivariance import scale_sides


@pytest.mark.parametrize("side", [8, 16, 24, 32])
def test_a_summed_step_at_scale_s_weighs_s_squared(side: int) -> None:
    full, target = torch.zeros(2, 3, 32, 32), torch.zeros(2, 3, side, side)
    assert reconstruction_weight(target, full, Reduction.sum) == (side / 32) ** 2


def test_a_mean_reduced_step_always_weighs_one() -> None:
    full, target = torch.zeros(2, 3, 32, 32), torch.zeros(2, 3, 8, 8)
    assert reconstruction_weight(target, full, Reduction.mean) == 1


@pytest.mark.parametrize("factor", [4, 8])
@pytest.mark.parametrize("side", [32, 64, 128, 256])
def test_smallest_input_gives_at_least_two_by_two_patches(side: int, factor: int) -> None:
    smallest = scale_sides(side // factor)[0] * factor
    logits = PatchDiscriminator(smallest, width=4)(torch.zeros(2, 3, smallest, smallest))
    assert logits.shape[1] == 1
    assert min(logits.shape[2:]) >= 2


def test_the_smallest_images_give_one_patch() -> None:
    assert PatchDiscriminator(4, width=4)(torch.zeros(2, 3, 4, 4)).shape == (2, 1, 1, 1)


def test_images_too_small_for_a_discriminator_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"smallest image of the recipe = 2 pixels: .* 4"):
        PatchDiscriminator(2)


def test_a_discriminator_for_large_inputs_has_the_published_depth() -> None:
    convolutions = [m for m in PatchDiscriminator(64).modules() if isinstance(m, torch.nn.Conv2d)]
    assert [(m.out_channels, m.stride[0]) for m in convolutions] == [
        (64, 2),
        (128, 2),
        (256, 2),
        (512, 1),
        (1, 1),
    ]


@pytest.mark.parametrize(
    ("real", "fake", "loss"),
    [(1.0, -1.0, 0), (0.0, 0.0, 1), (-1.0, 1.0, 2), (3.0, -3.0, 0), (0.5, -2.0, 0.25)],
)
def test_hinge_loss_closed_form(real: float, fake: float, loss: float) -> None:
    judged = hinge_discriminator_loss(torch.full((2, 2), real), torch.full((2, 2), fake))
    assert float(judged) == loss


def test_adaptive_weight_is_the_ratio_of_gradient_norms() -> None:
    last = torch.tensor([1.0, 2.0], requires_grad=True)
    images = [3 * last, last.square()]
    ours = [torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0])]
    theirs = torch.tensor([0.0, 0.5])
    # By hand: 3 (1, 0) + 2 last (0, 1) = (3, 4) against 3 (0, 0.5) = (0, 1.5).
    weight = adaptive_weight(images, ours, theirs, last)
    assert float(weight) == pytest.approx(5 / (1.5 + 1e-4))


def test_adaptive_weight_is_bounded() -> None:
    last = torch.tensor([1.0], requires_grad=True)
    weight = adaptive_weight([last * 1.0], [torch.tensor([1e9])], torch.tensor([0.0]), last)
    assert float(weight) == 1e4
