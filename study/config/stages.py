"""Which groups and which section each stage composes: the type of its configuration.

A field named like a folder of `params/` is a group, any other a section of the profile.
"""

from dataclasses import dataclass

from study.config.autoencoder import (
    ArmConfig,
    AutoencoderConfig,
    AutoencoderTrainingConfig,
    CacheLatentsConfig,
)
from study.config.cell import Cell
from study.config.data import DataConfig, NetworkConfig, PrepareDataConfig, TrainNetworkConfig
from study.config.evaluation import (
    EvaluateAutoencoderConfig,
    EvaluateGeneratorConfig,
    EvaluationConfig,
    ReferenceStatisticsConfig,
    SamplerConfig,
)
from study.config.generator import BackboneConfig, GeneratorConfig, TrainGeneratorConfig


@dataclass(kw_only=True, slots=True)
class StageConfig:
    """What every stage has: its cell."""

    cell: Cell


@dataclass(kw_only=True, slots=True)
class CheckStudy(StageConfig):
    """Composes every other instance itself."""


@dataclass(kw_only=True, slots=True)
class PrepareData(StageConfig):
    """Source and size of the images."""

    data: DataConfig
    prepare_data: PrepareDataConfig


@dataclass(kw_only=True, slots=True)
class TrainNetwork(StageConfig):
    """An in-domain network of one role."""

    network: NetworkConfig
    train_network: TrainNetworkConfig


@dataclass(kw_only=True, slots=True)
class ReferenceStatistics(StageConfig):
    """Feature statistics of real images."""

    evaluation: EvaluationConfig
    reference_statistics: ReferenceStatisticsConfig


@dataclass(kw_only=True, slots=True)
class PretrainAutoencoder(StageConfig):
    """An autoencoder from scratch."""

    autoencoder: AutoencoderConfig
    pretrain_autoencoder: AutoencoderTrainingConfig


@dataclass(kw_only=True, slots=True)
class FinetuneAutoencoder(StageConfig):
    """An arm: the same budget for all, with or without transforms."""

    autoencoder: AutoencoderConfig
    arm: ArmConfig
    finetune_autoencoder: AutoencoderTrainingConfig


@dataclass(kw_only=True, slots=True)
class EvaluateAutoencoder(StageConfig):
    """Reconstruction and equivariance error."""

    evaluation: EvaluationConfig
    evaluate_autoencoder: EvaluateAutoencoderConfig


@dataclass(kw_only=True, slots=True)
class CacheLatents(StageConfig):
    """Latents of the training images."""

    cache_latents: CacheLatentsConfig


@dataclass(kw_only=True, slots=True)
class TrainGenerator(StageConfig):
    """A generator on cached latents."""

    generator: GeneratorConfig
    backbone: BackboneConfig
    train_generator: TrainGeneratorConfig


@dataclass(kw_only=True, slots=True)
class EvaluateGenerator(StageConfig):
    """Samples and distances at every checkpoint."""

    generator: GeneratorConfig
    sampler: SamplerConfig
    evaluation: EvaluationConfig
    evaluate_generator: EvaluateGeneratorConfig


@dataclass(kw_only=True, slots=True)
class RenderReport(StageConfig):
    """Reads the grid and finished metrics only."""


STAGES: dict[str, type[StageConfig]] = {
    "check_study": CheckStudy,
    "prepare_data": PrepareData,
    "train_network": TrainNetwork,
    "reference_statistics": ReferenceStatistics,
    "pretrain_autoencoder": PretrainAutoencoder,
    "finetune_autoencoder": FinetuneAutoencoder,
    "evaluate_autoencoder": EvaluateAutoencoder,
    "cache_latents": CacheLatents,
    "train_generator": TrainGenerator,
    "evaluate_generator": EvaluateGenerator,
    "render_report": RenderReport,
}
