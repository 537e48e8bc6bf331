"""Does the fast step learn what the plain one learns? `python -m benchmarks.numerics`.

S/2 is trained on latents of procedural images in fp32 without compilation, and again in bf16 with
compiled blocks. Both see the same images, times and noise. At several steps the validation loss of
the averaged weights is measured in fp32 on fixed (image, t, noise) triples of other images.
"""

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from benchmarks.generators import backbone, settings
from benchmarks.gpu import machine
from study.autoencoders.models import create_autoencoder
from study.command import device
from study.config import AutoencoderConfig, Scaling, Weights, load_group
from study.config.load import generator_group
from study.data import shapes
from study.generators.checkpoints import load_generator
from study.generators.common import Batch, GeneratorObjective
from study.generators.objectives import build_objective
from study.generators.train import LatentBatches, train_generator
from study.latents import LatentCache, write_cache

PLAIN = {"precision": "fp32", "compile": False, "cuda_graph": False, "deterministic": True}
FAST = {"precision": "bf16", "compile": True, "deterministic": False}
TOLERANCE = 0.005
"""Of the validation loss, relative."""
VALIDATION_BATCHES = 8


def main(arguments: list[str] | None = None) -> int:
    """Train twice and compare; 1 if the losses differ by more than the tolerance."""
    options = _options(arguments)
    place = device()
    record: dict[str, Any] = {"steps": options.steps, "batch": options.batch, **machine()}
    with tempfile.TemporaryDirectory() as folder:
        caches = [
            shape_latents(Path(folder) / name, count, seed, options.side, place)
            for name, count, seed in (("train", options.images, 0), ("validation", 512, 1))
        ]
        for label, changes in (("fast", FAST | {"cuda_graph": options.graph}), ("plain", PLAIN)):
            began = time.monotonic()
            record[label] = _run(Path(folder) / label, caches, options, changes, place)
            record[label]["seconds"] = time.monotonic() - began
            print(label, json.dumps(record[label]["validation"]), flush=True)
            _save(options.output, record)
    fast, plain = (record[label]["validation"] for label in ("fast", "plain"))
    record["difference"] = {step: fast[step] / plain[step] - 1 for step in plain}
    record["last_difference"] = list(record["difference"].values())[-1]
    record["within_tolerance"] = abs(record["last_difference"]) <= TOLERANCE
    _save(options.output, record)
    print(f"validation loss, fast against plain: {record['last_difference']:+.3%}")
    return int(not record["within_tolerance"])


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
    place: torch.device,
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
        0,
        place,
        lambda step, values: curve.append((step, values["loss"])),
    )
    held_out = LatentBatches(caches[1], Scaling.standardised, None, config, 1, place)
    numbers = torch.Generator(place).manual_seed(0)
    batches = [held_out.draw(step, numbers) for step in range(VALIDATION_BATCHES)]
    losses = {}
    for point in index.checkpoints:
        network = load_generator(folder, index, point, generator, Weights.ema, place)
        losses[str(point.step)] = validation_loss(network, objective, batches, place)
    return {"validation": losses, "training": curve, "settings": changes}


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
    parser.add_argument("--graph", action="store_true", help="replay the fast step as a graph")
    parser.add_argument("--tiny", action="store_true", help="a small network: a rehearsal")
    parser.add_argument("--output", type=Path, default=Path("work/benchmarks/numerics.json"))
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
