import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch

from study.autoencoders.models import Autoencoder
from study.config import ConfigError, EvaluateAutoencoderConfig, Family, StudyError
from study.data.store import to_float, to_uint8
from study.evaluation.analysis import Analysis, analyse
from study.evaluation.comparison import Judges
from study.evaluation.distances import frechet_distance, statistics
from study.evaluation.features import FeatureExtractor
from study.evaluation.reconstruction import psnr_db, ssim

MakeOf = Callable[..., Autoencoder]
Settings = EvaluateAutoencoderConfig


def values(analysis: Analysis) -> dict[str, float]:
    return {result.metric: result.value for result in analysis.results}


def test_every_metric_is_a_finite_number_with_a_name_of_its_own(
    autoencoder: Autoencoder, images: np.ndarray, settings: Settings, judges: Judges
) -> None:
    results = analyse(autoencoder, images, settings, judges).results
    assert len({result.metric for result in results}) == len(results)
    assert all(math.isfinite(result.value) for result in results)
    for result in results:
        prefix, _, size = result.metric.rpartition("_")
        assert result.n == (int(size) if prefix == "intrinsic_dimension" else 16)
        assert (result.extractor == "in_domain") == ("rfd_in_domain" in result.metric)


def test_families_differ_in_what_only_one_of_them_has(
    make_autoencoder: Callable[[Family], Autoencoder],
    images: np.ndarray,
    settings: Settings,
    judges: Judges,
) -> None:
    names = {f: set(values(analyse(make_autoencoder(f), images, settings, judges))) for f in Family}
    only_kl = names[Family.kl] - names[Family.tiny]
    only_vq = names[Family.vq] - names[Family.tiny]
    assert all(name.endswith("_sampled") for name in only_kl)
    assert {name for name in only_vq if not name.startswith("token_agreement_")} == {
        *("codebook_use", "codebook_perplexity")
    }
    assert only_kl
    assert names[Family.tiny] == names[Family.kl] & names[Family.vq]


def test_without_networks_exactly_what_needs_them_is_absent(
    autoencoder: Autoencoder, images: np.ndarray, settings: Settings, judges: Judges
) -> None:
    whole = values(analyse(autoencoder, images, settings, judges))
    bare = values(analyse(autoencoder, images, settings))
    assert bare.items() <= whole.items()
    assert whole.keys() - bare == {name for name in whole if "in_domain" in name}
    no_extractor = analyse(autoencoder, images, settings, replace(judges, extractor=None))
    assert whole.keys() - values(no_extractor) == {name for name in whole if "rfd" in name}
    no_reference = analyse(autoencoder, images, settings, replace(judges, reference=None))
    assert whole.keys() - values(no_reference) == {"rfd_in_domain"}


def test_reconstruction_goes_through_the_mean(
    kl: Autoencoder,
    images: np.ndarray,
    settings: Settings,
    judges: Judges,
    extractor: FeatureExtractor,
) -> None:
    analysis = analyse(kl, images, settings, judges)
    found, x = values(analysis), to_float(torch.from_numpy(images))
    with torch.no_grad():
        mean = kl.encode(x).mean
        decoded = to_uint8(kl.decode(mean))
    pair = decoded / 255, torch.from_numpy(images) / 255
    assert judges.reference is not None
    distance = frechet_distance(statistics(extractor(decoded)), judges.reference)
    assert judges.perceptual is not None
    perceptual = judges.perceptual[1](to_float(decoded), x).mean()
    assert found["psnr_db"] == pytest.approx(float(psnr_db(*pair).mean()), rel=1e-4)
    assert found["ssim"] == pytest.approx(float(ssim(*pair).mean()), rel=1e-4)
    assert found["rfd_in_domain"] == pytest.approx(distance, rel=1e-3)
    assert found["perceptual_in_domain"] == pytest.approx(float(perceptual), rel=1e-3)
    assert found["latent_std_channel_2"] == pytest.approx(float(mean[:, 2].std()), rel=1e-4)
    sheet = analysis.reconstructions
    assert sheet.columns == 12
    np.testing.assert_array_equal(sheet.images[:12], images[:12])
    np.testing.assert_array_equal(sheet.images[12:], decoded[:12].numpy())


def test_batch_size_changes_no_metric_but_the_noise(
    autoencoder: Autoencoder, images: np.ndarray, settings: Settings, judges: Judges
) -> None:
    one, other = (
        values(analyse(autoencoder, images, replace(settings, batch_size=size), judges))
        for size in (16, 3)
    )
    for name, value in one.items():
        if not name.endswith("_sampled"):
            assert other[name] == pytest.approx(value, rel=1e-2, abs=1e-3), name


def test_only_the_configured_images_count(
    kl: Autoencoder, images: np.ndarray, settings: Settings
) -> None:
    few = replace(settings, num_images=12, intrinsic_dimension_images=[12])
    assert values(analyse(kl, images, few)) == values(analyse(kl, images[:12], few))


def test_the_seed_changes_the_samples_only(
    kl: Autoencoder, images: np.ndarray, settings: Settings
) -> None:
    one, other = (values(analyse(kl, images, settings, seed=seed)) for seed in (0, 1))
    assert {name for name in one if one[name] != other[name]} == {
        name for name in one if name.endswith("_sampled")
    }


def test_spectra_are_a_table_of_latents_and_images(
    kl: Autoencoder, images: np.ndarray, settings: Settings
) -> None:
    rows = list(analyse(kl, images, settings).spectrum_rows())
    assert [row["set"] for row in rows] == ["latents"] * 4 + ["images"] * 8
    # The last ring reaches half a position beyond Nyquist.
    assert all(0 < row["frequency"] < 0.57 and row["power"] > 0 for row in rows)


def test_latents_of_less_than_four_positions_have_no_spectrum(
    autoencoder_of: MakeOf, images: np.ndarray, settings: Settings
) -> None:
    made = autoencoder_of(
        8,
        lambda x: torch.nn.functional.avg_pool2d(x, 8),
        lambda z: z.repeat_interleave(8, -1).repeat_interleave(8, -2),
    )
    analysis = analyse(made, images, settings)
    assert list(analysis.spectrum_rows()) == []
    assert not any("spectral" in name or "frequency" in name for name in values(analysis))


def test_an_image_side_that_the_factor_does_not_divide_is_refused(
    kl: Autoencoder, settings: Settings
) -> None:
    with pytest.raises(ConfigError, match="images of 15 x 15 pixels: must be square, sides a mult"):
        analyse(kl, np.zeros((16, 3, 15, 15), dtype=np.uint8), settings)


def test_the_batch_with_a_latent_that_is_not_finite_is_named(
    autoencoder_of: MakeOf, settings: Settings
) -> None:
    rng = np.random.default_rng(0)
    images = rng.integers(100, 155, (16, 3, 16, 16), dtype=np.uint8)
    images[13] = 0
    made = autoencoder_of(1, lambda x: (1 + x).log(), lambda z: z.exp() - 1)
    with pytest.raises(StudyError, match=r"^batch 2: a latent is not finite$"):
        analyse(made, images, settings)


def test_measuring_leaves_training_possible(
    kl: Autoencoder, images: np.ndarray, settings: Settings
) -> None:
    analyse(kl, images, settings)
    x = to_float(torch.from_numpy(images))
    kl.decode(kl.encode(x).mean).mean().backward()
    assert kl.last_layer().grad is not None


def test_the_protocol_says_what_measured(
    kl: Autoencoder, images: np.ndarray, settings: Settings, judges: Judges
) -> None:
    with_networks = analyse(kl, images, settings, judges).protocol
    assert with_networks["extractor"] == "in_domain"
    assert with_networks["perceptual distance"] == "perceptual_in_domain"
    assert with_networks["scales"] == "0.25 (2 of 8), 0.5 (4 of 8) latent positions a side"
    assert analyse(kl, images, settings).protocol["extractor"] == "none"
