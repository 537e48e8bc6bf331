"""Parameters as dataclasses with range checks, and `load()`, the only place that touches Hydra.

Scientific values have no default: they stand in `params/`. A group is a folder of `params/` with
one file per choice; a section is a top-level key of a profile file.
"""

from study.config.autoencoder import (
    ArmConfig,
    AutoencoderConfig,
    AutoencoderTrainingConfig,
    CacheLatentsConfig,
    Family,
    Interpolation,
    Precision,
    Reduction,
    ScaleMode,
    Trainable,
)
from study.config.cell import Cell
from study.config.checks import ConfigError, MissingInputs, StudyError
from study.config.data import (
    NO_NETWORK,
    DataConfig,
    NetworkConfig,
    PrepareDataConfig,
    Role,
    Source,
    TrainNetworkConfig,
)
from study.config.evaluation import (
    EvaluateAutoencoderConfig,
    EvaluateGeneratorConfig,
    EvaluationConfig,
    Extractor,
    ReferenceStatisticsConfig,
    SamplerConfig,
    SamplingMethod,
    Weights,
)
from study.config.generator import (
    AlignmentTarget,
    BackboneConfig,
    DiTConfig,
    GeneratorConfig,
    MaskGITConfig,
    Objective,
    REPAConfig,
    Scaling,
    SiTConfig,
    TrainGeneratorConfig,
)
from study.config.latents import LatentSpec
from study.config.load import choices, generator_group, load, load_grid, load_group, plain
from study.config.stages import STAGES

__all__ = [
    "NO_NETWORK",
    "STAGES",
    "AlignmentTarget",
    "ArmConfig",
    "AutoencoderConfig",
    "AutoencoderTrainingConfig",
    "BackboneConfig",
    "CacheLatentsConfig",
    "Cell",
    "ConfigError",
    "DataConfig",
    "DiTConfig",
    "EvaluateAutoencoderConfig",
    "EvaluateGeneratorConfig",
    "EvaluationConfig",
    "Extractor",
    "Family",
    "GeneratorConfig",
    "Interpolation",
    "LatentSpec",
    "MaskGITConfig",
    "MissingInputs",
    "NetworkConfig",
    "Objective",
    "Precision",
    "PrepareDataConfig",
    "REPAConfig",
    "Reduction",
    "ReferenceStatisticsConfig",
    "Role",
    "SamplerConfig",
    "SamplingMethod",
    "ScaleMode",
    "Scaling",
    "SiTConfig",
    "Source",
    "StudyError",
    "TrainGeneratorConfig",
    "TrainNetworkConfig",
    "Trainable",
    "Weights",
    "choices",
    "generator_group",
    "load",
    "load_grid",
    "load_group",
    "plain",
]
