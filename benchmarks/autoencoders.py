"""Encoding, decoding and fine-tuning of SD-VAE's architecture with random weights."""

from collections import Counter
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.generators import latent_spec
from benchmarks.timing import Clock
from study import paths
from study.acceleration import settled
from study.autoencoders.models import Autoencoder, create_autoencoder, load_autoencoder
from study.autoencoders.monitor import Views
from study.autoencoders.objective import Draw, draw_branch
from study.autoencoders.train import train_autoencoder
from study.config import (
    ArmConfig,
    AutoencoderConfig,
    AutoencoderTrainingConfig,
    Family,
    Precision,
    Scaling,
    load_group,
)
from study.config.load import convert, load_grid
from study.evaluation.networks.perceptual import LPIPS
from study.generators.decode import decode_batches

SD_VAE = {
    "block_out_channels": [128, 256, 512, 512],
    "layers_per_block": 2,
    "latent_channels": 4,
}
TINY = {
    "block_out_channels": [8, 8, 8, 8],
    "layers_per_block": 1,
    "latent_channels": 4,
    "norm_num_groups": 2,
}
SIDE = 256
COMPARED = 8
"""Images on which precisions are compared."""
DRAWN = 20_000
"""Draws by which the modes of a recipe are found and weighed."""
TYPICAL_DB = 26.0
"""PSNR of SD-VAE's reconstructions, of which a change is said."""


def sd_vae(device: torch.device, tiny: bool, weights: Path | None = None) -> Autoencoder:
    """SD-VAE's architecture with random weights, or an autoencoder from a folder."""
    if weights is not None:
        autoencoder = load_autoencoder(weights)
    else:
        architecture = TINY if tiny else SD_VAE
        torch.manual_seed(0)
        autoencoder = create_autoencoder(
            AutoencoderConfig(
                family=Family.kl, weights=None, architecture=architecture, published_scale=0.18215
            )
        ).eval()
    return settled(autoencoder, device)


def smooth_images(count: int, side: int, device: torch.device) -> Tensor:
    """Images in [-1, 1] with the spectrum of natural ones, roughly: noise on many scales."""
    numbers = torch.Generator().manual_seed(0)
    total, size = torch.zeros(count, 3, side, side), 4
    while size <= side:
        noise = torch.randn(count, 3, size, size, generator=numbers)
        total += nn.functional.interpolate(noise, (side, side), mode="bilinear") / size**0.5
        size *= 2
    return total.div_(total.abs().amax()).to(device)


@torch.inference_mode()
def encode(
    clock: Clock, batch: int, tiny: bool = False, changes: dict[str, Any] | None = None
) -> dict[str, object]:
    """Time the encoder as the latent cache uses it, and compare its latents with fp32."""
    used = {"precision": "bf16", "compile": True, "weights": None, **(changes or {})}
    autoencoder = sd_vae(clock.device, tiny, used["weights"] and Path(used["weights"]))
    images = smooth_images(batch, 32 if tiny else SIDE, clock.device)
    exact = autoencoder.encode(images[:COMPARED]).mean
    autoencoder.prepare(Precision(used["precision"]), used["compile"])
    clock.repeat(lambda: autoencoder.encode(images))
    difference = autoencoder.encode(images).mean[:COMPARED] - exact
    error = {
        "latent_error": float(difference.square().mean().sqrt() / exact.std()),
        "latent_error_largest": float(difference.abs().max() / exact.std()),
    }
    return clock.result(batch) | error | {"settings": used}


@torch.inference_mode()
def decode(
    clock: Clock, batch: int, tiny: bool = False, changes: dict[str, Any] | None = None
) -> dict[str, object]:
    """Time decoding to 8-bit images, as evaluation does it, and compare it with fp32."""
    used = {"precision": "bf16", "compile": True, "weights": None, **(changes or {})}
    autoencoder = sd_vae(clock.device, tiny, used["weights"] and Path(used["weights"]))
    side = 4 if tiny else SIDE // 8
    images = smooth_images(batch, 32 if tiny else SIDE, clock.device)
    latents = torch.cat([autoencoder.encode(part).mean for part in images.split(COMPARED)])
    exact = autoencoder.decode(latents[:COMPARED])
    autoencoder.prepare(Precision(used["precision"]), used["compile"])
    spec = replace(latent_spec(side), published_scale=1.0)

    def images_of(latents: Tensor) -> Tensor:
        return next(decode_batches(autoencoder, spec, Scaling.fixed, [latents]))

    clock.repeat(lambda: images_of(latents))
    difference = (autoencoder.decode(latents)[:COMPARED] - exact).square().mean()
    # Weights are random, so the images are not those that went in: what the difference would do
    # to a reconstruction of typical quality, in proportion to the spread of the images.
    relative = float(difference / exact.var())
    typical = 10 ** (-TYPICAL_DB / 10) * 4 / float(images.var())
    error = {
        "decoding_error": relative**0.5,
        "decoding_loss_db": float(10 * np.log10(1 + relative / typical)),
    }
    return clock.result(batch) | error | {"settings": used}


def lpips_vgg(device: torch.device, tiny: bool) -> nn.Module:
    """LPIPS on VGG16 with random weights: the time of the real one."""
    import lpips

    torch.manual_seed(0)
    network = lpips.LPIPS(net="vgg", pnet_rand=True, verbose=False)
    return settled(LPIPS(network), device).eval().requires_grad_(False)


def modes(arm: ArmConfig, side: int) -> list[tuple[Draw, float]]:
    """Draws of a recipe that differ in the sizes of what is computed, with their probabilities."""
    numbers, found = torch.Generator().manual_seed(0), {}
    counts: Counter[tuple[float, ...]] = Counter()
    for _ in range(DRAWN):
        draw = draw_branch(arm, side, numbers)
        counts[draw.areas(side)] += 1
        found.setdefault(draw.areas(side), draw)
    return [(found[key], count / DRAWN) for key, count in sorted(counts.items())]


def finetune(
    clock: Clock,
    arm: str,
    batch: int,
    separate: bool,
    tiny: bool = False,
    changes: dict[str, Any] | None = None,
) -> dict[str, object]:
    """Time the fine-tuning loop, data loading included.

    Every mode of the recipe comes a few times in a row, since its first steps choose algorithms and
    are recorded; what the last take is weighed by the mode's probability.

    Args:
        clock: how often; its warm-up and repeats are those of one mode.
        arm: plain is full resolution always, eq the released recipe.
        batch: images per step.
        separate: the discriminator's step draws and reconstructs anew, as released; here a draw of
            the same mode, which on average costs the same.
        tiny: a small autoencoder, for a rehearsal.
        changes: of the section finetune_autoencoder; what it does not have is ignored.

    Raises:
        TimeoutError: the clock's seconds are over before every mode was timed.
    """
    section = load_grid(paths.PARAMS / "profile" / "autoencoders.yaml")["finetune_autoencoder"]
    own = {"steps": 10**6, "batch_size": batch, "perceptual_weight": 1.0}
    own |= {"separate_draws": separate}
    own |= {key: value for key, value in (changes or {}).items() if key in section}
    config = convert(AutoencoderTrainingConfig, section | own, "finetune_autoencoder.")
    side = 32 if tiny else SIDE
    images = np.random.default_rng(0).integers(0, 256, (8 * batch, 3, side, side), dtype=np.uint8)
    autoencoder, recipe = sd_vae(clock.device, tiny), load_group(ArmConfig, "arm", arm)
    drawn = modes(recipe, autoencoder.latent_side(images))
    first, each = clock.warm_up, clock.warm_up + clock.repeats
    clock.warm_up, clock.repeats = 0, each * len(drawn)
    order = iter([draw for draw, _ in drawn for _ in range(each * (1 + separate))])
    with patch("study.autoencoders.train.draw_branch", lambda *_: next(order, Draw())):
        train_autoencoder(
            autoencoder,
            images,
            config,
            recipe,
            Views(lpips_vgg(clock.device, tiny), "lpips"),
            0,
            lambda *_: None,
            clock.loop,
        )
    times = clock.times()
    if len(times) < clock.repeats:
        raise TimeoutError(f"{len(times)} of {clock.repeats} steps: more seconds are needed")
    typical = [median(times[k + first : k + each]) for k in range(0, len(times), each)]
    seconds = sum(t * share for t, (_, share) in zip(typical, drawn, strict=True))
    return clock.result(batch) | {
        "images_per_s": batch / seconds,
        "ms": seconds * 1e3,
        "modes": len(drawn),
        "settings": section | own | {"arm": arm},
    }
