"""Stage evaluate_autoencoder: reconstruction and equivariance error of one arm."""

from statistics import fmean

import numpy as np
import torch

from study import paths
from study.autoencoders.models import load_autoencoder
from study.command import device, stage
from study.config.stages import EvaluateAutoencoder
from study.data.store import PixelStore
from study.evaluation.autoencoder import equivariance_errors, reconstruct
from study.evaluation.distances import frechet_distance, statistics
from study.evaluation.features import load_extractor
from study.evaluation.reference import Reference, require_samples
from study.tracking import Run

SHOWN = 12
"""Images in the picture: the upper row as they are, the lower row reconstructed."""


def main(config: EvaluateAutoencoder, run: Run) -> None:
    """Measure on held-out images; the distance is to the training images, as for generators."""
    cell, settings = config.cell, config.evaluate_autoencoder
    images = PixelStore(paths.store(cell)).images("validation")[: settings.num_images]
    autoencoder = load_autoencoder(paths.autoencoder(cell)).to(device())
    run.family = autoencoder.family.value
    result = reconstruct(autoencoder, images, settings.batch_size)
    extractor = load_extractor(config.evaluation, paths.network(cell, "extractor"), device())
    features = extractor.all(torch.from_numpy(result.images).split(settings.batch_size))
    require_samples(len(images), features.shape[1], config.evaluation, "num_images")
    reference = Reference.load(paths.reference(cell))
    distance = frechet_distance(statistics(features), reference.train)
    n = len(images)
    run.record(f"rfd_{extractor.name}", distance, n=n, extractor=extractor.name)
    run.record("psnr_db", float(result.psnr_db.mean()), n=n)
    run.record("ssim", float(result.ssim.mean()), n=n)
    for channel, (mean, std) in enumerate(zip(result.latent_mean, result.latent_std, strict=True)):
        run.record(f"latent_mean_channel_{channel}", float(mean), n=n)
        run.record(f"latent_std_channel_{channel}", float(std), n=n)
    run.record("latent_std", float(result.latent_std.square().mean().sqrt()), n=n)

    errors = equivariance_errors(autoencoder, images, settings.batch_size, settings.scales)
    groups: dict[str, list[tuple[float, float]]] = {"rotation": [], "scale": []}
    for name, error in errors.items():
        values = (error.variance_form(), error.paper_form())
        groups["rotation" if name.startswith("turn") else "scale"].append(values)
        run.record(f"equivariance_error_{name}", values[0], n=n)
        run.record(f"equivariance_error_paper_{name}", values[1], n=n)
    for group, values in groups.items():
        run.record(f"equivariance_error_{group}", fmean(v for v, _ in values), n=n)
        run.record(f"equivariance_error_paper_{group}", fmean(p for _, p in values), n=n)
    every = [v for values in groups.values() for v, _ in values]
    run.record("equivariance_error", fmean(every), n=n)
    shown = np.concatenate([images[:SHOWN], result.images[:SHOWN]])
    run.picture(shown, columns=min(SHOWN, len(images)))
    run.protocol = {
        "images": f"first {n} held-out images",
        "reference": f"{reference.train.count} training images",
        "latents": "mean of the posterior (vq: features before quantisation)",
        "transforms": "bilinear, no antialias",
        "extractor": extractor.name,
    }


if __name__ == "__main__":
    stage(main, __file__)
