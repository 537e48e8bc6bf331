"""The protocol block under a table: how its numbers were made, common values once."""

import json
from typing import Any

Cells = dict[tuple[str, str], dict[str, Any]]

# Choices tried as the explanation of a value that differs between cells, in this order.
_EXPLAINS = ("generator", "autoencoder", "arm", "role", "data", "scaling", "seed")


def protocol_lines(cells: Cells, stage: str) -> list[str]:
    """Markdown list of a stage's protocol: one line per entry, with who has which value."""
    found = [
        (content["cell"], flatten(content["protocol"]))
        for (name, _), content in cells.items()
        if name == stage and content.get("protocol")
    ]
    keys = dict.fromkeys(key for _, entries in found for key in entries)
    return [f"- {key}: {_values([(cell, e.get(key)) for cell, e in found])}" for key in keys]


def flatten(nested: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested dictionaries as one, keys joined by dots."""
    flat: dict[str, Any] = {}
    for key, value in nested.items():
        if isinstance(value, dict):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def text(value: Any) -> str:
    """A value as a reader wants it: plain strings, short numbers, lists without quotes."""
    if value is None:
        return "none"
    if isinstance(value, list):
        return ", ".join(text(item) for item in value) or "none"
    if isinstance(value, float):
        return f"{value:.6g}"
    return value if isinstance(value, str) else json.dumps(value)


def _values(pairs: list[tuple[dict[str, Any], Any]]) -> str:
    shown = [(cell, text(value)) for cell, value in pairs]
    if len({value for _, value in shown}) == 1:
        return shown[0][1]
    for choice in _EXPLAINS:
        groups: dict[str, set[str]] = {}
        for cell, value in shown:
            groups.setdefault(str(cell.get(choice)), set()).add(value)
        if len(groups) > 1 and all(len(values) == 1 for values in groups.values()):
            return _by_value({name: values.pop() for name, values in groups.items()})
    return "differs from cell to cell (see the metrics files)"


def _by_value(values: dict[str, str]) -> str:
    if all(value == name for name, value in values.items()):
        return ", ".join(values)
    holders: dict[str, list[str]] = {}
    for name, value in values.items():
        holders.setdefault(value, []).append(name)
    return "; ".join(f"{value} ({', '.join(names)})" for value, names in holders.items())
