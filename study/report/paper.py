"""The paper's numbers behind each endpoint (arXiv 2502.09509v3), for setting beside ours."""

from typing import NamedTuple

from study.config.claims import Better, Effect, Endpoint


class Published(NamedTuple):
    """A pair of numbers of the paper, or the factor by which it is faster."""

    control: float
    treatment: float
    source: str
    """Where they stand, and what was compared where that is not what the endpoint compares."""


_TURNS = Published(0.89, 0.56, "Table 1, its own form of the error, against pretrained")
_SCALES = Published(0.69, 0.43, "Table 1, its own form of the error, against pretrained")
_GFID = "gFID, DiT-B/2, 400K iterations"
_PLAIN = Published(43.5, 34.1, f"Table 6, {_GFID}")
_RECONSTRUCTION = {
    "rf": Published(0.81, 0.82, "Table 6, rFID"),
    "lpips": Published(0.146, 0.141, "Table 12, LPIPS, against pretrained"),
    "perceptual": Published(0.146, 0.141, "Table 12, LPIPS, against pretrained"),
    "psnr": Published(25.82, 25.95, "Table 12, against pretrained"),
    "ssim": Published(0.71, 0.72, "Table 12, against pretrained"),
}
# By claim, then by what tells its endpoints apart: metric (its beginning), treatment, control,
# generator; the first entry all of whose words fit counts.
_NUMBERS: dict[int, dict[tuple[str, ...], Published]] = {
    1: {
        ("equivariance_error_rotation",): _TURNS,
        ("equivariance_error_paper_rotation",): _TURNS,
        ("equivariance_error_scale",): _SCALES,
        ("equivariance_error_paper_scale",): _SCALES,
    },
    2: {
        ("transformed_rf", "rotation"): Published(64, 12, "Figure 3, rFID, against pretrained"),
        ("transformed_rf", "scale"): Published(
            (107 + 83 + 52) / 3, (31 + 7 + 2) / 3, "Figure 3, rFID, mean of scales, to pretrained"
        ),
    },
    3: {
        ("plain",): _PLAIN,
        ("pretrained",): Published(43.8, 34.1, f"Table 1, {_GFID}"),
    },
    4: {
        ("eq", "plain"): _PLAIN,
        ("plain", "pretrained"): Published(43.8, 43.5, f"Table 6, {_GFID}"),
    },
    6: {(name,): numbers for name, numbers in _RECONSTRUCTION.items()},
    7: {
        ("dit", "eq_scale", "eq_rotation"): Published(41.2, 35.8, f"Table 5, {_GFID}"),
        ("dit", "eq_paper", "eq_scale"): Published(35.8, 34.1, f"Table 5, {_GFID}"),
        ("dit", "eq_anisotropic", "eq_paper"): Published(34.1, 33.2, f"Table 5, {_GFID}"),
    },
    8: {("dit", "explicit"): Published(141.3, 34.1, f"Table 7, {_GFID}")},
    9: {
        ("eq_probability_70",): Published(34.1, 35.4, f"Table 8, {_GFID}"),
        ("eq_probability_30",): Published(34.1, 34.4, f"Table 8, {_GFID}"),
    },
    11: {("intrinsic_dimension", "plain"): Published(62.2, 39.4, "Table 5, against pretrained")},
    12: {
        ("equivariance_error_rotation",): Published(1.35, 0.64, "Table 1, against pretrained"),
        ("equivariance_error_scale",): Published(1.22, 0.55, "Table 1, against pretrained"),
        ("rf",): Published(7.94, 7.54, "Table 1, rFID, against pretrained"),
        ("maskgit",): Published(6.8, 5.9, "Table 3, gFID, 300 epochs, against pretrained"),
    },
    13: {
        ("taesdxl", "dit"): Published(46.0, 35.9, f"Table 1, {_GFID}, SDXL-VAE"),
        ("taesd3", "dit"): Published(58.9, 54.0, f"Table 1, {_GFID}, SD3-VAE"),
    },
    14: {("sit",): Published(33.0, 31.2, "Table 2, gFID, SiT-B/2, against SD-VAE-FT-EMA")},
    15: {
        ("recall",): Published(0.65, 0.63, "Table 10, SiT-XL/2 with REPA, 400K iterations"),
        ("repa",): Published(7.9, 7.5, "Table 10, gFID, SiT-XL/2 with REPA, 400K iterations"),
    },
    16: {
        ("dit",): Published(7.0, 1.5, "Table 2, DiT-XL/2, million iterations; Figure 1 says ×7"),
        ("repa",): Published(4.0, 1.0, "Table 2, SiT-XL/2 with REPA, million iterations"),
    },
}


def published(claim: int, endpoint: Endpoint, metric: str, autoencoder: str) -> Published | None:
    """The paper's numbers for an endpoint; None where it has none.

    Args:
        claim: its number.
        endpoint: what is compared.
        metric: that was measured.
        autoencoder: of the comparison.
    """
    if endpoint.effect is Effect.correlation:
        return None
    exact = {endpoint.treatment, endpoint.control, endpoint.generator, autoencoder}
    for words, numbers in _NUMBERS.get(claim, {}).items():
        if all(word in exact or _within(word, metric) for word in words):
            return numbers
    return None


def effect_of(numbers: Published, endpoint: Endpoint) -> float:
    """The paper's effect as ours is shown; positive: the treatment is better."""
    control, treatment, _ = numbers
    match endpoint.effect:
        case Effect.speed_up:
            return control / treatment
        case Effect.absolute:
            return treatment - control if endpoint.better is Better.higher else control - treatment
        case _:
            better = endpoint.better is Better.higher
            return treatment / control - 1 if better else 1 - treatment / control


def _within(word: str, metric: str) -> bool:
    """Whether a metric begins with a word, or is over that group of transforms."""
    return metric.startswith(word) or (word in ("rotation", "scale") and metric.endswith(word))
