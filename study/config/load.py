"""`load()`: groups and sections of `params/` to checked dataclasses; nothing else touches Hydra."""

from dataclasses import fields
from enum import Enum
from functools import lru_cache
from importlib import import_module
from pathlib import Path
from types import UnionType
from typing import Any, TypeVar, get_type_hints

from study import paths
from study.config.cell import Cell
from study.config.checks import ConfigError
from study.config.generator import EXTENSIONS, OBJECTIVES, GeneratorConfig
from study.config.stages import StageConfig

Config = TypeVar("Config", bound=StageConfig)
Group = TypeVar("Group")


def load(schema: type[Config], cell: Cell) -> Config:
    """Compose and check the configuration of one stage instance.

    Args:
        schema: the stage's configuration type (`study.config.stages`).
        cell: which instance.

    Raises:
        ConfigError: one line that names file, field, value and rule.
    """
    hints = {k: v for k, v in get_type_hints(schema).items() if k != "cell"}
    if not hints:
        _require_profile(cell.profile)
        return schema(cell=cell)
    groups = {name: _choice(cell, name) for name in hints if (paths.PARAMS / name).is_dir()}
    profile = _compose("profile", cell.profile)
    values: dict[str, Any] = {}
    for name, hint in hints.items():
        if name in groups:
            values[name] = load_group(hint, name, groups[name])
        else:
            file = f"params/profile/{cell.profile}.yaml"
            if name not in profile:
                raise ConfigError(f"{file}: {name}: missing section")
            values[name] = convert(hint, profile[name], f"{file}: {name}.")
    return schema(cell=cell, **values)


def load_group(schema: type[Group], group: str, name: str) -> Group:
    """Compose and check one choice of one group.

    Raises:
        ConfigError: one line that names file, field, value and rule.
    """
    return convert(schema, _compose(group, name), f"params/{group}/{name}.yaml: ")


def generator_group(name: str) -> GeneratorConfig:
    """One choice of group `generator`, of the type that its objective has.

    Raises:
        ConfigError: one line that names file, field, value and rule.
    """
    _require_choice("generator", name)
    # Not composed: a grid asks for this often, and one file composes to itself.
    raw = load_grid(paths.PARAMS / "generator" / f"{name}.yaml")
    return convert(GeneratorConfig, raw, f"params/generator/{name}.yaml: ")


def load_grid(path: Path) -> dict[str, Any]:
    """Read a YAML file of plain names (a profile's grid, `study.yaml`) as dictionaries and lists.

    Raises:
        ConfigError: the file is missing or no YAML mapping.
    """
    from omegaconf import OmegaConf
    from yaml import YAMLError

    if not path.is_file():
        raise ConfigError(f"{paths.shown(path)}: no such file; run python -m study use PROFILE")
    try:
        values = OmegaConf.to_container(OmegaConf.load(path))
    except (YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{paths.shown(path)}: not YAML: {_one_line(error)}") from None
    if not isinstance(values, dict):
        raise ConfigError(f"{paths.shown(path)}: must be a mapping")
    return values  # type: ignore[return-value]


def choices(group: str) -> list[str]:
    """Names a group offers."""
    return sorted(path.stem for path in (paths.PARAMS / group).glob("*.yaml"))


def plain(config: Any) -> Any:
    """Dataclasses and enums as what JSON holds."""
    if isinstance(config, Enum):
        return config.value
    if hasattr(config, "__dataclass_fields__"):
        return {item.name: plain(getattr(config, item.name)) for item in fields(config)}
    if isinstance(config, dict):
        return {key: plain(value) for key, value in config.items()}
    if isinstance(config, list):
        return [plain(value) for value in config]
    return config


def _choice(cell: Cell, group: str) -> str:
    value = getattr(cell, group)
    if value is None:
        raise ConfigError(f"{group}: missing; give {group}=NAME")
    return str(value)


def _require_profile(name: str) -> None:
    _require_choice("profile", name)


def _require_choice(group: str, name: str) -> None:
    if name not in choices(group):
        known = ", ".join(choices(group))
        raise ConfigError(f"{group} = {name!r}: no file params/{group}/{name}.yaml; one of {known}")


def _compose(group: str, name: str) -> Any:
    _require_choice(group, name)
    file = paths.PARAMS / group / f"{name}.yaml"
    found = file.stat()
    return _composed(group, name, (file, found.st_mtime_ns, found.st_size))


@lru_cache(maxsize=1024)
def _composed(group: str, name: str, version: tuple[Path, int, int]) -> Any:
    """Composition of a file as it is, which all instances of that choice share."""
    from hydra import compose, initialize_config_dir
    from hydra.errors import HydraException
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException
    from yaml import YAMLError

    try:
        with initialize_config_dir(str(paths.PARAMS), version_base="1.3"):
            composed = compose(None, [f"+{group}={name}"])
        return OmegaConf.to_container(composed, resolve=True)[group]  # type: ignore[index,call-overload]
    except (HydraException, OmegaConfBaseException, YAMLError, UnicodeDecodeError) as error:
        cause = error.__cause__ or error
        raise ConfigError(f"params/{group}/{name}.yaml: {_one_line(cause)}") from None


def convert(hint: Any, values: Any, where: str) -> Any:
    """A mapping as a checked dataclass; `where` begins the message of an error.

    Raises:
        ConfigError: one line that names file, field, value and rule.
    """
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    if not isinstance(values, dict):
        raise ConfigError(f"{where.rstrip('.: ')}: must be a mapping, is {values!r}")
    schema = _objective_schema(values, where) if isinstance(hint, UnionType) else hint
    try:
        return OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(schema), values))
    except ConfigError as error:
        raise ConfigError(f"{where}{error}") from None
    except OmegaConfBaseException as error:
        key = error.full_key or ""
        given = f"{key} = {values[key]!r}" if key in values else key
        text = (error.msg or str(error)).splitlines()[0]
        rule = "missing; give a value" if "missing mandatory" in text else text
        rule = (
            f"unknown; one of {', '.join(f.name for f in fields(schema))}"
            if ("not in" in text and key not in (f.name for f in fields(schema)))
            else rule
        )
        raise ConfigError(f"{where}{given}: {rule}") from None


def _objective_schema(values: dict[str, Any], where: str) -> Any:
    name = values.get("objective")
    known = [*OBJECTIVES, *EXTENSIONS]
    if not isinstance(name, str) or name not in known:
        raise ConfigError(f"{where}objective = {name!r}: must be one of {', '.join(known)}")
    # By name: parameters may not import what they are the parameters of.
    return OBJECTIVES.get(name) or import_module(EXTENSIONS[name]).Config


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())
