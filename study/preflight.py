"""Checks before anything runs: parameters of every instance, data, weights, disk; and selecting."""

import shutil
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from study import paths
from study.autoencoders.weights import check_weights, downsampling_factor
from study.config import (
    STAGES,
    AlignmentTarget,
    ArmConfig,
    AutoencoderConfig,
    AutoencoderTrainingConfig,
    BackboneConfig,
    Cell,
    ConfigError,
    DataConfig,
    DiTConfig,
    EvaluationConfig,
    Extractor,
    Family,
    MaskGITConfig,
    MissingInputs,
    NetworkConfig,
    Objective,
    Role,
    SamplingMethod,
    Weights,
    load,
    load_grid,
    load_group,
)
from study.config.claims import load_claims
from study.config.generator_rules import (
    check_grids,
    check_sampler,
    check_target,
    require_file,
    require_lpips,
)
from study.config.stages import (
    EvaluateAutoencoder,
    EvaluateGenerator,
    FinetuneAutoencoder,
    PrepareData,
    PretrainAutoencoder,
    ReferenceStatistics,
    TrainGenerator,
    TrainNetwork,
)
from study.data.sources import check_source
from study.grid import (
    Grid,
    alignment,
    arms,
    autoencoders,
    expand,
    generators,
    network_of,
    read_profile,
    write_manifests,
)

INCEPTION_FEATURES = 2048
FEW_SAMPLES = "smoke"
"""The one profile whose distances may be of fewer images than twice the feature dimension."""
SMALLEST_SIDE_WITH_DISCRIMINATOR = 32
"""A quarter of it, 8 pixels, is the smallest input of a PatchGAN with 2 x 2 outputs."""
LEAST_FREE_BYTES = 2e9
"""Free disk space below which nothing is started."""
_ODE_AND_SDE = (
    SamplingMethod.euler,
    SamplingMethod.heun,
    SamplingMethod.dopri5,
    SamplingMethod.euler_maruyama,
)
SAMPLERS = {
    Objective.dit: (SamplingMethod.ddpm, SamplingMethod.ddim),
    Objective.sit: _ODE_AND_SDE,
    Objective.repa: _ODE_AND_SDE,
    Objective.maskgit: (SamplingMethod.confidence, SamplingMethod.halton),
}
_HEADER = """\
# The grid of the selected profile, written by `python -m study use {profile}`. Do not edit: edit
# params/profile/{profile}.yaml and select it again.
"""


def select(profile: str, overrides: dict[str, str], inputs: bool = True) -> Path:
    """Check a profile and write its instances to `params/study.yaml`.

    Args:
        profile: name of a file in `params/profile`.
        overrides: replacements, as `read_profile` takes them.
        inputs: False: data and weights need not be there; results can be looked at, not made.

    Raises:
        ConfigError: bad parameters, missing data or weights; nothing is written then.
    """
    from omegaconf import OmegaConf

    load_claims(paths.PARAMS / "claims.yaml")
    grid = read_profile(profile, overrides)
    check_instances(expand(profile, grid))
    if inputs:
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
    load_claims(paths.PARAMS / "claims.yaml")
    check_instances(selected)
    item = next(iter(selected["reference_statistics"].values()))
    chosen = {key: item[key] for key in ("data", "evaluation")}
    check_inputs(profile, read_profile(profile, chosen))


def check_instances(selected: Grid) -> None:
    """Compose and range-check every instance, and what two sections must agree on."""
    for stage, schema in STAGES.items():
        for item in selected[stage].values():
            choice = {key: value for key, value in item.items() if key != "source"}
            config = load(schema, Cell(**choice))
            match config:
                case TrainGenerator():
                    _check_generator(config)
                case EvaluateGenerator():
                    _check_sampling(config, selected)
                    _check_count(selected, "evaluate_generator", "num_samples", config)
                    _check_count(selected, "evaluate_generator", "reconstructions", config)
                case ReferenceStatistics():
                    _check_count(selected, "reference_statistics", "degraded_images", config)
                case EvaluateAutoencoder():
                    _check_count(selected, "evaluate_autoencoder", "num_images", config)
                case PretrainAutoencoder():
                    _check_training(config, "pretrain_autoencoder", config.pretrain_autoencoder)
                case FinetuneAutoencoder():
                    _check_training(config, "finetune_autoencoder", config.finetune_autoencoder)
                    _check_arm(config)
                case TrainNetwork() if config.network.role.value != config.cell.role:
                    file = f"params/network/{config.cell.network}.yaml"
                    given = f"role = {config.network.role.value!r}"
                    raise ConfigError(f"{file}: {given}: must be {config.cell.role!r}")


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


def _check_sampling(config: EvaluateGenerator, selected: Grid) -> None:
    cell, method = config.cell, config.sampler.method
    allowed = _samplers(config)
    if method not in allowed:
        known = ", ".join(each.value for each in allowed)
        raise ConfigError(
            f"params/sampler/{cell.sampler}.yaml: method = {method.value!r}: must be one of "
            f"{known} for generator {cell.generator}"
        )
    check_sampler(str(cell.sampler), config.sampler)
    if config.sampler.weights is Weights.raw:
        choice = selected["train_generator"][cell.instance].items()
        trained = load(TrainGenerator, Cell(**{k: v for k, v in choice if k != "source"}))
        if not trained.train_generator.raw_weights:
            rule = f"needs train_generator.raw_weights true in params/profile/{cell.profile}.yaml"
            raise ConfigError(f"params/sampler/{cell.sampler}.yaml: weights = 'raw': {rule}")
    steps = config.evaluate_generator.num_steps
    if isinstance(config.generator, DiTConfig) and steps > config.generator.num_timesteps:
        raise ConfigError(
            f"params/profile/{cell.profile}.yaml: evaluate_generator.num_steps = {steps}: must be "
            f"at most num_timesteps {config.generator.num_timesteps} of generator {cell.generator}"
        )


def _samplers(config: EvaluateGenerator) -> tuple[SamplingMethod, ...]:
    """Sampling methods of a generator; one of EXTENSIONS names its own."""
    known = SAMPLERS.get(config.generator.objective)
    return known or sys.modules[type(config.generator).__module__].SAMPLERS


def _check_count(
    selected: Grid,
    section: str,
    field: str,
    config: EvaluateGenerator | EvaluateAutoencoder | ReferenceStatistics,
) -> None:
    """Images of a distance, and those it is to: twice the feature dimension, and there."""
    cell, evaluation = config.cell, config.evaluation
    few = evaluation.allow_few_samples
    if few and cell.profile != FEW_SAMPLES:
        given = f"params/evaluation/{cell.evaluation}.yaml: allow_few_samples = True"
        rule = f"must be false for profile {cell.profile}; only {FEW_SAMPLES} may be so small"
        raise ConfigError(f"{given}: {rule}")
    count = getattr(getattr(config, section), field)
    images = load(PrepareData, cell.only("data")).prepare_data
    networks = {item["role"]: item["network"] for item in selected["train_network"].values()}
    measuring = {Role.extractor.value, Role.extractor_self_supervised.value} & networks.keys()
    features = max(load_group(NetworkConfig, "network", networks[r]).features for r in measuring)
    least = 2 * (features if evaluation.extractor is Extractor.in_domain else INCEPTION_FEATURES)
    reference = None if evaluation.adm_reference else images.train_images
    file = f"params/profile/{cell.profile}.yaml"
    for name, n in ((f"{section}.{field}", count), ("prepare_data.train_images", reference)):
        if n is not None and n < least and not few:
            rule = f"at least {least}, twice the feature dimension"
            raise ConfigError(f"{file}: {name} = {n}: must be {rule}")
    of = "train_images" if field == "reconstructions" else "validation_images"
    there = None if field == "num_samples" else getattr(images, of)
    if there is not None and count > there:
        rule = f"at most prepare_data.{of} {there}"
        raise ConfigError(f"{file}: {section}.{field} = {count}: must be {rule}")


def _check_training(
    config: PretrainAutoencoder | FinetuneAutoencoder,
    section: str,
    training: AutoencoderTrainingConfig,
) -> None:
    cell = config.cell
    images = load(PrepareData, cell.only("data")).prepare_data
    file = f"params/profile/{cell.profile}.yaml"
    weight, side = training.adversarial_weight, images.image_size
    if weight and side < SMALLEST_SIDE_WITH_DISCRIMINATOR:
        raise ConfigError(
            f"{file}: prepare_data.image_size = {side}: must be at least "
            f"{SMALLEST_SIDE_WITH_DISCRIMINATOR} with adversarial_weight {weight}"
        )
    count, there = training.monitor_images, images.validation_images
    if there is not None and count > there:
        rule = f"at most prepare_data.validation_images {there}"
        raise ConfigError(f"{file}: {section}.monitor_images = {count}: must be {rule}")


def _check_arm(config: FinetuneAutoencoder) -> None:
    family = config.autoencoder.family
    if config.arm.after_quantisation and family is not Family.vq:
        raise ConfigError(
            f"params/arm/{config.cell.arm}.yaml: after_quantisation = True: must be false for "
            f"family {family.value!r} of {config.cell.autoencoder}"
        )


def check_inputs(profile: str, grid: Grid) -> None:
    """Check that data and weights are there and readable, and that outputs fit on the disk.

    Raises:
        ConfigError: one thing is missing or wrong.
        MissingInputs: several are, a line each.
    """
    faults: list[str] = []
    for check in _input_checks(profile, grid):
        try:
            check()
        except ConfigError as error:
            faults.append(str(error))
    faults = list(dict.fromkeys(faults))
    if len(faults) == 1:
        raise ConfigError(faults[0])
    if faults:
        raise MissingInputs("\n".join(faults))


def _input_checks(profile: str, grid: Grid) -> Iterator[Callable[[], None]]:
    prepare = load(PrepareData, Cell(profile=profile, data=grid["data"])).prepare_data
    data = load_group(DataConfig, "data", grid["data"])
    yield partial(check_source, data, prepare)
    for name in autoencoders(grid):
        config = load_group(AutoencoderConfig, "autoencoder", name)
        yield partial(_check_autoencoder, profile, grid, name, config, prepare.image_size)
        for arm in arms(grid, name):
            yield partial(check_weights, config.of_arm(load_group(ArmConfig, "arm", arm)))
    for entry in generators(grid):
        if (target := alignment(entry)) is not None:
            yield partial(check_target, entry["generator"], target)
    file, sections = (
        f"params/profile/{profile}.yaml",
        load_grid(paths.PARAMS / "profile" / f"{profile}.yaml"),
    )
    for section in ("pretrain_autoencoder", "finetune_autoencoder"):
        if section in sections:
            yield partial(require_lpips, f"{file}: {section}.lpips", sections[section]["lpips"])
    file = f"params/evaluation/{grid['evaluation']}.yaml"
    evaluation = load_group(EvaluationConfig, "evaluation", grid["evaluation"])
    yield partial(require_lpips, f"{file}: lpips", evaluation.lpips)
    for field in ("weights", "adm_reference"):
        yield partial(require_file, f"{file}: {field}", getattr(evaluation, field))
    yield _check_disk


def _check_autoencoder(
    profile: str, grid: Grid, name: str, config: AutoencoderConfig, side: int
) -> None:
    """Weights, and whether sides are multiples of what autoencoder and patches ask for."""
    check_weights(config)
    factor = downsampling_factor(config)
    entries = [entry for entry in generators(grid) if entry["autoencoder"] == name]
    backbones = [load_group(BackboneConfig, "backbone", e["backbone"]) for e in entries]
    for patch in sorted({backbone.patch_size for backbone in backbones} | {1}):
        if factor and side % (factor * patch):
            raise ConfigError(
                f"params/profile/{profile}.yaml: prepare_data.image_size = {side}: must be a "
                f"multiple of {factor * patch}: factor {factor} of {name}, patch size {patch}"
            )
    for entry, backbone in zip(entries, backbones, strict=True):
        target = alignment(entry)
        if factor and target and target.target is AlignmentTarget.in_domain:
            network = network_of(Role.target, grid)
            widths = load_group(NetworkConfig, "network", network).widths
            check_grids(network, widths, backbone, factor, name)


def _check_disk() -> None:
    free = shutil.disk_usage(paths.ROOT).free
    if free < LEAST_FREE_BYTES:
        rule = f"at least {LEAST_FREE_BYTES / 1e9:.0f} GB"
        raise ConfigError(f"free disk space = {free / 1e9:.1f} GB: must be {rule}")
