from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from study.config import ArmConfig, Interpolation, ScaleMode
from study.equivariance import (
    EquivarianceError,
    Transform,
    draw_low_resolution,
    draw_transform,
    resize,
    scale_sides,
)

MakeArm = Callable[..., ArmConfig]
KERNELS = list(Interpolation)


def numbers(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def turn(quarters: int, side: int = 8) -> Transform:
    return Transform(side, side, quarters, Interpolation.bilinear, antialias=False)


def error_of(pairs: list[tuple[Tensor, Tensor]]) -> EquivarianceError:
    error = EquivarianceError()
    for ours, truth in pairs:
        error.add(ours, truth)
    return error


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("antialias", [False, True])
@pytest.mark.parametrize("sides", [(8, 24), (31, 13), (48, 45), (32, 9), (9, 40)])
def test_resize_equals_interpolate(
    kernel: Interpolation, antialias: bool, sides: tuple[int, int]
) -> None:
    x = torch.rand(2, 3, 32, 32, generator=numbers(), dtype=torch.float64) * 2 - 1
    expected = functional.interpolate(
        x, sides, mode=kernel.value, align_corners=False, antialias=antialias
    )
    torch.testing.assert_close(resize(x, sides, kernel, antialias), expected, atol=1e-12, rtol=0)
    # In single precision the library itself is up to 5e-6 off, since it rounds its coordinates.
    single = resize(x.float(), sides, kernel, antialias)
    torch.testing.assert_close(single, expected.float(), atol=1e-6, rtol=0)


def test_resize_to_the_same_sides_is_identity() -> None:
    x = torch.rand(1, 2, 8, 6)
    assert resize(x, (8, 6), Interpolation.bicubic, antialias=True) is x


def test_four_quarter_turns_are_identity() -> None:
    x = torch.rand(2, 4, 8, 8)
    turned = x
    for _ in range(4):
        turned = turn(1).on_latents(turned)
    assert torch.equal(turned, x)


def test_resize_comes_before_the_turn() -> None:
    x = torch.rand(1, 2, 8, 8)
    tau = Transform(4, 6, 1, Interpolation.bilinear, antialias=False)
    resized = resize(x, (4, 6), Interpolation.bilinear, antialias=False)
    assert torch.equal(tau.on_latents(x), torch.rot90(resized, 1, (2, 3)))
    assert tau.on_latents(x).shape == (1, 2, 6, 4)


def test_image_sides_are_factor_times_latent_sides() -> None:
    tau = Transform(3, 5, 2, Interpolation.bilinear, antialias=False)
    assert tau.on_images(torch.rand(1, 3, 64, 64), 8).shape == (1, 3, 24, 40)


def test_images_and_latents_turn_the_same_way() -> None:
    x = torch.rand(1, 3, 8, 8)
    assert torch.equal(turn(1, 8).on_latents(x), turn(1, 4).on_images(x, 2))


def test_scale_grid_is_24_points_at_32_and_12_at_16() -> None:
    assert scale_sides(32) == list(range(8, 32))
    assert scale_sides(16) == list(range(4, 16))


@pytest.mark.parametrize(
    ("side", "isotropic", "anisotropic"), [(32, 0.418, 0.371), (16, 0.399, 0.353)]
)
def test_expected_weight_of_a_summed_step(side: int, isotropic: float, anisotropic: float) -> None:
    scales = torch.tensor(scale_sides(side), dtype=torch.float64) / side
    assert float(scales.square().mean()) == pytest.approx(isotropic, abs=5e-4)
    assert float(scales.mean().square()) == pytest.approx(anisotropic, abs=5e-4)


def test_drawn_sides_and_turns_are_uniform(make_arm: MakeArm) -> None:
    source = numbers()
    draws = [draw_transform(16, make_arm(), source) for _ in range(6000)]
    sides = torch.bincount(torch.tensor([d.height for d in draws]), minlength=16)[4:]
    turns = torch.bincount(torch.tensor([d.quarter_turns for d in draws]), minlength=4)
    # Four standard deviations of a binomial count of 6000.
    assert (sides - 500).abs().max() < 4 * 500**0.5
    assert turns[0] == 0
    assert (turns[1:] - 2000).abs().max() < 4 * (2000 * 2 / 3) ** 0.5


def test_isotropic_scale_keeps_the_aspect(make_arm: MakeArm) -> None:
    source, arm = numbers(), make_arm(scale=ScaleMode.isotropic)
    assert all(d.height == d.width for d in (draw_transform(16, arm, source) for _ in range(20)))


def test_anisotropic_scale_draws_two_sides(make_arm: MakeArm) -> None:
    source, arm = numbers(), make_arm(scale=ScaleMode.anisotropic)
    assert any(d.height != d.width for d in (draw_transform(16, arm, source) for _ in range(20)))


def test_without_scale_the_side_is_kept(make_arm: MakeArm) -> None:
    draw = draw_transform(16, make_arm(scale=ScaleMode.none), numbers())
    assert (draw.height, draw.width) == (16, 16)


def test_without_rotation_nothing_turns(make_arm: MakeArm) -> None:
    assert draw_transform(16, make_arm(rotation=False), numbers()).quarter_turns == 0


def test_every_arm_consumes_the_same_random_numbers(make_arm: MakeArm) -> None:
    left = set()
    for scale in ScaleMode:
        for rotation in (False, True):
            source = numbers()
            arm = make_arm(equivariance_probability=0.0, scale=scale, rotation=rotation)
            draw_transform(16, arm, source)
            left.add(float(torch.rand((), generator=source)))
    assert len(left) == 1


def test_arms_that_share_a_part_draw_the_same_part(make_arm: MakeArm) -> None:
    both = draw_transform(16, make_arm(), numbers())
    assert draw_transform(16, make_arm(rotation=False), numbers()).height == both.height
    turned = draw_transform(16, make_arm(scale=ScaleMode.none), numbers())
    assert turned.quarter_turns == both.quarter_turns


def test_a_low_resolution_step_does_not_turn(make_arm: MakeArm) -> None:
    draw = draw_low_resolution(16, make_arm(), numbers())
    assert draw.quarter_turns == 0
    assert draw.height == draw.width
    assert draw.height in scale_sides(16)


@pytest.mark.parametrize("quarters", [1, 2, 3])
def test_average_pooling_has_no_error_under_turns(quarters: int) -> None:
    x = torch.rand(4, 3, 16, 16, dtype=torch.float64)
    encode = torch.nn.AvgPool2d(2)
    ours, truth = turn(quarters).on_latents(encode(x)), encode(turn(quarters).on_images(x, 2))
    error = error_of([(ours, truth)])
    assert error.paper_form() == pytest.approx(0, abs=1e-12)
    assert error.variance_form() == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("quarters", [1, 2, 3])
def test_pixel_unshuffle_has_the_error_computed_by_hand(quarters: int) -> None:
    # Every 2x2 block is [[a, 0], [0, 0]], so E(x) = (a, 0, 0, 0). A turn moves a to another corner,
    # hence another channel: the squared difference is 2 a^2 where |E(tau x)|^2 is a^2.
    # With a = 1 or 3: E[2 a^2] / 4 channels = 2.5, pooled variance Var[a] / 4 = 0.25.
    a = torch.tensor([1.0, 3.0, 1.0, 3.0]).view(4, 1, 1, 1)
    x = functional.pixel_shuffle(torch.cat([a, *[0 * a] * 3], 1).expand(-1, -1, 8, 8), 2)
    encode = torch.nn.PixelUnshuffle(2)
    ours, truth = turn(quarters).on_latents(encode(x)), encode(turn(quarters).on_images(x, 2))
    error = error_of([(ours, truth)])
    assert error.paper_form() == pytest.approx(2)
    assert error.variance_form() == pytest.approx(10)


def test_variance_form_of_unrelated_latents_is_two() -> None:
    source = numbers()
    ours, truth = (torch.randn(64, 4, 16, 16, generator=source) + 5 for _ in range(2))
    assert error_of([(ours, truth)]).variance_form() == pytest.approx(2, rel=0.02)


def test_only_the_paper_form_depends_on_the_mean() -> None:
    ours, truth = torch.rand(8, 4, 8, 8), torch.rand(8, 4, 8, 8)
    near, far = error_of([(ours, truth)]), error_of([(ours + 9, truth + 9)])
    assert far.variance_form() == pytest.approx(near.variance_form(), rel=1e-3)
    assert far.paper_form() < 0.1 * near.paper_form()


def test_error_does_not_depend_on_batches() -> None:
    ours, truth = torch.rand(7, 4, 8, 8), torch.rand(7, 4, 8, 8)
    whole = error_of([(ours, truth)])
    parts = error_of(list(zip(ours.split(3), truth.split(3), strict=True)))
    assert parts.paper_form() == pytest.approx(whole.paper_form(), rel=1e-12)
    assert parts.variance_form() == pytest.approx(whole.variance_form(), rel=1e-12)


def test_error_of_no_image_is_refused() -> None:
    with pytest.raises(RuntimeError, match="no image"):
        EquivarianceError().variance_form()
