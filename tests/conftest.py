import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from torch import nn

from study import paths
from study.autoencoders.models import Autoencoder, create_autoencoder
from study.config import (
    ArmConfig,
    AutoencoderConfig,
    AutoencoderTrainingConfig,
    BackboneConfig,
    Family,
    Interpolation,
    LatentSpec,
    Precision,
    Reduction,
    ScaleMode,
    Trainable,
    TrainGeneratorConfig,
)
from study.data import shapes
from study.evaluation.networks.in_domain import InDomainNetwork, build_network
from study.evaluation.networks.perceptual import PerceptualDistance

ARCHITECTURES = {
    Family.kl: {
        "block_out_channels": [4, 8],
        "layers_per_block": 1,
        "latent_channels": 4,
        "norm_num_groups": 2,
        "mid_block_add_attention": False,
    },
    Family.tiny: {
        "encoder_block_out_channels": [8, 8],
        "decoder_block_out_channels": [8, 8],
        "num_encoder_blocks": [1, 1],
        "num_decoder_blocks": [1, 1],
        "latent_channels": 4,
    },
    Family.vq: {
        "block_out_channels": [4, 8],
        "layers_per_block": 1,
        "latent_channels": 4,
        "vq_embed_dim": 4,
        "num_vq_embeddings": 16,
        "norm_num_groups": 2,
        "mid_block_add_attention": False,
    },
}
"""Autoencoders of factor 2 with 4 latent channels."""


def _group(nodeid: str) -> str:
    """Tests of a file share fixtures, in these folders all do."""
    file = nodeid.partition("::")[0]
    return next((folder for folder in ("tests/pipeline", "tests/report") if folder in file), file)


# Where xdist is not installed tests run one after another.
@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """What shares fixtures runs in one process."""
    from xdist.scheduler import LoadScopeScheduling

    scheduler = LoadScopeScheduling(config, log)
    scheduler._split_scope = _group
    return scheduler


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest, a whole run, begin first."""
    items.sort(key=lambda item: _group(item.nodeid).endswith(".py"))


@pytest.fixture(autouse=True)
def one_thread() -> None:
    """Networks this small only lose time on a second thread."""
    torch.set_num_threads(1)


@pytest.fixture
def images() -> np.ndarray:
    """16 procedural images of 4 classes, uint8 16 3 16 16."""
    drawn = [image for image, _ in shapes.dataset(16, 4, 16, seed=0)]
    return np.stack(drawn).transpose(0, 3, 1, 2).copy()


@pytest.fixture
def labels() -> np.ndarray:
    return np.arange(16) % 4


@pytest.fixture
def make_autoencoder() -> Callable[[Family], Autoencoder]:
    """A tiny autoencoder; the same weights at every call."""

    def make(family: Family) -> Autoencoder:
        config = AutoencoderConfig(
            family=family, weights=None, architecture=ARCHITECTURES[family], published_scale=0.5
        )
        torch.manual_seed(0)
        autoencoder = create_autoencoder(config).eval()
        if autoencoder.discrete:
            # diffusers starts all entries within 1/K of zero: nearest would hardly vary.
            nn.init.normal_(autoencoder.model.quantize.embedding.weight, std=0.5)
        return autoencoder

    return make


@pytest.fixture(params=list(Family), ids=lambda family: family.value)
def autoencoder(
    request: pytest.FixtureRequest, make_autoencoder: Callable[[Family], Autoencoder]
) -> Autoencoder:
    """A tiny autoencoder of each family."""
    return make_autoencoder(request.param)


@pytest.fixture
def kl(make_autoencoder: Callable[[Family], Autoencoder]) -> Autoencoder:
    return make_autoencoder(Family.kl)


@pytest.fixture
def tiny(make_autoencoder: Callable[[Family], Autoencoder]) -> Autoencoder:
    return make_autoencoder(Family.tiny)


@pytest.fixture
def vq(make_autoencoder: Callable[[Family], Autoencoder]) -> Autoencoder:
    return make_autoencoder(Family.vq)


@pytest.fixture
def network() -> InDomainNetwork:
    """A frozen in-domain network of two levels, 8 features and 4 classes."""
    torch.manual_seed(1)
    return build_network("plain", [4, 8], 8, 4).eval().requires_grad_(False)


@pytest.fixture
def perceptual(network: InDomainNetwork) -> PerceptualDistance:
    return PerceptualDistance(network)


@pytest.fixture
def make_arm() -> Callable[..., ArmConfig]:
    """The released recipe, with changes."""
    released = ArmConfig(
        trainable=Trainable.all,
        equivariance_probability=0.5,
        low_resolution_probability=0.125,
        scale=ScaleMode.isotropic,
        rotation=True,
        interpolation=Interpolation.bilinear,
        antialias=False,
        reduction=Reduction.sum,
        explicit_weight=0.0,
        explicit_stop_gradient=False,
        downscaled_weight=0.0,
        after_quantisation=False,
    )
    return lambda **changes: replace(released, **changes)


@pytest.fixture
def make_training() -> Callable[..., AutoencoderTrainingConfig]:
    """Three steps of autoencoder training with every loss term, with changes."""
    base = AutoencoderTrainingConfig(
        steps=3,
        batch_size=4,
        precision=Precision.fp32,
        compile=False,
        learning_rate=1e-3,
        lpips=None,
        perceptual_weight=0.5,
        kl_weight=1e-3,
        commitment_weight=0.25,
        adversarial_weight=0.5,
        adversarial_start=0,
        discriminator_width=4,
        codebook_start=0,
        transformed_quantisation_loss=False,
        separate_draws=False,
        monitor_images=4,
        monitor_points=1,
    )
    return lambda **changes: replace(base, **changes)


@pytest.fixture
def backbone() -> BackboneConfig:
    return BackboneConfig(
        width=32,
        depth=2,
        heads=2,
        patch_size=2,
        mlp_ratio=2.0,
        projection_depth=1,
        projection_width=16,
    )


@pytest.fixture
def spec() -> LatentSpec:
    """Gaussian latents of 4 x 8 x 8 with 4 classes."""
    return LatentSpec(
        kind="gaussian",
        family="kl",
        channels=4,
        side=8,
        factor=2,
        num_classes=4,
        published_scale=0.5,
        mean=[1.0, 0.0, -1.0, 2.0],
        std=[1.0, 2.0, 0.5, 4.0],
        token_counts=[],
    )


@pytest.fixture
def token_spec(spec: LatentSpec) -> LatentSpec:
    """8 x 8 tokens of 16."""
    counts = list(range(16))
    return replace(spec, kind="tokens", family="vq", mean=[], std=[], token_counts=counts)


@pytest.fixture
def make_run() -> Callable[..., TrainGeneratorConfig]:
    """Four steps of generator training, with changes."""
    base = TrainGeneratorConfig(
        steps=4,
        batch_size=8,
        learning_rate=1e-3,
        warmup_steps=2,
        weight_decay=0.01,
        label_dropout=0.25,
        gradient_clip=1.0,
        ema_half_life_images=1000,
        ema_ramp=0.5,
        checkpoints=[0.5, 1.0],
        raw_weights=False,
        micro_batch_size=None,
        precision=Precision.fp32,
        compile=False,
        cuda_graph=False,
        deterministic=True,
    )
    return lambda **changes: replace(base, **changes)


@pytest.fixture
def awaken() -> Callable[[nn.Module], nn.Module]:
    """Give every parameter a random value: a fresh backbone's output is zero."""

    def fill(network: nn.Module) -> nn.Module:
        torch.manual_seed(2)
        for parameter in network.parameters():
            nn.init.normal_(parameter, std=0.1)
        return network

    return fill


@pytest.fixture
def params(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of params/ in a root of its own, which a test may change."""
    copy = tmp_path / "params"
    shutil.copytree(paths.PARAMS, copy, ignore=shutil.ignore_patterns("study.yaml", "inputs"))
    monkeypatch.setattr(paths, "ROOT", tmp_path)
    monkeypatch.setattr(paths, "PARAMS", copy)
    monkeypatch.setattr(paths, "GRID", copy / "study.yaml")
    return copy


@pytest.fixture
def edit() -> Callable[..., None]:
    """Change one entry of a YAML file, found by its keys."""

    def change(file: Path, *keys: str | int, value: object = None, drop: bool = False) -> None:
        content = yaml.safe_load(file.read_text())
        place = content
        for key in keys[:-1]:
            place = place[key]
        if drop:
            del place[keys[-1]]
        else:
            place[keys[-1]] = value
        file.write_text(yaml.safe_dump(content))

    return change
