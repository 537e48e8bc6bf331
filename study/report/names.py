"""How metrics, generators and arms are called in tables and figures, and which come first."""

import re
from collections.abc import Iterable
from typing import Any

import pandas as pd

TREATMENT = "eq"
CONTROL = "plain"
PRETRAINED = "pretrained"
RELEASED = ("released", "released_ema")
"""Arms that others trained, on other images than the study's."""
FOREMOST = 4
"""Generators that a report's first screen shows, in the grid's order; its tables have all."""
UNTRANSFORMED = ("plain_low_resolution", "plain_decoder")
"""Arms between control and treatment: fine-tuned otherwise than the control, not on transforms."""
FIRST = (PRETRAINED, CONTROL, TREATMENT, *UNTRANSFORMED, *RELEASED)
"""Arms that a report's first screen draws; others have a line there and are in what follows."""
BOUNDS = {"at least": "≥ ", "at most": "≤ "}
"""Sign of a value that a censored curve only bounds; an estimate has none."""
NOT_RUN = "not run"
NOT_IN_GRID = "not in the grid"

LABELS = {
    "fid": "FID",
    "fid_infinity": "FID, n → ∞",
    "fd_inception_infinity": "FD Inception, n → ∞",
    "fd_in_domain_infinity": "FD in-domain, n → ∞",
    "fd_inception_held_out": "FD Inception to held-out",
    "fd_in_domain_held_out": "FD in-domain to held-out",
    "fd_inception_reconstructions": "FD Inception to reconstructions",
    "fd_in_domain_reconstructions": "FD in-domain to reconstructions",
    "rfd_inception_training": "rFD Inception of training images",
    "rfd_in_domain_training": "rFD in-domain of training images",
    "sfid": "sFID",
    "sfd_inception": "sFD Inception",
    "sfd_in_domain": "sFD in-domain",
    "inception_score": "Inception score",
    "inception_score_in_domain": "In-domain score",
    "fd_inception": "FD Inception",
    "fd_in_domain": "FD in-domain",
    "fd_in_domain_self_supervised": "FD in-domain self-supervised",
    "kid_inception": "KID Inception",
    "kid_in_domain": "KID in-domain",
    "rfid": "rFID",
    "rfd_inception": "rFD Inception",
    "rfd_in_domain": "rFD in-domain",
    **{
        f"{name}_{extractor}": f"{name.capitalize()} {shown}"
        for name in ("precision", "recall", "density", "coverage")
        for extractor, shown in (("inception", "Inception"), ("in_domain", "in-domain"))
    },
    "nearest_ratio_inception": "Nearest ratio Inception",
    "nearest_ratio_in_domain": "Nearest ratio in-domain",
    "nearest_ratio_pixels": "Nearest ratio pixels",
    "psnr_db": "PSNR [dB]",
    "ssim": "SSIM",
    "lpips": "LPIPS",
    "perceptual_in_domain": "Perceptual in-domain",
    "equivariance_error": "Equiv. error",
    "equivariance_error_rotation": "Equiv. error, turns",
    "equivariance_error_scale": "Equiv. error, scales",
    "equivariance_error_paper_rotation": "Paper's form, turns",
    "equivariance_error_paper_scale": "Paper's form, scales",
    "latent_std": "Latent std",
    "latent_beyond_3": "Beyond ±3",
    "latent_spectral_slope": "Spectral slope",
    "latent_high_frequency_share": "Latent high-frequency share",
    "intrinsic_dimension": "intrinsic dimension",
    "codebook_perplexity": "Codebook perplexity",
}
# What depends on the number of images in its expected value, so n belongs to its name.
_DISTANCES = ("fid", "fd_", "sfid", "sfd_", "kid", "rfid", "rfd_", "transformed_rfd_", "ruler_")
PERCEPTUAL = ("lpips", "perceptual_in_domain")
INTRINSIC = "intrinsic_dimension_"
CODEBOOK = "codebook_perplexity"
HEADLINE = (
    *("psnr_db", "ssim", *PERCEPTUAL, "rfid", "rfd_inception", "rfd_in_domain"),
    *("equivariance_error_rotation", "equivariance_error_scale"),
    *("equivariance_error_paper_rotation", "equivariance_error_paper_scale"),
    *("latent_std", "latent_beyond_3", "latent_spectral_slope", INTRINSIC, CODEBOOK),
)
"""Columns of the table of autoencoders; of the intrinsic dimensions the one of most images."""
FRECHET = ("fid", "fd_inception", "fd_in_domain")
SECOND = {"fd_in_domain": "fd_in_domain_self_supervised"}
"""Distance by the second extractor, whose effects must have the sign of those by the first."""
TO_RECONSTRUCTIONS = ("fd_inception_reconstructions", "fd_in_domain_reconstructions")
"""Distance of samples to images by the arm's own decoder, which leaves out what decoding costs."""
OF_RECONSTRUCTIONS = ("rfd_inception_training", "rfd_in_domain_training")
"""That of those images to the originals: what decoding costs."""
KERNEL = ("kid_inception", "kid_in_domain")

# What samples are measured by beside distance and KID, in the order of its table; of each line the
# first that was measured.
QUALITY = (
    ("fid", "fd_inception", "fd_in_domain"),
    (*SECOND.values(),),
    ("fid_infinity", "fd_inception_infinity", "fd_in_domain_infinity"),
    ("fd_inception_held_out", "fd_in_domain_held_out"),
    TO_RECONSTRUCTIONS,
    OF_RECONSTRUCTIONS,
    ("sfid", "sfd_inception", "sfd_in_domain"),
    ("inception_score", "inception_score_in_domain"),
    *((f"{name}_inception", f"{name}_in_domain") for name in ("precision", "recall")),
    *((f"{name}_inception", f"{name}_in_domain") for name in ("density", "coverage")),
    ("nearest_ratio_inception", "nearest_ratio_in_domain"),
    ("nearest_ratio_pixels",),
)
RULER = {"blur": "blur", "noise": "noise", "jpeg": "JPEG", "classes": "classes left out"}
"""Degradations of real images under which the distance should rise."""
AUTOENCODERS = {
    **{"taesd": "TAESD", "taesdxl": "TAESDXL", "taesd3": "TAESD3", "taef1": "TAEF1"},
    **{"kl_small": "small KL", "vq_small": "small VQ"},
    **{"sd_vae": "SD-VAE", "sd_vae_ft_ema": "SD-VAE-FT-EMA", "vqgan_f16": "VQ-GAN f16"},
}
_TRANSFORMED = re.compile(r"transformed_(?P<measure>.+)_(?P<group>rotation|scale)")
_MEANS = {"rotation": "turns", "scale": "scales"}
_EXTRACTORS = {"inception": "Inception", "in_domain": "in-domain"}
GENERATORS = {
    **{"dit": "DiT", "sit": "SiT", "maskgit": "MaskGIT"},
    **{"repa": "REPA (in-domain target)", "repa_dinov2": "REPA (DINOv2 target)"},
}
_TOLD = {
    "shift": "time shift {:g}",
    "rate": "{:g} times the rate",
    "steps": "{:g} times the steps",
}
SCHEDULE = {"shift", "rate"}
"""Controls that are compared in a table, not by a curve of each."""
_CONTROLS = re.compile(rf"_(?=(?:{'|'.join(_TOLD)})_\d)")
ARMS = (
    *("pretrained", "plain", "eq", "plain_low_resolution", "plain_decoder", "eq_paper"),
    *("eq_rotation", "eq_scale", "eq_anisotropic", "eq_probability_70", "eq_probability_30"),
    *("eq_bicubic", "eq_no_low_resolution", "eq_mean_reduction", "eq_after_quantisation"),
    *("explicit", "explicit_stopgrad", "scale_equivariance", "released", "released_ema"),
)


def compared(treatment: str, control: str) -> str:
    """Two arms; with a mark where only one of them has seen the study's images."""
    adapted = control == PRETRAINED and treatment not in RELEASED
    mark = " (includes domain adaptation)" if adapted else ""
    return f"`{treatment}` against `{control}`{mark}"


def label(metric: str, sizes: Iterable[Any] | None = None) -> str:
    """Display name of a metric; that of a distance carries n.

    Args:
        metric: name in `results.csv`.
        sizes: column `n` of the rows shown.
    """
    name = LABELS.get(metric.removeprefix("transformed_"), metric.replace("_", " "))
    if found := _TRANSFORMED.fullmatch(metric):
        return f"{label(found['measure'], sizes)}, decoded after {_MEANS[found['group']]}"
    if metric.startswith(INTRINSIC):
        name = f"Intrinsic dim. {count(int(metric.removeprefix(INTRINSIC)))}"
    if sizes is None or not is_distance(metric) or metric.endswith("_infinity"):
        return name
    counts = sorted({int(n) for n in sizes if pd.notna(n)})
    return " ".join([name, "/".join(count(n) for n in counts)]).strip()


def is_distance(metric: str) -> bool:
    """Whether the metric compares sets of images."""
    return metric.startswith(_DISTANCES)


def count(n: int) -> str:
    """A number of images in few characters: 512, 1k, 1.5k, 1.2M."""
    for unit, factor in (("M", 1_000_000), ("k", 1_000)):
        if n >= factor and n % (factor // 10) == 0:
            return f"{n / factor:g}{unit}"
    return str(n)


def first_present(results: pd.DataFrame, metrics: tuple[str, ...]) -> str:
    """The first of the metrics that the generators' results hold; the last where none."""
    present = set(results["metric"][results["stage"] == "evaluate_generator"])
    return next((metric for metric in metrics if metric in present), metrics[-1])


def generator(name: str) -> str:
    """Display name of a generator; `sit_shift_50` is SiT with times shifted by 0.5."""
    return ", ".join(filter(None, (GENERATORS.get(namesake(name), namesake(name)), told(name))))


def told(name: str) -> str:
    """In words what a generator has other than its namesake; empty for the default."""
    return ", ".join(_TOLD[kind].format(value) for kind, value in controls(name).items())


def namesake(name: str) -> str:
    """The generator that a control of the schedule is one of: `sit` of `sit_shift_50`."""
    return _CONTROLS.split(name)[0]


def controls(name: str) -> dict[str, float]:
    """What a generator's name says it has other than its namesake: {"shift": 0.5} and the like."""
    pairs = (part.split("_") for part in _CONTROLS.split(name)[1:])
    return {kind: int(value) / 100 for kind, value in pairs}


def objective(name: str) -> str:
    """Objective of a generator, with which its name begins."""
    return name.partition("_")[0]


def autoencoder(name: str) -> str:
    """Display name of an autoencoder."""
    return AUTOENCODERS.get(name, name)


def backbone(name: str) -> str:
    """The field's name of a size: S_2 is S/2."""
    return name.replace("_", "/")


def ruler_name(metric: str) -> str:
    """What a metric measures distances with; empty for one that is none."""
    if metric in ("fid", "rfid"):
        return "FID of 50,000 samples"
    known = (name for key, name in _EXTRACTORS.items() if key in metric)
    extractor = next(known, "")
    return f"{extractor} distance" if extractor and is_distance(metric) else ""


def arm_rank(name: str) -> tuple[int, str]:
    """Sort key of arms: known ones in their order, then others by name."""
    return (ARMS.index(name), "") if name in ARMS else (len(ARMS), name)
