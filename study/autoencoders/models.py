"""What an autoencoder is here, and adapters over the diffusers classes: kl, tiny, vq.

diffusers is imported inside functions: it costs seconds, and not every command needs it.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from study import paths
from study.acceleration import autocast, compile_parts
from study.autoencoders.weights import CLASSES
from study.config import AutoencoderConfig, ConfigError, Family, Precision


@dataclass(slots=True)
class Posterior:
    """Encoder output: mean and, for a Gaussian posterior, log-variance, both B c h w."""

    mean: Tensor
    logvar: Tensor | None

    def sample(self, noise: Tensor | None) -> Tensor:
        """Latents: mean + std * noise; the mean for a deterministic encoder or without noise."""
        if self.logvar is None or noise is None:
            return self.mean
        return self.mean + torch.exp(0.5 * self.logvar) * noise

    def kl(self) -> Tensor:
        """KL divergence to N(0, I), summed over dimensions, B."""
        if self.logvar is None:
            return self.mean.new_zeros(len(self.mean))
        terms = self.mean.square() + self.logvar.exp() - 1.0 - self.logvar
        return 0.5 * terms.flatten(1).sum(1)


@dataclass(slots=True)
class Quantised:
    """Nearest codebook entries of encoder features."""

    embeddings: Tensor
    """B c h w, with the straight-through gradient to the features."""
    tokens: Tensor
    """B h w, in 0..K-1."""
    codebook_loss: Tensor
    """Mean squared distance, gradient to the codebook only."""
    commitment_loss: Tensor
    """Mean squared distance, gradient to the features only."""


class Autoencoder(nn.Module):
    """One interface over the three families; images in [-1, 1], B 3 H W.

    Latents are what `encode` returns and `decode` takes: for family vq the features before
    quantisation, which `decode` quantises.
    """

    def __init__(self, family: Family, model: Any) -> None:
        super().__init__()
        self.family = family
        self.model = model
        self.precision = Precision.fp32
        """Of `encode` and `decode`; what they return is fp32."""
        self.compiled, self.largest = False, 0
        config = model.config
        if family is Family.tiny:
            self.factor = 2 ** (len(config.encoder_block_out_channels) - 1)
            self.channels = int(config.latent_channels)
        else:
            self.factor = 2 ** (len(config.block_out_channels) - 1)
            channels = config.latent_channels
            self.channels = int((config.vq_embed_dim or channels) if self.discrete else channels)

    def prepare(self, precision: Precision, compiled: bool) -> None:
        """Set the precision of `encode` and `decode`; compile them, for images of one size."""
        self.precision, self.compiled = precision, compiled
        if compiled:
            self._rewrite()
            compile_parts([self.model.encoder, self.model.decoder])

    @property
    def discrete(self) -> bool:
        """Whether latents are quantised to tokens."""
        return self.family is Family.vq

    @property
    def codebook_size(self) -> int:
        """Number of codebook entries K (family vq)."""
        return int(self.model.config.num_vq_embeddings)

    def latent_side(self, images: Tensor | np.ndarray) -> int:
        """Side of the latents of images N 3 H W.

        Raises:
            ConfigError: the images are not square, or their side is no multiple of the factor.
        """
        height, width = images.shape[-2:]
        if height != width or height % self.factor:
            rule = f"must be square, sides a multiple of the autoencoder's factor {self.factor}"
            raise ConfigError(f"images of {height} x {width} pixels: {rule}")
        return height // self.factor

    def encode(self, images: Tensor) -> Posterior:
        """Posterior of the latents, at 1/factor of the side."""
        with autocast(images.device, self.precision):
            encoded = self.model.encode(self._filled(images))
        kept = slice(len(images))
        if self.family is Family.kl:
            latent = encoded.latent_dist
            return Posterior(latent.mean[kept].float(), latent.logvar[kept].float())
        return Posterior(encoded.latents[kept].float(), None)

    def _filled(self, batch: Tensor) -> Tensor:
        """A batch as large as the largest so far, where code is compiled for each size anew."""
        if not self.compiled:
            return batch
        self.largest = max(self.largest, len(batch))
        more = self.largest - len(batch)
        return torch.cat([batch, batch[-1:].expand(more, -1, -1, -1)]) if more else batch

    def decode(self, latents: Tensor) -> Tensor:
        """Images of latents (family vq: of features, quantised first)."""
        if self.discrete:
            return self.decode_embeddings(self.quantise(latents).embeddings)
        with autocast(latents.device, self.precision):
            decoded = self.model.decode(self._filled(latents)).sample
        return decoded[: len(latents)].float()

    def quantise(self, features: Tensor) -> Quantised:
        """Nearest codebook entries with straight-through gradient (family vq)."""
        codebook = self.model.quantize.embedding.weight
        flat = features.permute(0, 2, 3, 1).reshape(-1, features.shape[1])
        tokens = torch.cdist(flat, codebook).argmin(1)
        batch, _, height, width = features.shape
        tokens = tokens.view(batch, height, width)
        entries = self.entries(tokens)
        return Quantised(
            embeddings=features + (entries - features).detach(),
            tokens=tokens,
            codebook_loss=functional.mse_loss(entries, features.detach()),
            commitment_loss=functional.mse_loss(features, entries.detach()),
        )

    def entries(self, tokens: Tensor) -> Tensor:
        """Codebook entries of tokens: B h w to B c h w (family vq)."""
        return self.model.quantize.embedding(tokens).permute(0, 3, 1, 2).contiguous()

    def decode_embeddings(self, embeddings: Tensor) -> Tensor:
        """Images of codebook entries (family vq)."""
        # Not VQModel.decode: it copies a zero to the device, for which the host waits.
        model, count = self.model, len(embeddings)
        embeddings = self._filled(embeddings)
        condition = embeddings if model.config.norm_type == "spatial" else None
        with autocast(embeddings.device, self.precision):
            decoded = model.decoder(model.post_quant_conv(embeddings), condition)
        return decoded[:count].float()

    def decode_tokens(self, tokens: Tensor) -> Tensor:
        """Images of tokens B h w (family vq)."""
        return self.decode_embeddings(self.entries(tokens))

    def last_layer(self) -> Tensor:
        """Weight of the decoder's last convolution, where the adaptive GAN weight is measured."""
        if self.family is Family.tiny:
            layers = [m for m in self.model.decoder.layers if isinstance(m, nn.Conv2d)]
            return layers[-1].weight
        return self.model.decoder.conv_out.weight

    def trained_parts(self) -> list[nn.Module]:
        """What is compiled for training: the encoder, and the decoder up to its last layers.

        The adaptive GAN weight asks for the gradient of the last layer alone; of compiled code only
        all gradients can be had.
        """
        self._rewrite()
        decoder = self.model.decoder
        if self.family is Family.tiny:
            blocks = [m for m in decoder.layers if not isinstance(m, nn.Conv2d | nn.Upsample)]
        else:
            blocks = [decoder.mid_block, *decoder.up_blocks]
        return [self.model.encoder, *blocks]

    def _rewrite(self) -> None:
        from study.compiled import rewrite

        rewrite(self.model)

    def encoder_modules(self) -> list[nn.Module]:
        """Modules that determine the latents."""
        model = self.model
        parts = (getattr(model, name, None) for name in ("encoder", "quant_conv", "quantize"))
        return [part for part in parts if part is not None]

    def save(self, folder: Path) -> None:
        """Write a diffusers folder (safetensors), the same wherever the weights came from."""
        self.model.save_pretrained(folder, safe_serialization=True)
        file = folder / "config.json"
        config = json.loads(file.read_text())
        config.pop("_name_or_path", None)
        if self.family is Family.tiny:
            # AutoencoderTiny saves a key that it warns about whenever it is loaded again.
            config.pop("block_out_channels", None)
        file.write_text(json.dumps(config, indent=2) + "\n")


def create_autoencoder(config: AutoencoderConfig) -> Autoencoder:
    """An autoencoder with fresh weights from `architecture`.

    Raises:
        ConfigError: the diffusers class refuses the arguments.
    """
    import diffusers

    cls = getattr(diffusers, CLASSES[config.family])
    arguments = dict(config.architecture)
    # One block type per level; diffusers wants them spelt out.
    if config.family is not Family.tiny:
        levels = len(arguments.get("block_out_channels", []))
        arguments["down_block_types"] = ["DownEncoderBlock2D"] * levels
        arguments["up_block_types"] = ["UpDecoderBlock2D"] * levels
    try:
        return Autoencoder(config.family, cls(**arguments))
    except (TypeError, ValueError) as error:
        raise ConfigError(f"architecture = {config.architecture}: {error}") from None


def load_autoencoder(source: Path | str, family: Family | None = None) -> Autoencoder:
    """Read a diffusers autoencoder in fp32 from a folder or a hub id.

    Args:
        source: folder (`Path`) or hub id (`str`).
        family: required for a hub id; else read from the folder's config.

    Raises:
        FileNotFoundError: the folder is not there.
        ConfigError: it holds no known autoencoder, or weights that do not match its config.
    """
    import diffusers

    if isinstance(source, Path):
        if not (source / "config.json").is_file():
            raise FileNotFoundError(f"{paths.shown(source)}/config.json: no such file")
        name = json.loads((source / "config.json").read_text()).get("_class_name")
        families = {cls: family for family, cls in CLASSES.items()}
        if name not in families:
            raise ConfigError(
                f"{paths.shown(source)}: _class_name = {name!r}: must be one of "
                f"{', '.join(families)}"
            )
        family = families[name]
    if family is None:
        raise ConfigError(f"{source}: family must be given for a hub id")
    cls = getattr(diffusers, CLASSES[family])
    try:
        model, info = cls.from_pretrained(
            source,
            torch_dtype=torch.float32,
            use_safetensors=True,
            low_cpu_mem_usage=False,
            output_loading_info=True,
        )
    except (OSError, RuntimeError, ValueError) as error:
        text = " ".join(str(error).split())[:300]
        raise ConfigError(f"{source}: cannot load {CLASSES[family]}: {text}") from None
    # diffusers gives what a file lacks random weights, and says so in a log line only.
    if info["missing_keys"]:
        rule = f"must hold every weight of {CLASSES[family]}"
        raise ConfigError(f"{source}: no weight {sorted(info['missing_keys'])[0]!r}: {rule}")
    if info["unexpected_keys"]:
        first = sorted(info["unexpected_keys"])[0]
        raise ConfigError(
            f"{source}: weight {first!r}: must have a place in the model of its config"
        )
    return Autoencoder(family, model).eval()
