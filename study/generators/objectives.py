"""From a generator's parameters to its objective."""

import sys

from study.config import DiTConfig, GeneratorConfig, MaskGITConfig, REPAConfig, SiTConfig
from study.generators.common import GeneratorObjective
from study.generators.dit import DiT
from study.generators.maskgit import MaskGIT
from study.generators.repa import REPA
from study.generators.sit import SiT
from study.generators.targets import Target


def build_objective(config: GeneratorConfig, target: Target | None = None) -> GeneratorObjective:
    """The objective of a configuration.

    Args:
        config: one of the generator dataclasses.
        target: frozen encoder of REPA; needed for training it, not for sampling.
    """
    match config:
        case DiTConfig():
            return DiT(config)
        case MaskGITConfig():
            return MaskGIT(config)
        case REPAConfig():
            return REPA(config, target)
        case SiTConfig():
            return SiT(config)
        case _:
            # One of EXTENSIONS: parameters and objective stand in one module.
            return sys.modules[type(config).__module__].build(config)
