"""Encoding, decoding and fine-tuning of SD-VAE's architecture with random weights."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.generators import latent_spec
from benchmarks.timing import Clock
from study import paths
from study.autoencoders.models import Autoencoder, create_autoencoder, load_autoencoder
from study.autoencoders.monitor import Views
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
    if device.type == "cpu":
        return autoencoder
    return autoencoder.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]


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
    return LPIPS(network).to(device).eval().requires_grad_(False)


def finetune(
    clock: Clock,
    arm: str,
    batch: int,
    separate: bool,
    tiny: bool = False,
    changes: dict[str, Any] | None = None,
) -> dict[str, object]:
    """Time the fine-tuning loop, data loading included.

    Args:
        clock: how often; branches differ, so it is the mean that counts.
        arm: plain is full resolution always, eq the released recipe.
        batch: images per step.
        separate: the discriminator's step draws and reconstructs anew, as released.
        tiny: a small autoencoder, for a rehearsal.
        changes: of the section finetune_autoencoder; what it does not have is ignored.
    """
    section = load_grid(paths.PARAMS / "profile" / "autoencoders.yaml")["finetune_autoencoder"]
    own = {"steps": 10**6, "batch_size": batch, "perceptual_weight": 1.0}
    own |= {"separate_draws": separate}
    own |= {key: value for key, value in (changes or {}).items() if key in section}
    config = convert(AutoencoderTrainingConfig, section | own, "finetune_autoencoder.")
    shape = (8 * batch, 3, 32 if tiny else SIDE, 32 if tiny else SIDE)
    images = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    train_autoencoder(
        sd_vae(clock.device, tiny),
        images,
        config,
        load_group(ArmConfig, "arm", arm),
        Views(lpips_vgg(clock.device, tiny), "lpips"),
        0,
        lambda *_: None,
        clock.loop,
    )
    return clock.result(batch, mean=arm != "plain") | {"settings": section | own | {"arm": arm}}
