"""Does the fast step learn what the plain one learns? `python -m benchmarks.numerics`.

S/2 is trained on latents in fp32 without compilation, and again in bf16 with compiled blocks, from
the same seeds: both see the same images, times and noise. At several steps the validation loss of
the averaged weights is measured in fp32 on fixed (image, t, noise) triples of other images.

What the output file has of the same settings is not run again.

With `--store`, `--autoencoder` and `--extractor` the latents are of real images, and samples of the
last step are measured too: Fréchet distance to the training images. Without them the images are
procedural.
"""

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import numpy as np
import torch
from torch import nn

from benchmarks.generators import backbone, settings
from benchmarks.gpu import machine
from study.autoencoders.models import Autoencoder, create_autoencoder, load_autoencoder
from study.command import device
from study.config import (
    AutoencoderConfig,
    Precision,
    SamplerConfig,
    Scaling,
    Weights,
    load_group,
)
from study.config.load import generator_group
from study.data import shapes
from study.data.store import PixelStore
from study.evaluation.distances import frechet_distance, statistics
from study.evaluation.features import FeatureExtractor
from study.evaluation.networks.in_domain import load_network
from study.generators.checkpoints import GeneratorIndex, load_generator
from study.generators.common import Batch, GeneratorObjective
from study.generators.decode import decode_batches
from study.generators.objectives import build_objective
from study.generators.sample import sample_batches, sample_labels
from study.generators.train import LatentBatches, train_generator
from study.latents import LatentCache, write_cache

PLAIN = {"precision": "fp32", "compile": False, "cuda_graph": False, "deterministic": True}
FAST = {"precision": "bf16", "compile": True, "deterministic": False}
TOLERANCE = 0.005
"""Of the validation loss, relative, for every seed."""
DEVIATIONS = 2.0
"""Seed standard deviations by which the mean Fréchet distances may differ."""
VALIDATION_BATCHES = 8
NUM_STEPS = 50
"""Of the sampler."""
MICRO_BATCH = 500


def main(arguments: list[str] | None = None) -> int:
    """Train both ways and compare; 1 if losses or distances differ by more than the tolerance."""
    options = _options(arguments)
    place = device()
    record = _found(options, {"steps": options.steps, "batch": options.batch, **machine()})
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        judge = Judge(options, place) if options.store else None
        if judge is None:
            caches = [
                shape_latents(folder / part, count, seed, options.side, place)
                for part, count, seed in (("train", options.images, 0), ("validation", 512, 1))
            ]
        else:
            caches = [judge.latents(folder / part, part) for part in ("train", "validation")]
        for seed in options.seeds:
            for label, changes in (
                ("fast", FAST | {"cuda_graph": options.graph}),
                ("plain", PLAIN),
            ):
                if str(seed) in record.get(label, {}):
                    continue
                began = time.monotonic()
                run = _run(folder / f"{label}-{seed}", caches, options, changes, seed, place, judge)
                run["seconds"] = time.monotonic() - began
                record.setdefault(label, {})[str(seed)] = run
                print(label, seed, json.dumps(run["validation"]), run["distance"], flush=True)
                _save(options.output, record)
    record |= compare(record)
    _save(options.output, record)
    print(f"validation loss, fast against plain: {record['last_difference']:+.3%}")
    return int(not record["within_tolerance"])


def compare(record: dict[str, Any]) -> dict[str, Any]:
    """Differences of the fast and the plain runs, and whether they are within the tolerance."""
    fast, plain = record["fast"], record["plain"]
    relative = {
        seed: {step: fast[seed]["validation"][step] / loss - 1 for step, loss in losses.items()}
        for seed, losses in ((seed, run["validation"]) for seed, run in plain.items())
    }
    last = max((list(steps.values())[-1] for steps in relative.values()), key=abs)
    result: dict[str, Any] = {"difference": relative, "last_difference": last}
    within = abs(last) <= TOLERANCE
    ours, theirs = ([run["distance"] for run in runs.values()] for runs in (fast, plain))
    if len(theirs) > 1 and None not in theirs:
        spread = stdev(theirs)
        result["distance_difference"] = fmean(ours) - fmean(theirs)
        result["distance_seed_deviation"] = spread
        within = within and abs(result["distance_difference"]) <= DEVIATIONS * spread
    return result | {"within_tolerance": within}


class Judge:
    """Real images, their latents and the distance of samples to them."""

    def __init__(self, options: argparse.Namespace, place: torch.device) -> None:
        self.store, self.place, self.samples = PixelStore(options.store), place, options.samples
        self.autoencoder: Autoencoder = load_autoencoder(options.autoencoder).eval().to(place)
        network = load_network(options.extractor, place)
        self.extractor = FeatureExtractor("in_domain", network, place)
        images = torch.from_numpy(np.array(self.store.images("train")))
        self.real = statistics(self.extractor.all(images.split(MICRO_BATCH)).vectors, place)

    def latents(self, folder: Path, part: str) -> LatentCache:
        """Cached latents of the store's images of one part."""
        images, labels = self.store.images(part), self.store.labels(part)
        classes = self.store.num_classes
        write_cache(folder, self.autoencoder, images, labels, classes, 1.0, 250, 10**6)
        return LatentCache(folder)

    def distance(
        self, network: nn.Module, objective: GeneratorObjective, index: GeneratorIndex, seed: int
    ) -> float:
        """Fréchet distance of samples to the training images, in the extractor's features."""
        counts = np.bincount(self.store.labels("train"), minlength=self.store.num_classes)
        batches = sample_batches(
            network,
            objective,
            index.spec,
            sample_labels(counts.tolist(), self.samples),
            load_group(SamplerConfig, "sampler", "euler"),
            NUM_STEPS,
            min(MICRO_BATCH, self.samples),
            seed,
            self.place,
            precision=Precision.bf16 if self.place.type == "cuda" else Precision.fp32,
        )
        images = decode_batches(self.autoencoder, index.spec, index.scaling, batches)
        vectors = self.extractor.all(images).vectors
        return frechet_distance(statistics(vectors, self.place), self.real, self.place)


def shape_latents(
    folder: Path, count: int, seed: int, side: int, place: torch.device
) -> LatentCache:
    """Latents of procedural images by a small autoencoder with random weights, factor 4."""
    images = [image for image, _ in shapes.dataset(count, 4, 4 * side, seed=seed)]
    torch.manual_seed(0)
    autoencoder = create_autoencoder(load_group(AutoencoderConfig, "autoencoder", "kl_small"))
    pixels = np.stack(images).transpose(0, 3, 1, 2)
    labels = np.arange(count) % 4
    write_cache(folder, autoencoder.eval().to(place), pixels, labels, 4, 1.0, 256, 10**6)
    return LatentCache(folder)


@torch.inference_mode()
def validation_loss(
    network: nn.Module, objective: GeneratorObjective, batches: list[Batch], place: torch.device
) -> float:
    """Mean weighted loss on fixed triples, in fp32."""
    total = 0.0
    for number, batch in enumerate(batches):
        numbers = torch.Generator(place).manual_seed(number)
        terms = objective.terms(network, batch, numbers)
        total += sum(objective.weights[name] * float(term) for name, term in terms.items())
    return total / len(batches)


def _run(
    folder: Path,
    caches: list[LatentCache],
    options: argparse.Namespace,
    changes: dict[str, Any],
    seed: int,
    place: torch.device,
    judge: Judge | None,
) -> dict[str, Any]:
    own = {
        "steps": options.steps,
        "batch_size": options.batch,
        "checkpoints": [0.1, 0.25, 0.5, 1.0],
        "learning_rate": 3e-4,
    }
    config, generator = settings(own | changes), generator_group(options.generator)
    objective, curve = build_objective(generator), []
    index = train_generator(
        folder,
        objective,
        caches[0],
        None,
        backbone("S_2", options.tiny),
        config,
        Scaling.standardised,
        seed,
        place,
        lambda step, values: curve.append((step, values["loss"])),
    )
    held_out = LatentBatches(caches[1], Scaling.standardised, None, config, 1, place)
    numbers = torch.Generator(place).manual_seed(0)
    batches = [held_out.draw(step, numbers) for step in range(VALIDATION_BATCHES)]
    losses, distance, network = {}, None, nn.Module()
    for point in index.checkpoints:
        network = load_generator(folder, index, point, generator, Weights.ema, place)
        losses[str(point.step)] = validation_loss(network, objective, batches, place)
    if judge is not None:
        # Sampled the same way whatever it was trained with: it is the training that is compared.
        distance = judge.distance(network, objective, index, seed)
    return {"validation": losses, "distance": distance, "training": curve, "settings": changes}


def _found(options: argparse.Namespace, record: dict[str, Any]) -> dict[str, Any]:
    """The record with runs that the output file has, if all but the time is as there."""
    if not options.output.is_file():
        return record
    kept = json.loads(options.output.read_text())
    same = all(kept[key] == value for key, value in record.items() if key != "time")
    runs = {label: kept[label] for label in ("fast", "plain") if label in kept} if same else {}
    return record | runs


def _save(file: Path, record: dict[str, Any]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(record, indent=1) + "\n")


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.numerics", description=__doc__)
    parser.add_argument("--generator", choices=["sit", "dit"], default="sit")
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--images", type=int, default=2048)
    parser.add_argument("--side", type=int, default=16, help="of the latents")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--store", type=Path, help="pixel store of real images")
    parser.add_argument("--autoencoder", type=Path, help="diffusers folder")
    parser.add_argument("--extractor", type=Path, help="in-domain network")
    parser.add_argument("--samples", type=int, default=10_000)
    parser.add_argument("--graph", action="store_true", help="replay the fast step as a graph")
    parser.add_argument("--tiny", action="store_true", help="a small network: a rehearsal")
    parser.add_argument("--output", type=Path, default=Path("work/benchmarks/numerics.json"))
    options = parser.parse_args(arguments)
    given = [options.store, options.autoencoder, options.extractor]
    if any(given) and not all(given):
        parser.error("--store, --autoencoder, --extractor: must be given together")
    return options


if __name__ == "__main__":
    sys.exit(main())
