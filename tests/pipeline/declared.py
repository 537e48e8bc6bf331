"""What `dvc.yaml` declares: stages, and what one instance of them comes to."""

import re
from typing import Any

import yaml
from clones import ROOT

from study.grid import expand, read_profile

PROFILES = ("smoke", "laptop")
STAGES: dict[str, dict[str, Any]] = {
    name: stage["do"]
    for name, stage in yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"].items()
}


def instances(profile: str) -> list[tuple[str, str, dict[str, Any]]]:
    """Stage, instance and choices of everything in a profile's grid."""
    grid = expand(profile, read_profile(profile))
    return [(stage, key, item) for stage in STAGES for key, item in grid[stage].items()]


def filled(template: Any, key: str, item: dict[str, Any]) -> Any:
    """A part of a stage with `${key}` and `${item.NAME}` replaced, as DVC does it."""
    if isinstance(template, dict):
        return {filled(k, key, item): filled(v, key, item) for k, v in template.items()}
    if isinstance(template, list):
        return [filled(value, key, item) for value in template]
    if not isinstance(template, str):
        return template
    text = template.replace("${key}", key)
    return re.sub(r"\$\{item\.(\w+)\}", lambda match: str(item[match[1]]), text)


def code(stage: str) -> list[str]:
    """Packages and modules that a stage depends on, by their dotted names."""
    paths = [dep for dep in STAGES[stage]["deps"] if dep.startswith("study")]
    return [path.removesuffix(".py").replace("/", ".") for path in paths]
