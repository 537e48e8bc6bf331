"""From a profile's grid to the instances of every stage, and the checks before anything runs.

`params/profile/NAME.yaml` says what is compared; `expand` turns that into the dictionaries of
`params/study.yaml`, which the `foreach` stages of `dvc.yaml` read.
"""

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from study import paths
from study.autoencoders.weights import digest_weights, local
from study.config import (
    NO_NETWORK,
    STAGES,
    AlignmentTarget,
    ArmConfig,
    AutoencoderConfig,
    Cell,
    ConfigError,
    DataConfig,
    EvaluationConfig,
    Extractor,
    REPAConfig,
    Role,
    Scaling,
    Source,
    choices,
    generator_group,
    load_grid,
    load_group,
)
from study.data.sources import digest_source

Grid = dict[str, Any]

_KEYS = {"data", "networks", "evaluation"}
_TIER_KEYS = {"seeds", "autoencoders", "generators"}
"""What is compared: of the grid or, where arms differ in seeds, of each entry of `tiers`."""
_PLANNED = "planned"
"""Tiers that do not run yet, which the report lists as not run."""
_GENERATOR_KEYS = {"generator", "autoencoder", "arms", "backbone", "sampler", "scaling"}
"""What an entry of `generators` holds."""


def read_profile(profile: str, overrides: dict[str, str] | None = None) -> Grid:
    """The `grid` section of a profile, with its keys checked.

    Args:
        profile: name of a file in `params/profile`.
        overrides: replacements of plain entries, for example the name of the data.

    Raises:
        ConfigError: unknown profile, missing or unknown key, wrong type, unknown choice.
    """
    file = f"params/profile/{profile}.yaml"
    if profile not in choices("profile"):
        raise ConfigError(f"profile = {profile!r}: must be one of {', '.join(choices('profile'))}")
    grid = load_grid(paths.PARAMS / "profile" / f"{profile}.yaml").get("grid")
    known = (_KEYS | _TIER_KEYS, _KEYS | {"tiers"})
    if not isinstance(grid, dict) or set(grid) - {_PLANNED} not in known:
        found = sorted(grid) if isinstance(grid, dict) else grid
        rule = (
            f"must have the keys {sorted(_KEYS | _TIER_KEYS)}; or {sorted(_KEYS)} and tiers; "
            f"and may have {_PLANNED}"
        )
        raise ConfigError(f"{file}: grid = {found!r}: {rule}")
    for key, value in (overrides or {}).items():
        if key not in ("data", "evaluation"):
            raise ConfigError(f"{key}={value}: only data and evaluation can be replaced here")
        grid[key] = value
    if "tiers" not in grid:
        grid["tiers"] = [{key: grid.pop(key) for key in sorted(_TIER_KEYS)}]
    grid.setdefault(_PLANNED, [])
    _check_shape(grid, file)
    return grid


def _check_shape(grid: Grid, file: str) -> None:
    """Check the grid; `tiers` and `planned` are there whichever way it was written."""

    def require(holds: bool, key: str, value: object, rule: str) -> None:
        if not holds:
            raise ConfigError(f"{file}: grid.{key} = {value!r}: must be {rule}")

    def name(group: str, key: str, value: object) -> None:
        known = choices(group)
        require(value in known, key, value, f"one of {', '.join(known)}")

    def check(tier: Any) -> None:
        known_keys = isinstance(tier, dict) and set(tier) == _TIER_KEYS
        require(known_keys, "tiers", tier, f"mappings with the keys {sorted(_TIER_KEYS)}")
        seeds = tier["seeds"]
        whole = isinstance(seeds, list) and all(type(s) is int and s >= 0 for s in seeds)
        require(whole and bool(seeds), "seeds", seeds, "a list of whole numbers from 0")
        require(
            isinstance(tier["autoencoders"], dict),
            "autoencoders",
            tier["autoencoders"],
            "a mapping of autoencoder to arms",
        )
        for autoencoder, arms in tier["autoencoders"].items():
            name("autoencoder", "autoencoders", autoencoder)
            require(isinstance(arms, list), f"autoencoders.{autoencoder}", arms, "a list of arms")
            for arm in arms:
                name("arm", f"autoencoders.{autoencoder}", arm)
        require(isinstance(tier["generators"], list), "generators", tier["generators"], "a list")
        for number, entry in enumerate(tier["generators"]):
            key = f"generators[{number}]"
            complete = isinstance(entry, dict) and set(entry) == _GENERATOR_KEYS
            require(complete, key, entry, f"a mapping with the keys {sorted(_GENERATOR_KEYS)}")
            for group in ("generator", "backbone", "sampler"):
                name(group, f"{key}.{group}", entry[group])
            require(
                entry["autoencoder"] in list(tier["autoencoders"]),
                f"{key}.autoencoder",
                entry["autoencoder"],
                "one of the autoencoders beside it",
            )
            known = tier["autoencoders"][entry["autoencoder"]]
            require(
                isinstance(entry["arms"], list) and all(arm in known for arm in entry["arms"]),
                f"{key}.arms",
                entry["arms"],
                f"a list of arms among {known}",
            )
            scalings = list(Scaling.__members__)
            require(
                entry["scaling"] in scalings,
                f"{key}.scaling",
                entry["scaling"],
                f"one of {', '.join(scalings)}",
            )

    name("data", "data", grid["data"])
    name("evaluation", "evaluation", grid["evaluation"])
    for key in ("tiers", _PLANNED):
        require(isinstance(grid[key], list), key, grid[key], "a list")
        for tier in grid[key]:
            check(tier)
    for role in _roles(grid):
        name("network", "networks", network_of(role, grid))


def expand(profile: str, grid: Grid) -> Grid:
    """Dictionaries of instances by stage: instance name to the choices its command is given.

    What only `planned` tiers have stands apart, under `planned`: no stage reads it.

    Raises:
        ConfigError: two entries of the grid give one instance with different choices.
    """
    stages = _expand(profile, grid)
    selected: Grid = {"profile": profile} | stages
    if grid.get(_PLANNED):
        every = _expand(profile, grid | {"tiers": [*grid["tiers"], *grid[_PLANNED]]})
        selected[_PLANNED] = {
            stage: left
            for stage, cells in every.items()
            if (left := {name: cells[name] for name in cells if name not in stages[stage]})
        }
    return selected


def _expand(profile: str, grid: Grid) -> Grid:
    base = Cell(profile=profile)
    data = Cell(profile=profile, data=grid["data"])
    stages: dict[str, list[tuple[Cell, dict[str, str]]]] = {name: [] for name in STAGES}

    def add(stage: str, cell: Cell, **extra: str) -> None:
        known = next((old for old, _ in stages[stage] if old.instance == cell.instance), None)
        if known is None:
            stages[stage].append((cell, extra))
        elif known != cell:
            rule = "must differ in autoencoder, generator or scaling, or share backbone and sampler"
            raise ConfigError(
                f"params/profile/{profile}.yaml: grid.generators: two entries are {cell.instance}: "
                f"{rule}"
            )

    def made(cell: Cell, **choice: Any) -> Cell:
        return Cell(**(asdict(cell) | choice))

    add("check_study", base)
    add("prepare_data", data, source=_source("data", grid["data"], base))
    for role in _roles(grid):
        add("train_network", made(data, role=role.value, network=network_of(role, grid)))
    second, folder = NO_NETWORK, paths.outputs(profile, "check_study", profile)
    if Role.extractor_self_supervised in _roles(grid):
        second = network_of(Role.extractor_self_supervised, grid)
        folder = paths.network(data, Role.extractor_self_supervised.value)
    ruler = str(folder.relative_to(paths.ROOT))
    measured = made(data, network=second, evaluation=grid["evaluation"])
    add("reference_statistics", measured, source=ruler)
    for tier in grid["tiers"]:
        for seed in tier["seeds"]:
            for autoencoder, arms in tier["autoencoders"].items():
                weights = load_group(AutoencoderConfig, "autoencoder", autoencoder).weights
                trained = made(data, autoencoder=autoencoder, seed=seed)
                if weights is None:
                    add("pretrain_autoencoder", made(trained, seed=paths.PRETRAINING_SEED))
                    origin = str(paths.pretrained(trained).relative_to(paths.ROOT))
                else:
                    origin = _source("autoencoder", autoencoder, base)
                for arm in arms:
                    cell = made(trained, arm=arm)
                    adopted = load_group(ArmConfig, "arm", arm).weights is not None
                    source = _source("arm", arm, base) if adopted else origin
                    add("finetune_autoencoder", cell, source=source)
                    add("evaluate_autoencoder", made(cell, evaluation=grid["evaluation"]))
            for entry in tier["generators"]:
                target = alignment(entry)
                for arm in entry["arms"]:
                    latents = made(data, autoencoder=entry["autoencoder"], arm=arm, seed=seed)
                    add("cache_latents", latents)
                    cell = made(
                        latents,
                        generator=entry["generator"],
                        scaling=entry["scaling"],
                        backbone=entry["backbone"],
                    )
                    source = str(paths.latents(latents).relative_to(paths.ROOT))
                    if target is not None and target.target is AlignmentTarget.in_domain:
                        source = str(paths.network(data, "target").relative_to(paths.ROOT))
                    elif target is not None and _local(target.target_weights):
                        source = _source("generator", entry["generator"], base)
                    add("train_generator", cell, source=source)
                    add(
                        "evaluate_generator",
                        Cell(
                            **asdict(made(cell, sampler=entry["sampler"]))
                            | {"backbone": None, "evaluation": grid["evaluation"]}
                        ),
                        source=ruler,
                    )
    add("render_report", base)
    return {
        stage: {
            cell.instance: {k: v for k, v in asdict(cell).items() if v is not None} | extra
            for cell, extra in cells
        }
        for stage, cells in stages.items()
    }


def alignment(entry: dict[str, Any]) -> REPAConfig | None:
    """What the generator of an entry aligns with; None where it does not."""
    config = generator_group(entry["generator"])
    return config if isinstance(config, REPAConfig) else None


def autoencoders(grid: Grid) -> list[str]:
    """Autoencoders of all tiers, each once."""
    return list(dict.fromkeys(name for tier in grid["tiers"] for name in tier["autoencoders"]))


def arms(grid: Grid, autoencoder: str) -> list[str]:
    """Arms of an autoencoder in all tiers, each once."""
    tiers = (tier["autoencoders"].get(autoencoder, []) for tier in grid["tiers"])
    return list(dict.fromkeys(arm for some in tiers for arm in some))


def generators(grid: Grid) -> list[dict[str, Any]]:
    """Entries of all tiers."""
    return [entry for tier in grid["tiers"] for entry in tier["generators"]]


def _roles(grid: Grid) -> list[Role]:
    """Networks that the grid needs.

    What REPA aligns with only where there is REPA; the second extractor where generators are
    measured by the first.
    """
    targets = [config.target for e in generators(grid) if (config := alignment(e))]
    evaluation = load_group(EvaluationConfig, "evaluation", grid["evaluation"])
    needed = {
        Role.target: AlignmentTarget.in_domain in targets,
        Role.extractor_self_supervised: bool(generators(grid))
        and evaluation.extractor is Extractor.in_domain,
    }
    return [role for role in Role if needed.get(role, True)]


def network_of(role: Role, grid: Grid) -> str:
    """File of `params/network`: the role, in the grid's size."""
    return f"{role.value}_{grid['networks']}"


def _source(group: str, name: str, cell: Cell) -> str:
    """Manifest of a local input; where there is none, the output every instance waits for."""
    file = manifest_file(group, name)
    path = file if file.is_file() else paths.outputs(cell.profile, "check_study", cell.profile)
    return str(path.relative_to(paths.ROOT))


def manifest_file(group: str, name: str) -> Path:
    """Manifest of a local input: names, sizes and digests; stages depend on it, not on the tree."""
    return paths.PARAMS / "inputs" / f"{group}-{name}.json"


def write_manifests(grid: Grid) -> None:
    """Describe the grid's local data and weights, so that a changed input reruns what it feeds.

    An input that is not there keeps its manifest: results can be looked at without it.
    """
    data = load_group(DataConfig, "data", grid["data"])
    if data.source in (Source.parquet, Source.image_folder):
        _refresh(manifest_file("data", grid["data"]), str(data.path), lambda: digest_source(data))
    for name in autoencoders(grid):
        config = load_group(AutoencoderConfig, "autoencoder", name)
        if local(config):
            file = manifest_file("autoencoder", name)
            _refresh(file, str(config.weights), partial(digest_weights, config))
        for arm in arms(grid, name):
            own = config.of_arm(load_group(ArmConfig, "arm", arm))
            if own is not config:
                file = manifest_file("arm", arm)
                _refresh(file, str(own.weights), partial(digest_weights, own))
    for entry in generators(grid):
        target = alignment(entry)
        if target is not None and _local(target.target_weights):
            file, weights = manifest_file("generator", entry["generator"]), target.target_weights
            _refresh(file, str(weights), partial(_digest, str(weights)))


def _local(weights: str | None) -> bool:
    return weights is not None and weights.startswith("weights/")


def _digest(weights: str) -> dict[str, Any]:
    content = (paths.ROOT / weights).read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    return {"path": weights, "size": len(content), "sha256": digest}


def _refresh(file: Path, path: str, digest: Callable[[], dict[str, Any]]) -> None:
    if (paths.ROOT / path).exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(digest(), indent=1) + "\n")
