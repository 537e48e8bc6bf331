"""Writes a profile's report from its metrics files: tables, figures, and the text twice."""

from pathlib import Path
from typing import Any

import pandas as pd

from study import paths
from study.config.claims import Claim
from study.report.arms import arms_figure, compared_arms
from study.report.claims import claims_table, endpoints_table, headline
from study.report.comparison import claim_sections, not_run_claims, verdict_table
from study.report.controls import scaling_table, schedule_table
from study.report.curves import convergence, training
from study.report.detail import detail
from study.report.findings import findings, other_recipes, scope
from study.report.fine_tuning import fine_tuning_figure, fine_tuning_table
from study.report.forest import forests
from study.report.gains import gains_table
from study.report.headline import caption, headline_figure
from study.report.measurement import measurement
from study.report.page import page
from study.report.pictures import pictures
from study.report.protocol import Cells, protocol_lines
from study.report.results import collect, costs, instances, not_run, read, summarise, write_csv
from study.report.spectra import spectra
from study.report.speed import speed_up_table
from study.report.strips import strips
from study.report.table import Table
from study.report.tables import autoencoder_table, cost_table, generator_table, quality_table
from study.report.transforms import equivariance_table, transformed_table
from study.report.verdicts import Judged, judge
from study.tracking import write_text

_TEMPLATE = Path(__file__).with_name("report.md.j2")
_PROTOCOLS = {
    **dict.fromkeys(("claims", "endpoints"), ("evaluate_autoencoder", "evaluate_generator")),
    **dict.fromkeys(("autoencoders", "equivariance", "transformed"), ("evaluate_autoencoder",)),
    "fine_tuning": ("finetune_autoencoder",),
    **dict.fromkeys(("generators", "gains", "sample_quality", "speed_up"), ("evaluate_generator",)),
}
"""Stages whose numbers a table holds; their protocol stands under it."""


def render(grid: dict[str, Any], claims: list[Claim]) -> None:
    """Write `reports/<profile>/`, apart from the metrics it is made of.

    Args:
        grid: `params/study.yaml`.
        claims: what is judged, and by which rules.

    Raises:
        ConfigError: a metrics file is damaged.
    """
    folder = paths.report(grid["profile"])
    root, figures = folder / "metrics", folder / "figures"
    cells, results, spent = read(grid, root), collect(grid, root), costs(grid, root)
    write_csv(results, folder / "results.csv")
    write_csv(summarise(results), folder / "summary.csv")
    write_csv(spent, folder / "costs.csv")
    judged = judge(claims, grid, results)
    tables = {
        "claims": claims_table(judged, grid, cells, spent),
        "endpoints": endpoints_table(judged),
        "autoencoders": autoencoder_table(grid, results),
        "equivariance": equivariance_table(grid, results),
        "transformed": transformed_table(grid, results),
        "fine_tuning": fine_tuning_table(grid, results, spent),
        "generators": generator_table(grid, results),
        "gains": gains_table(grid, results),
        "sample_quality": quality_table(grid, results),
        "speed_up": speed_up_table(grid, results, cells),
        "scalings": scaling_table(grid, results),
        "schedules": schedule_table(grid, results),
        "costs": cost_table(grid, spent),
    }
    for name, stages in _PROTOCOLS.items():
        for stage in stages if tables[name].shown else ():
            tables[name].notes += _protocol(cells, stage)
    tables["verdicts"] = verdict_table(judged, tables["endpoints"])
    tables["costs"].notes += ["\n".join(_machines(cells))]
    for table in tables.values():
        table.write(folder / "tables")
    convergence(grid, results, figures / "convergence")
    arms_figure(grid, results, figures / "arms")
    training(grid, root, figures / "training")
    fine_tuning_figure(grid, root, figures / "fine_tuning")
    pictures(grid, "evaluate_generator", root, figures / "samples.png")
    strips(grid, root, figures)
    spectra(grid, root, figures / "spectra")
    detail(grid, root, figures / "detail")
    headline_figure(grid, results, tables["speed_up"], figures / "headline")
    forests(judged, tables["endpoints"], figures / "claims")
    text = _report(grid, root, cells, results, spent, judged, tables)
    write_text(folder / "report.md", text)
    write_text(folder / "report.html", page(text, folder))


def _report(
    grid: dict[str, Any],
    root: Path,
    cells: Cells,
    results: pd.DataFrame,
    spent: pd.DataFrame,
    judged: list[Judged],
    tables: dict[str, Table],
) -> str:
    from jinja2 import Environment, StrictUndefined

    missing, planned = not_run(grid, root), list(instances(grid))
    engine = Environment(
        undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True
    )
    in_tables = {stage for some in _PROTOCOLS.values() for stage in some}
    stages = dict.fromkeys(stage for stage, _ in cells if stage not in in_tables)
    blocks = {stage: "\n".join(protocol_lines(cells, stage)) for stage in stages}
    values = {name: table.markdown() for name, table in tables.items()} | {
        "profile": grid["profile"],
        "scope": scope(grid["profile"]),
        "findings": findings(grid, results, len(missing), len(planned)),
        "other_recipes": other_recipes(grid, results),
        "not_run": missing,
        "counts": [headline(judged)],
        "headline_caption": caption(grid, results, tables["speed_up"]),
        "notes": _notes(grid["profile"]),
        "claims": claim_sections(judged, grid, cells, tables["claims"], tables["endpoints"]),
        "unjudged": not_run_claims(judged),
        "with_arms": bool(compared_arms(grid, results)),
        "with_gains": bool(tables["gains"].shown),
        "with_scalings": bool(tables["scalings"].shown),
        "with_schedules": bool(tables["schedules"].shown),
        "with_generators": any(stage == "evaluate_generator" for stage, _, _ in planned),
        "measurement": measurement(results),
        "protocol": blocks,
        "other_stages": [stage for stage in stages if blocks[stage]],
        "images": _real_images(grid, root),
        "commits": sorted(set(spent["commit"].dropna())),
    }
    return engine.from_string(_TEMPLATE.read_text()).render(values)


def _notes(profile: str) -> str:
    """What was written by hand about a profile's results; empty without."""
    file = paths.ROOT / "reports" / "notes" / f"{profile}.md"
    return file.read_text().strip() if file.is_file() else ""


def _protocol(cells: Cells, stage: str) -> list[str]:
    lines = protocol_lines(cells, stage)
    head = f"<details>\n<summary>Protocol of <code>{stage}</code></summary>"
    return [head, "\n".join(lines), "</details>"] if lines else []


def _real_images(grid: dict[str, Any], root: Path) -> list[str]:
    names = [f"{s}/{name}.png" for s, name, _ in instances(grid) if s == "prepare_data"]
    return [name for name in names if (root / name).is_file()]


def _machines(cells: Cells) -> list[str]:
    """Devices and versions, each with the number of cells it ran."""
    counts: dict[str, int] = {}
    for content in cells.values():
        made = content.get("environment", {})
        device = made.get("gpu") or f"CPU, {made.get('threads')} threads"
        line = f"{device}, torch {made.get('torch')}, Python {made.get('python')}"
        counts[line] = counts.get(line, 0) + 1
    return [f"- {line}: {number} cells" for line, number in sorted(counts.items())]
