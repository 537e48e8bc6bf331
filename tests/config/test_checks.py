import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from study.config import (
    AlignmentTarget,
    ArmConfig,
    AutoencoderConfig,
    AutoencoderTrainingConfig,
    BackboneConfig,
    ConfigError,
    DataConfig,
    DiTConfig,
    EvaluateAutoencoderConfig,
    EvaluateGeneratorConfig,
    EvaluationConfig,
    Family,
    MaskGITConfig,
    NetworkConfig,
    Precision,
    PrepareDataConfig,
    ReferenceStatisticsConfig,
    REPAConfig,
    SamplerConfig,
    ScaleMode,
    Source,
    TrainGeneratorConfig,
    TrainNetworkConfig,
    load_group,
)

Make = Callable[..., Any]


def rejects(config: Any, message: str, **changes: object) -> None:
    with pytest.raises(ConfigError) as caught:
        replace(config, **changes)
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"steps": 0}, "steps = 0: must be at least 1"),
        ({"learning_rate": 0.0}, "learning_rate = 0.0: must be greater than 0"),
        ({"learning_rate": math.nan}, "learning_rate = nan: must be greater than 0"),
        ({"kl_weight": -1e-6}, "kl_weight = -1e-06: must be at least 0"),
        ({"adversarial_start": -1}, "adversarial_start = -1: must be at least 0"),
        ({"discriminator_width": 0}, "discriminator_width = 0: must be at least 1"),
    ],
)
def test_bad_autoencoder_training_is_refused(
    make_training: Callable[..., AutoencoderTrainingConfig], changes: dict[str, float], message: str
) -> None:
    rejects(make_training(), message, **changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"equivariance_probability": 1.5}, "equivariance_probability = 1.5: must be from 0 to 1"),
        ({"low_resolution_probability": -0.1}, "low_resolution_probability = -0.1: must be from 0"),
        (
            {"equivariance_probability": 0.9},
            "low_resolution_probability = 0.125: must be at most 1 - equivariance_probability",
        ),
        (
            {"scale": ScaleMode.none, "rotation": False},
            "equivariance_probability = 0.5: must be 0 where neither scale nor rotation",
        ),
    ],
)
def test_bad_arm_is_refused(
    make_arm: Callable[..., ArmConfig], changes: dict[str, Any], message: str
) -> None:
    rejects(make_arm(), message, **changes)


def test_autoencoder_has_weights_or_an_architecture() -> None:
    config = AutoencoderConfig(
        family=Family.kl, weights="weights/x", architecture={}, published_scale=1.0
    )
    rejects(config, "architecture = {}: must be given exactly when weights is null", weights=None)
    rejects(config, "architecture = {'a': 1}: must be given exactly", architecture={"a": 1})
    rejects(config, "published_scale = 0.0: must be greater than 0", published_scale=0.0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"checkpoints": []}, "checkpoints = []: must be ascending fractions"),
        ({"checkpoints": [0.5]}, "checkpoints = [0.5]: must be ascending fractions"),
        ({"checkpoints": [0.5, 0.2, 1.0]}, "checkpoints = [0.5, 0.2, 1.0]: must be ascending"),
        ({"checkpoints": [0.0, 1.0]}, "checkpoints = [0.0, 1.0]: must be ascending"),
        ({"label_dropout": 1.1}, "label_dropout = 1.1: must be from 0 to 1"),
        ({"ema_ramp": 0.0}, "ema_ramp = 0.0: must be greater than 0"),
        ({"ema_ramp": 2.0}, "ema_ramp = 2.0: must be from 0 to 1"),
        ({"gradient_clip": 0.0}, "gradient_clip = 0.0: must be greater than 0"),
        ({"warmup_steps": -1}, "warmup_steps = -1: must be at least 0"),
        ({"ema_half_life_images": 0}, "ema_half_life_images = 0: must be at least 1"),
    ],
)
def test_bad_generator_training_is_refused(
    make_run: Callable[..., TrainGeneratorConfig], changes: dict[str, Any], message: str
) -> None:
    rejects(make_run(), message, **changes)


def test_bad_backbone_is_refused(backbone: BackboneConfig) -> None:
    rejects(backbone, "width = 36: must be a multiple of 4 times heads", width=36)
    rejects(backbone, "depth = 0: must be at least 1", depth=0)
    rejects(backbone, "mlp_ratio = 0.0: must be greater than 0", mlp_ratio=0.0)
    rejects(backbone, "projection_depth = 0: must be at least 1", projection_depth=0)
    rejects(backbone, "projection_depth = 3: must be at most depth 2", projection_depth=3)
    rejects(backbone, "projection_width = 0: must be at least 1", projection_width=0)


@pytest.mark.parametrize(
    ("schema", "name", "changes", "message"),
    [
        (DiTConfig, "dit", {"num_timesteps": 1}, "num_timesteps = 1: must be at least 2"),
        (DiTConfig, "dit", {"beta_start": 0.0}, "beta_start = 0.0: must be greater than 0"),
        (DiTConfig, "dit", {"beta_end": 1.0}, "beta_end = 1.0: must be from beta_start to below 1"),
        (DiTConfig, "dit", {"beta_start": 0.5}, "beta_end = 0.02: must be from beta_start"),
        (REPAConfig, "repa", {"path": "cubic"}, "path = 'cubic': must be linear or gvp"),
        (
            REPAConfig,
            "repa",
            {"projection_weight": 0.0},
            "projection_weight = 0.0: must be greater",
        ),
        (
            REPAConfig,
            "repa",
            {"target": AlignmentTarget.dinov2_base},
            "target_weights = None: must be null for target in_domain, else a file below weights/",
        ),
        (
            REPAConfig,
            "repa",
            {"target_weights": "weights/x"},
            "target_weights = 'weights/x': must be null for target in_domain",
        ),
        (MaskGITConfig, "maskgit", {"schedule": "x"}, "schedule = 'x': must be cosine, linear or"),
        (MaskGITConfig, "maskgit", {"dropout": 1.0}, "dropout = 1.0: must be from 0 to below 1"),
        (MaskGITConfig, "maskgit", {"label_smoothing": 2.0}, "label_smoothing = 2.0: must be from"),
    ],
)
def test_bad_generators_are_refused(
    schema: type, name: str, changes: dict[str, Any], message: str
) -> None:
    rejects(load_group(schema, "generator", name), message, **changes)


def sampler(name: str) -> SamplerConfig:
    return load_group(SamplerConfig, "sampler", name)


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("heun", {"cfg_scale": 0.5}, "cfg_scale = 0.5: must be at least 1"),
        ("heun", {"last_step": 0.04}, "last_step = 0.04: must be given exactly for euler_maruyama"),
        ("heun", {"rtol": 0.1}, "rtol = 0.1: must be given exactly for dopri5"),
        ("heun", {"temperature": 1.0}, "temperature = 1.0: must be given exactly for confidence"),
        ("euler_maruyama", {"last_step": None}, "last_step = None: must be given exactly"),
        ("euler_maruyama", {"last_step": 1.0}, "last_step = 1.0: must be between 0 and 1"),
        ("dopri5", {"atol": None}, "atol = None: must be given exactly for dopri5"),
        ("dopri5", {"rtol": 0.0}, "rtol = 0.0: must be greater than 0"),
        ("confidence", {"temperature": -1.0}, "temperature = -1.0: must be at least 0"),
        ("halton", {"temperature": 0.0}, "temperature = 0.0: must be greater than 0"),
        ("halton", {"temperature": None}, "temperature = None: must be given exactly for conf"),
        ("heun", {"cfg_interval": [0.5]}, "cfg_interval = [0.5]: must be two numbers from 0 to 1"),
        ("heun", {"cfg_interval": [0.7, 0.7]}, "cfg_interval = [0.7, 0.7]: must be two numbers"),
        ("heun", {"cfg_interval": [0.0, 1.1]}, "cfg_interval = [0.0, 1.1]: must be two numbers"),
        ("heun", {"cfg_channels": 0}, "cfg_channels = 0: must be at least 1"),
        ("halton", {"cfg_channels": 3}, "cfg_channels = 3: must be null for tokens"),
    ],
)
def test_bad_samplers_are_refused(name: str, changes: dict[str, Any], message: str) -> None:
    rejects(sampler(name), message, **changes)


def test_published_samplers_are_as_published() -> None:
    dit, sit, repa = (
        sampler(f"{name}")
        for name in ("ddpm_guided", "euler_maruyama_guided", "euler_maruyama_interval")
    )
    assert (dit.cfg_scale, dit.cfg_channels, dit.cfg_interval) == (1.5, 3, [0, 1])
    assert (sit.cfg_scale, sit.cfg_channels, sit.last_step) == (1.5, 3, 0.04)
    assert (repa.cfg_scale, repa.cfg_channels, repa.cfg_interval) == (1.8, None, [0, 0.7])


def test_bad_data_are_refused() -> None:
    shapes = load_group(DataConfig, "data", "shapes")
    rejects(shapes, "num_classes = 13: must be from 2 to 12 for shapes", num_classes=13)
    rejects(shapes, "num_classes = None: must be from 2 to 12", num_classes=None)
    rejects(shapes, "path = None: must be set for source parquet", source=Source.parquet)
    parquet = load_group(DataConfig, "data", "parquet")
    rejects(parquet, "image_column = None: must be the name of a column", image_column=None)


def test_bad_prepare_data_is_refused() -> None:
    config = PrepareDataConfig(image_size=32, train_images=8, validation_images=None, seed=0)
    rejects(config, "image_size = 30: must be a multiple of 8", image_size=30)
    rejects(config, "image_size = 0: must be at least 8", image_size=0)
    rejects(config, "train_images = 0: must be at least 1", train_images=0)


def test_bad_network_is_refused() -> None:
    config = load_group(NetworkConfig, "network", "extractor_small")
    rejects(config, "architecture = 'x': must be one of residual", architecture="x")
    rejects(config, "widths = []: must be a list of at least 4", widths=[])
    rejects(config, "widths = [2]: must be a list of at least 4", widths=[2])
    training = TrainNetworkConfig(steps=1, batch_size=1, learning_rate=1.0, weight_decay=0.0)
    rejects(training, "weight_decay = -1.0: must be at least 0", weight_decay=-1.0)


def test_bad_measurements_are_refused() -> None:
    config = load_group(EvaluationConfig, "evaluation", "inception")
    rejects(config, "weights = None: must be a file for extractor inception", weights=None)
    rejects(config, "kid_subset_size = 1: must be at least 2", kid_subset_size=1)
    autoencoder = EvaluateAutoencoderConfig(
        num_images=20, batch_size=1, scales=[0.5], intrinsic_dimension_images=[10, 20]
    )
    rejects(autoencoder, "scales = [1.0]: must be a list of numbers in (0, 1)", scales=[1.0])
    rejects(autoencoder, "scales = [0.5, 0.5]: must be a list without rep", scales=[0.5, 0.5])
    rejects(autoencoder, "num_images = 1: must be at least 2", num_images=1)
    for counts in ([9], [10, 21]):
        given = f"intrinsic_dimension_images = {counts}: must be a list of whole numbers from 10"
        rejects(autoencoder, f"{given} to num_images 20", intrinsic_dimension_images=counts)
    generator = EvaluateGeneratorConfig(
        num_samples=8,
        num_steps=1,
        num_token_steps=1,
        micro_batch_size=1,
        grid_images=4,
        reconstructions=8,
        nearest_samples=4,
        precision=Precision.fp32,
        compile=False,
    )
    rejects(generator, "nearest_samples = 9: must be from 1 to num_samples", nearest_samples=9)
    rejects(generator, "reconstructions = 1: must be at least 2", reconstructions=1)
    in_domain = load_group(EvaluationConfig, "evaluation", "in_domain")
    rejects(in_domain, "adm_reference = 'x': must be null without inception", adm_reference="x")
    reference = ReferenceStatisticsConfig(batch_size=1, degraded_images=4)
    rejects(reference, "degraded_images = 1: must be at least 2", degraded_images=1)
    rejects(generator, "grid_images = 9: must be from 1 to num_samples", grid_images=9)
    rejects(generator, "num_token_steps = 0: must be at least 1", num_token_steps=0)
