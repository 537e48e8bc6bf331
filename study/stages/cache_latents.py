"""Stage cache_latents: encode the training images once, unflipped and flipped."""

import json
import math
from functools import partial

from study import paths
from study.autoencoders.models import load_autoencoder
from study.command import place, stage
from study.config.stages import CacheLatents
from study.data.store import PixelStore
from study.latents import LatentCache, write_cache
from study.progress import track
from study.tracking import Run


def main(config: CacheLatents, run: Run) -> None:
    """Write moments or tokens, and their statistics."""
    store, settings = PixelStore(paths.store(config.cell)), config.cache_latents
    source = paths.autoencoder(config.cell)
    autoencoder = place(load_autoencoder(source))
    autoencoder.prepare(config.cache_latents.precision, config.cache_latents.compile)
    run.family = autoencoder.family.value
    images = store.images("train")
    shards = math.ceil(len(images) / settings.shard_images)
    with run.keeper as keeper:
        spec = write_cache(
            run.output(),
            autoencoder,
            images,
            store.labels("train"),
            store.num_classes,
            json.loads((source / "study.json").read_text())["published_scale"],
            settings.batch_size,
            settings.shard_images,
            partial(track, total=shards, description="shards"),
            keeper,
        )
    cache = LatentCache(run.output())
    for channel, (mean, std) in enumerate(zip(spec.mean, spec.std, strict=True)):
        run.record(f"latent_mean_channel_{channel}", mean, n=len(cache))
        run.record(f"latent_std_channel_{channel}", std, n=len(cache))
    if spec.discrete:
        used = sum(count > 0 for count in spec.token_counts)
        run.record("codebook_use", used / spec.codebook_size, n=len(cache))


if __name__ == "__main__":
    stage(main, __file__, shared=True)
