"""Analysis of one autoencoder without the pipeline: printed, and saved in a folder of its own."""

import json
import re
from pathlib import Path

import pandas as pd

from study.autoencoders.models import Autoencoder, load_autoencoder
from study.command import device, place
from study.config import (
    ConfigError,
    DataConfig,
    EvaluateAutoencoderConfig,
    Family,
    PrepareDataConfig,
    Source,
)
from study.data.pictures import save_sheet
from study.data.write import read_images
from study.evaluation.analysis import Analysis, analyse
from study.evaluation.comparison import Judges
from study.evaluation.networks.perceptual import lpips_vgg
from study.exchange.ldm import load_ldm

SCALES = [0.25, 0.5, 0.75]
"""[EQ-VAE, App. C.3]"""
_FIRST = ("psnr_db", "ssim", "lpips", "latent_", "intrinsic_dimension", "codebook_")
"""First words of the metrics that are printed one by one."""
_ERROR = re.compile(r"equivariance_error_((?:paper|channels)_)?((?:turn|scale)_[\d.]+)(_\w+)?")


def open_autoencoder(source: str, family: Family | None) -> Autoencoder:
    """Load a diffusers folder, a file in LDM format or, if it is neither, a hub id.

    Raises:
        ConfigError: a hub id without family, or what is there is no autoencoder.
        FileNotFoundError: a folder without config.json.
    """
    path = Path(source)
    if path.is_file():
        return load_ldm(path)
    if path.is_dir():
        return load_autoencoder(path)
    if source.count("/") != 1 or source.startswith((".", "/", "weights/")):
        raise ConfigError(f"{source}: no such file or folder, and no hub id of the form OWNER/NAME")
    if family is None:
        known = ", ".join(each.value for each in Family)
        raise ConfigError(f"{source}: not here; to look it up on the hub give --family: {known}")
    return load_autoencoder(source, family)


def inspect(
    autoencoder: Autoencoder,
    data: DataConfig,
    size: int,
    count: int,
    batch_size: int,
    lpips: str | None = None,
) -> Analysis:
    """Analyse an autoencoder on the first held-out images of a data source.

    Args:
        autoencoder: in eval mode.
        data: the source.
        size: image side in pixels.
        count: number of images.
        batch_size: images per call of the encoder.
        lpips: file of VGG16 weights; None: no perceptual distance.

    Raises:
        ConfigError: data are missing or too few, the factor does not divide the side, or the
            weights are missing.
    """
    settings = EvaluateAutoencoderConfig(
        num_images=count,
        batch_size=batch_size,
        scales=SCALES,
        intrinsic_dimension_images=sorted({max(10, count // part) for part in (4, 2, 1)}),
    )
    # Procedural images are drawn, as many as are asked for; of the others all labels are read.
    train = count if data.source is Source.shapes else None
    prepare = PrepareDataConfig(
        image_size=size, train_images=train, validation_images=count, seed=0
    )
    images = read_images(data, prepare, "validation")
    measure = ("lpips", lpips_vgg(Path(lpips), device())) if lpips else None
    return analyse(place(autoencoder), images, settings, Judges(perceptual=measure))


def summary(analysis: Analysis) -> str:
    """The main metrics, one per line, and the equivariance errors as a table."""
    single = [
        e for e in analysis.results if e.metric.startswith(_FIRST) and "channel" not in e.metric
    ]
    lines = [f"{each.metric:<28} {each.value:.4g}" for each in single]
    errors: dict[str, dict[str, float]] = {}
    for each in analysis.results:
        if match := _ERROR.fullmatch(each.metric):
            form, transform, variant = match.groups()
            name = transform + (variant or "").replace("_", " ")
            errors.setdefault(name, {})[(form or "variance_").rstrip("_")] = each.value
    table = pd.DataFrame.from_dict(errors, orient="index")[["variance", "channels", "paper"]]
    return "\n".join([*lines, "", "equivariance error", table.round(3).to_string()])


def save(analysis: Analysis, folder: Path, about: dict[str, object]) -> None:
    """Write metrics (json, csv), spectra and pictures into a new folder."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = [{"metric": each.metric, "value": each.value, "n": each.n} for each in analysis.results]
    content = {**about, "protocol": analysis.protocol, "results": rows}
    (folder / "metrics.json").write_text(json.dumps(content, indent=1) + "\n")
    pd.DataFrame(rows).to_csv(folder / "metrics.csv", index=False)
    pd.DataFrame(analysis.spectrum_rows()).to_csv(folder / "spectra.csv", index=False)
    for name in ("reconstructions", "latents", "transforms"):
        sheet = getattr(analysis, name)
        save_sheet(sheet.images, sheet.columns, folder / f"{name}.png")
