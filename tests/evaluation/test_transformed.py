from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from study.autoencoders.models import Autoencoder
from study.config import StudyError
from study.data.store import to_float
from study.equivariance import EquivarianceError
from study.evaluation.comparison import Judges
from study.evaluation.transformed import UnderTransforms, scaling, transforms, with_means

MakeOf = Callable[..., Autoencoder]
TURNS = ("turn_90", "turn_180", "turn_270")


def measure(
    autoencoder: Autoencoder,
    images: np.ndarray,
    scales: list[float],
    judges: Judges | None = None,
    seed: int = 0,
) -> dict[str, float]:
    side = images.shape[-1] // autoencoder.factor
    measured = UnderTransforms(autoencoder, judges or Judges(), side, scales)
    numbers = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for batch in to_float(torch.from_numpy(images)).split(6):
            measured.add(batch, autoencoder.encode(batch), numbers, "batch")
        results = list(measured.results())
    assert len({result.metric for result in results}) == len(results)
    assert {result.n for result in results} == {len(images)}
    return {result.metric: result.value for result in results}


def test_turns_and_scales_are_measured_by_name_and_variant() -> None:
    found = transforms(8, [0.25, 0.5])
    plain = {name for name, variant in found if not variant}
    assert plain == {*TURNS, "scale_0.25", "scale_0.5"}
    assert {variant for name, variant in found if name == "scale_0.5"} == {
        *("", "bicubic", "antialiased", "bicubic_antialiased")
    }
    assert [found[name, ""].quarter_turns for name in TURNS] == [1, 2, 3]
    assert found["scale_0.25", "bicubic"].height == 2


@pytest.mark.parametrize(("side", "scale", "new"), [(10, 0.25, 2), (10, 0.75, 8), (2, 0.2, 1)])
def test_scales_are_rounded_to_whole_sides(side: int, scale: float, new: int) -> None:
    assert (scaling(side, scale).height, scaling(side, scale).width) == (new, new)


def test_means_over_turns_and_scales_carry_the_variant() -> None:
    values = {"turn_90": 1.0, "turn_180": 3.0, "scale_0.5": 5.0}
    assert with_means("e", values, "sampled") == {
        **{"e_turn_90_sampled": 1.0, "e_turn_180_sampled": 3.0, "e_scale_0.5_sampled": 5.0},
        **{"e_rotation_sampled": 2.0, "e_scale_sampled": 5.0},
    }
    assert "e_rotation" not in with_means("e", {"scale_0.5": 5.0})


def test_pooling_commutes_with_turns_and_halving(pooling: Autoencoder, images: np.ndarray) -> None:
    # Bilinear halving without antialias averages 2 x 2 pixels too.
    found = measure(pooling, images, [0.5])
    for form in ("", "_paper", "_channels"):
        for name in (*TURNS, "rotation", "scale_0.5", "scale"):
            assert found[f"equivariance_error{form}_{name}"] == pytest.approx(0, abs=1e-9)
    assert found["equivariance_error"] == pytest.approx(0, abs=1e-9)
    assert found["equivariance_error_scale_0.5_bicubic"] > 1e-4


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("turn_90", lambda i, j: (j, 1 - i)),
        ("turn_180", lambda i, j: (1 - i, 1 - j)),
        ("turn_270", lambda i, j: (1 - j, i)),
    ],
)
def test_pixel_unshuffle_has_the_error_computed_by_hand(
    unshuffling: Autoencoder,
    images: np.ndarray,
    name: str,
    source: Callable[[int, int], tuple[int, int]],
) -> None:
    # Channel (i, j) of E(x) holds the pixels at place (i, j) of the 2 x 2 blocks. Turning latents
    # moves blocks; turning the image also moves pixels within blocks: to (i, j) from source(i, j).
    x = images.astype(float) / 127.5 - 1
    places = [(i, j) for i in range(2) for j in range(2)]
    ours = {(c, *p): x[:, c, p[0] :: 2, p[1] :: 2] for c in range(3) for p in places}
    theirs = {(c, i, j): ours[c, *source(i, j)] for c, i, j in ours}
    squares = {k: (ours[k] - theirs[k]) ** 2 for k in ours}
    variances = {k: theirs[k].var() for k in ours}
    pooled = np.mean([squares[k].mean() for k in ours]) / np.mean(list(variances.values()))
    channels = np.mean([squares[k].mean() / variances[k] for k in ours])
    of_image = [sum(each[n].sum() for each in squares.values()) for n in range(len(x))]
    norm = (x**2).sum((1, 2, 3))
    found = measure(unshuffling, images, [0.5])
    assert found[f"equivariance_error_{name}"] == pytest.approx(pooled, rel=1e-5)
    assert found[f"equivariance_error_channels_{name}"] == pytest.approx(channels, rel=1e-5)
    assert found[f"equivariance_error_paper_{name}"] == pytest.approx(
        np.mean(of_image / norm), rel=1e-5
    )


def test_pixel_unshuffle_under_halving_has_the_error_computed_by_hand(
    unshuffling: Autoencoder, images: np.ndarray
) -> None:
    # Halved latents average over 2 x 2 blocks, halved images over the pixels of a block.
    x = images.astype(float) / 127.5 - 1
    pixel = x.reshape(16, 3, 4, 2, 2, 4, 2, 2)  # n c, rows: u, block, i, columns: v, block, j
    ours = pixel.mean((3, 6))  # n c u i v j
    theirs = pixel.mean((4, 7))  # n c u block v block: a pixel of the halved image
    error = ((ours - theirs) ** 2).mean() / theirs.var((0, 2, 4)).mean()
    found = measure(unshuffling, images, [0.5])
    assert found["equivariance_error_scale_0.5"] == pytest.approx(error, rel=1e-5)


@pytest.mark.parametrize(
    ("variant", "mode", "antialias"),
    [
        ("", "bilinear", False),
        ("_bicubic", "bicubic", False),
        ("_antialiased", "bilinear", True),
        ("_bicubic_antialiased", "bicubic", True),
    ],
)
def test_a_variant_resamples_images_and_latents_alike(
    kl: Autoencoder, images: np.ndarray, variant: str, mode: str, antialias: bool
) -> None:
    def resized(x: Tensor, side: int) -> Tensor:
        return functional.interpolate(x, (side, side), mode=mode, antialias=antialias)

    x, error = to_float(torch.from_numpy(images)), EquivarianceError()
    with torch.no_grad():
        error.add(resized(kl.encode(x).mean, 4), kl.encode(resized(x, 8)).mean)
    found = measure(kl, images, [0.5])
    assert found[f"equivariance_error_scale_0.5{variant}"] == pytest.approx(
        error.variance_form(), rel=1e-3
    )


def test_the_overall_error_is_the_mean_over_all_transforms(
    kl: Autoencoder, images: np.ndarray
) -> None:
    found = measure(kl, images, [0.25, 0.5])
    each = [found[f"equivariance_error_{name}"] for name in (*TURNS, "scale_0.25", "scale_0.5")]
    assert found["equivariance_error"] == pytest.approx(np.mean(each))
    assert found["equivariance_error_rotation"] == pytest.approx(np.mean(each[:3]))


def test_samples_of_an_equivariant_encoder_differ_by_their_variance(
    autoencoder_of: MakeOf, images: np.ndarray
) -> None:
    # E[(a - b)^2] of two samples of variance v is 2 v, relative to Var[mean] + v.
    v = 0.5
    made = autoencoder_of(
        2,
        lambda x: functional.avg_pool2d(x, 2),
        lambda z: functional.interpolate(z, scale_factor=2),
        logvar=np.log(v),
    )
    found = measure(made, images, [])
    pooled = functional.avg_pool2d(to_float(torch.from_numpy(images)), 2)
    expected = 2 * v / (float(pooled.var((0, 2, 3)).mean()) + v)
    assert found["equivariance_error_rotation"] == pytest.approx(0, abs=1e-9)
    assert found["equivariance_error_rotation_sampled"] == pytest.approx(expected, rel=0.05)


def test_sampled_latents_are_measured_where_there_is_a_posterior(
    autoencoder: Autoencoder, images: np.ndarray
) -> None:
    found = measure(autoencoder, images, [0.5])
    sampled = {name for name in found if name.endswith("_sampled")}
    if autoencoder.family.value != "kl":
        assert sampled == set()
        return
    names = (*TURNS, "rotation", "scale_0.5", "scale")
    forms = ("", "_paper", "_channels")
    assert sampled == {f"equivariance_error{f}_{name}_sampled" for f in forms for name in names}
    assert all(found[name] != found[name.removesuffix("_sampled")] for name in sampled)


def test_a_seed_determines_the_samples(kl: Autoencoder, images: np.ndarray) -> None:
    one, again, other = (measure(kl, images, [0.5], seed=seed) for seed in (1, 1, 2))
    assert one == again
    differing = {name for name in one if one[name] != other[name]}
    assert differing == {name for name in one if name.endswith("_sampled")}


def test_an_identity_decodes_transformed_latents_to_the_transformed_image(
    identity: Autoencoder, images: np.ndarray, judges: Judges
) -> None:
    found = measure(identity, images, [0.5], judges)
    for name in (*TURNS, "rotation", "scale_0.5", "scale"):
        assert found[f"transformed_psnr_db_{name}"] == pytest.approx(120)
        assert found[f"transformed_perceptual_in_domain_{name}"] == 0
        assert found[f"transformed_rfd_in_domain_{name}"] == pytest.approx(0, abs=1e-6)


def test_decoded_transformed_latents_are_compared_with_the_transformed_image(
    unshuffling: Autoencoder, images: np.ndarray
) -> None:
    # Blocks are turned, the pixels in them are not.
    x = images.astype(float)
    blocks = x.reshape(16, 3, 8, 2, 8, 2).transpose(0, 1, 2, 4, 3, 5)
    turned = np.rot90(blocks, 1, (2, 3)).transpose(0, 1, 2, 4, 3, 5).reshape(x.shape)
    error = ((turned - np.rot90(x, 1, (2, 3))) ** 2).mean((1, 2, 3)) / 255**2
    found = measure(unshuffling, images, [0.5])
    expected = (-10 * np.log10(error)).mean()
    assert found["transformed_psnr_db_turn_90"] == pytest.approx(expected, rel=1e-5)


def test_without_judges_only_what_needs_them_is_absent(
    autoencoder: Autoencoder, images: np.ndarray, judges: Judges
) -> None:
    whole = measure(autoencoder, images, [0.5], judges)
    bare = measure(autoencoder, images, [0.5])
    assert bare.items() <= whole.items()
    assert {name.split("_domain")[0] for name in whole.keys() - bare} == {
        *("transformed_rfd_in", "transformed_perceptual_in")
    }


def test_tokens_of_an_equivariant_encoder_agree(autoencoder_of: MakeOf, images: np.ndarray) -> None:
    made = autoencoder_of(
        2,
        lambda x: functional.avg_pool2d(x, 2),
        lambda z: functional.interpolate(z, scale_factor=2),
        # Not a value that pixels often have: rounding would decide.
        tokens=lambda z: (z.sum(1) > 0.0123).long(),
    )
    found = measure(made, images, [0.5])
    agreement = {name: value for name, value in found.items() if name.startswith("token_")}
    names = (*TURNS, "rotation", "scale_0.5", "scale")
    assert agreement == {f"token_agreement_{name}": 1 for name in names}


def test_token_agreement_is_the_share_of_equal_tokens(vq: Autoencoder, images: np.ndarray) -> None:
    x = to_float(torch.from_numpy(images))
    with torch.no_grad():
        ours = vq.quantise(torch.rot90(vq.encode(x).mean, 2, (2, 3))).tokens
        theirs = vq.quantise(vq.encode(torch.rot90(x, 2, (2, 3))).mean).tokens
    expected = float((ours == theirs).double().mean())
    assert 0 < expected < 1
    assert measure(vq, images, [0.5])["token_agreement_turn_180"] == pytest.approx(expected)


def test_latents_without_variance_have_no_error(autoencoder_of: MakeOf, images: np.ndarray) -> None:
    made = autoencoder_of(1, torch.zeros_like, lambda z: z)
    found = measure(made, images, [0.5])
    assert [name for name in found if name.startswith("equivariance")] == []
    assert "transformed_psnr_db_turn_90" in found


def test_a_constant_channel_is_left_out_of_the_mean_over_channels(
    autoencoder_of: MakeOf, images: np.ndarray
) -> None:
    def pad(x: Tensor) -> Tensor:
        return torch.cat([x[:, :1].roll(1, -1), torch.full_like(x[:, :1], 5)], 1)

    def narrow(x: Tensor) -> Tensor:
        return x[:, :1].roll(1, -1)

    wide, one = (
        autoencoder_of(1, f, lambda z: z[:, :1].expand(-1, 3, -1, -1)) for f in (pad, narrow)
    )
    ours, theirs = (measure(made, images, [0.5]) for made in (wide, one))
    name = "equivariance_error_channels_turn_90"
    assert ours[name] == pytest.approx(theirs[name], rel=1e-6)


def test_where_something_is_not_finite_is_named(autoencoder_of: MakeOf, images: np.ndarray) -> None:
    bright = images.copy()
    bright[:, :, 0, 0], bright[:, :, 0, -1] = 0, 255
    # Fails where the first pixel is white: only once the image is turned.
    made = autoencoder_of(
        1, lambda x: x / (x[:, :, :1, :1] < 1).float(), lambda z: z.nan_to_num(0, 0, 0)
    )
    with pytest.raises(StudyError, match=r"^batch, turn_90: a latent is not finite$"):
        measure(made, bright, [])
