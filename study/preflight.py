"""Checks before anything runs: parameters of every instance, data, weights, disk; and selecting."""

import shutil
from pathlib import Path

from study import paths
from study.autoencoders.weights import check_weights
from study.config import (
    STAGES,
    AutoencoderConfig,
    Cell,
    ConfigError,
    DataConfig,
    Family,
    MaskGITConfig,
    Objective,
    REPAConfig,
    SamplingMethod,
    load,
    load_grid,
    load_group,
)
from study.config.stages import EvaluateGenerator, PrepareData, TrainGenerator
from study.data.sources import check_source
from study.grid import Grid, expand, read_profile, write_manifests

LEAST_FREE_BYTES = 2e9
"""Free disk space below which nothing is started."""

_ODE_AND_SDE = (SamplingMethod.euler, SamplingMethod.heun, SamplingMethod.euler_maruyama)
SAMPLERS = {
    Objective.dit: (SamplingMethod.ddpm, SamplingMethod.ddim),
    Objective.sit: _ODE_AND_SDE,
    Objective.repa: _ODE_AND_SDE,
    Objective.maskgit: (SamplingMethod.confidence,),
}


_HEADER = """\
# The grid of the selected profile, written by `python -m study use {profile}`. Do not edit: edit
# params/profile/{profile}.yaml and select it again.
"""


def select(profile: str, overrides: dict[str, str]) -> Path:
    """Check a profile and write its instances to `params/study.yaml`.

    Raises:
        ConfigError: bad parameters, missing data or weights; nothing is written then.
    """
    from omegaconf import OmegaConf

    grid = read_profile(profile, overrides)
    check_instances(expand(profile, grid))
    check_inputs(profile, grid)
    write_manifests(grid)
    text = _HEADER.format(profile=profile) + OmegaConf.to_yaml(
        OmegaConf.create(expand(profile, grid))
    )
    if not paths.GRID.is_file() or paths.GRID.read_text() != text:
        paths.GRID.write_text(text)
    return paths.GRID


def check_grid(profile: str) -> None:
    """Check everything that the selected profile's instances need, before anything runs.

    Raises:
        ConfigError: bad parameters, missing data or weights, another profile selected, a full disk.
    """
    selected = load_grid(paths.GRID)
    if selected.get("profile") != profile:
        rule = f"must be {profile!r}; run python -m study use {profile}"
        raise ConfigError(f"params/study.yaml: profile = {selected.get('profile')!r}: {rule}")
    check_instances(selected)
    chosen = next(iter(selected["prepare_data"].values()))["data"]
    check_inputs(profile, read_profile(profile, {"data": chosen}))


def check_instances(selected: Grid) -> None:
    """Compose and range-check every instance, and what two sections must agree on."""
    for stage, schema in STAGES.items():
        for item in selected[stage].values():
            choice = {key: value for key, value in item.items() if key != "source"}
            config = load(schema, Cell(**choice))
            if isinstance(config, TrainGenerator):
                _check_generator(config)
            elif isinstance(config, EvaluateGenerator):
                allowed = SAMPLERS[config.generator.objective]
                if config.sampler.method not in allowed:
                    known = ", ".join(method.value for method in allowed)
                    raise ConfigError(
                        f"params/sampler/{item['sampler']}.yaml: method = "
                        f"{config.sampler.method.value!r}: must be one of {known} for generator "
                        f"{item['generator']}"
                    )


def _check_generator(config: TrainGenerator) -> None:
    cell = config.cell
    family = load_group(AutoencoderConfig, "autoencoder", str(cell.autoencoder)).family
    if (family is Family.vq) != isinstance(config.generator, MaskGITConfig):
        rule = "vq for maskgit, kl or tiny for the others"
        raise ConfigError(
            f"params/profile/{cell.profile}.yaml: generator {cell.generator} on family "
            f"{family.value!r}: must be {rule}"
        )
    backbone = f"params/backbone/{cell.backbone}.yaml"
    if isinstance(config.generator, MaskGITConfig) and config.backbone.patch_size != 1:
        given = f"patch_size = {config.backbone.patch_size}"
        raise ConfigError(f"{backbone}: {given}: must be 1 for generator {cell.generator}")
    if isinstance(config.generator, REPAConfig):
        depth = config.generator.projection_depth
        if depth > config.backbone.depth:
            raise ConfigError(
                f"params/generator/{cell.generator}.yaml: projection_depth = {depth}: must be at "
                f"most depth {config.backbone.depth} of {backbone}"
            )


def check_inputs(profile: str, grid: Grid) -> None:
    """Check that data and weights are there and readable, and that outputs fit on the disk."""
    data = load_group(DataConfig, "data", grid["data"])
    cell = Cell(profile=profile, data=grid["data"])
    check_source(data, load(PrepareData, cell).prepare_data)
    for name in grid["autoencoders"]:
        check_weights(load_group(AutoencoderConfig, "autoencoder", name))
    free = shutil.disk_usage(paths.ROOT).free
    if free < LEAST_FREE_BYTES:
        rule = f"at least {LEAST_FREE_BYTES / 1e9:.0f} GB"
        raise ConfigError(f"free disk space = {free / 1e9:.1f} GB: must be {rule}")
