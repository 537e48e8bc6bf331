"""What tests let several processes do together, each as a function that all of them call."""

import copy
import multiprocessing
import os
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_EXCEPTION, ProcessPoolExecutor, wait
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from study import distributed
from study.autoencoders.models import Autoencoder
from study.autoencoders.monitor import Views
from study.autoencoders.train import train_autoencoder
from study.config import Scaling
from study.evaluation.autoencoder import reconstructions
from study.evaluation.features import FeatureExtractor, Features
from study.evaluation.passes import Gathered
from study.generators.objectives import build_objective
from study.generators.sample import sample_batches
from study.generators.train import train_generator
from study.keeper import Keeper
from study.latents import LatentCache, write_cache

CPU = torch.device("cpu")
LIMIT_S = 240
Curve = list[dict[str, float]]


class Interrupted(Exception):
    """The processes ended here."""


class Processes:
    """So many processes, which have imported what they need."""

    def __init__(self, world: int) -> None:
        self.world = world
        self.context = multiprocessing.get_context("forkserver")
        self.context.set_forkserver_preload(["processes"])
        self.pool = ProcessPoolExecutor(world, self.context)

    def __call__(
        self, function: Callable[..., Any], *arguments: Any, shard: bool = False
    ) -> list[Any]:
        """What the function returned in each process, by rank; `shard`: networks in parts."""
        with tempfile.TemporaryDirectory() as folder:
            place = f"file://{folder}/store"
            waiting = [
                self.pool.submit(_member, rank, self.world, place, shard, function, arguments)
                for rank in range(self.world)
            ]
            done, _ = wait(waiting, LIMIT_S, FIRST_EXCEPTION)
            failed = next((each for each in done if each.exception()), None)
            if failed or len(done) < self.world:
                # The others wait for what does not come.
                for process in list(self.pool._processes.values()):
                    process.kill()
                self.pool = ProcessPoolExecutor(self.world, self.context)
            if failed:
                failed.result()
            return [each.result(0) for each in waiting]


def _member(
    rank: int, world: int, place: str, shard: bool, function: Callable[..., Any], arguments: Any
) -> Any:
    torch.set_num_threads(1)
    os.environ["STUDY_SHARD"] = str(int(shard))
    with distributed.joined(place, rank, world):
        # Tensors come in memory that the processes share.
        return function(*copy.deepcopy(arguments))


def _until(stop: int | None, span: range) -> Iterator[int]:
    for step in span:
        if step == stop:
            raise Interrupted
        yield step


def generator(
    folder: Path,
    kind: Any,
    target: Any,
    latents: Path,
    images: np.ndarray,
    backbone: Any,
    config: Any,
    keep: Path | None = None,
    stop: int | None = None,
) -> tuple[Curve, dict[str, np.ndarray]]:
    """Curve and weights of a generator; with `stop` the curve until then."""
    curve: Curve = []

    try:
        train_generator(
            folder,
            build_objective(kind, target),
            LatentCache(latents),
            images,
            backbone,
            config,
            Scaling.standardised,
            0,
            CPU,
            lambda step, values: curve.append({"step": step, **values}),
            partial(_until, stop),
            Keeper(keep, every_s=0),
        )
    except Interrupted:
        return curve, {}
    from safetensors.torch import load_file

    (last,) = sorted(folder.glob("checkpoint-*.safetensors"))[-1:]
    return curve, {name: value.numpy() for name, value in load_file(last).items()}


def autoencoder(
    network: Autoencoder,
    images: np.ndarray,
    config: Any,
    arm: Any,
    views: Views,
    keep: Path | None = None,
    stop: int | None = None,
) -> tuple[Curve, dict[str, np.ndarray]]:
    """Curve and weights of a fine-tuned autoencoder; with `stop` the curve until then."""
    curve: Curve = []

    def log(step: int, values: dict[str, float]) -> None:
        curve.append({"step": step, **values})

    try:
        keeper = Keeper(keep, every_s=0)
        train_autoencoder(
            network, images, config, arm, views, 0, log, partial(_until, stop), keeper
        )
    except Interrupted:
        return curve, {}
    return curve, {name: value.numpy() for name, value in network.state_dict().items()}


def cache(
    folder: Path,
    network: Autoencoder,
    images: np.ndarray,
    labels: np.ndarray,
    keep: Path | None = None,
    stop: int | None = None,
) -> Any:
    """The index of a cache of shards of 3 images; with `stop` nothing after so many turns."""

    def track(span: range) -> Iterator[int]:
        for turn, number in enumerate(span):
            if turn == stop:
                raise Interrupted
            yield number

    try:
        keeper = Keeper(keep, every_s=0)
        return write_cache(folder, network, images, labels, 4, 0.5, 2, 3, track, keeper)
    except Interrupted:
        return None


def samples(
    network: torch.nn.Module,
    kind: Any,
    spec: Any,
    labels: np.ndarray,
    sampler: Any,
    extractor: Callable[[], FeatureExtractor],
    done: int = 0,
) -> tuple[np.ndarray, Features] | None:
    """Samples in micro-batches of 4 and features of what they would look like, in the leader."""
    rank, world = distributed.rank(), distributed.world()
    objective, count = build_objective(kind), -(-len(labels) // 4) - done
    found: list[Tensor] = []
    gathered = Gathered(extractor(), 6)
    batches = sample_batches(
        network, objective, spec, labels, sampler, 3, 4, 0, CPU, rank, world, done=done
    )
    for latents in distributed.turns(batches, count):
        if latents is not None:
            found.append(latents)
            gathered.add(_visible(latents))
        gathered.join()
    parts = distributed.collected([each.numpy() for each in found])
    if not parts:
        return None
    ordered = [part for turn in _turns(parts) for part in turn]
    return np.concatenate(ordered), gathered.features()


def _turns(parts: list[list[np.ndarray]]) -> Iterator[list[np.ndarray]]:
    for turn in range(len(parts[0])):
        yield [own[turn] for own in parts if turn < len(own)]


def _visible(latents: Tensor) -> Tensor:
    """Images that show every bit of latents B c h w or tokens B h w."""
    values = latents.float().flatten(1)[:, :64].reshape(-1, 1, 8, 8).contiguous()
    bits = (values.view(torch.int32) % 251).to(torch.uint8)
    return bits.expand(-1, 3, -1, -1).contiguous()


def reconstructed(
    network: Autoencoder, images: np.ndarray, extractor: Callable[[], FeatureExtractor]
) -> Features | None:
    """Features of reconstructions, in the leader."""
    gathered = Gathered(extractor(), 0)
    for batch in reconstructions(network, images, 10, 4, 0):
        gathered.add(batch)
    gathered.join()
    return gathered.features() if distributed.leader() else None


def facts(count: int) -> tuple[int, int, list[int], bool, float, list[int], str]:
    """What a process knows of itself and of the others."""
    rank = distributed.rank()
    values = torch.tensor([float(rank), 1.0])
    distributed.average([values])
    return (
        rank,
        distributed.world(),
        distributed.rows(count, 4).tolist(),
        distributed.agreed(rank == 1),
        float(values[0]),
        distributed.collected(rank),
        distributed.told(f"from {rank}"),
    )
