"""Stage evaluate_autoencoder: reconstruction, latents and equivariance of one arm."""

from dataclasses import asdict

from study import paths
from study.autoencoders.models import load_autoencoder
from study.command import device, stage
from study.config.stages import EvaluateAutoencoder
from study.data.store import PixelStore
from study.evaluation.analysis import SPECTRUM, analyse
from study.evaluation.comparison import Judges
from study.evaluation.features import load_extractor
from study.evaluation.networks.perceptual import perceptual_distance
from study.evaluation.reference import Reference, require_samples
from study.tracking import Run


def main(config: EvaluateAutoencoder, run: Run) -> None:
    """Measure on held-out images; rFD is to the training images, as for generators."""
    cell, settings = config.cell, config.evaluate_autoencoder
    images = PixelStore(paths.store(cell)).images("validation")[: settings.num_images]
    autoencoder = load_autoencoder(paths.autoencoder(cell)).to(device())
    run.family = autoencoder.family.value
    network = paths.network(cell, "extractor")
    extractor = load_extractor(config.evaluation, network, device())
    reference = Reference.load(paths.reference(cell))
    require_samples(len(images), len(reference.train.mean), config.evaluation, "num_images")
    perceptual = perceptual_distance(config.evaluation.lpips, network, device())
    judges = Judges(extractor, reference.train, perceptual)
    with run.keeper as keeper:
        analysis = analyse(autoencoder, images, settings, judges, cell.seed or 0, keeper)
    for result in analysis.results:
        run.record(**asdict(result))
    run.picture(*analysis.reconstructions)
    run.picture(*analysis.latents, "latents")
    run.picture(*analysis.transforms, "transforms")
    run.table(list(analysis.spectrum_rows()), list(SPECTRUM), "spectra")
    run.protocol = {
        "images": f"first {len(images)} held-out images",
        "reference": reference.source,
        **analysis.protocol,
    }


if __name__ == "__main__":
    stage(main, __file__)
