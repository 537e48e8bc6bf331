"""Stage `render_report`: finished metrics of the current grid to `reports/<profile>/`."""

from study import paths, tracking
from study.command import stage
from study.config import ConfigError, load_grid
from study.config.claims import load_claims
from study.config.stages import RenderReport
from study.report.render import render
from study.tracking import Run


def main(config: RenderReport, run: Run) -> None:
    """Render the report, then make MLflow show the same cells; `run` records nothing."""
    grid = load_grid(paths.GRID)
    profile = config.cell.profile
    if grid.get("profile") != profile:
        shown = paths.shown(paths.GRID)
        raise ConfigError(f"{shown}: profile = {grid.get('profile')!r}: must be {profile!r}")
    render(grid, load_claims(paths.PARAMS / "claims.yaml"))
    tracking.sync(profile)


if __name__ == "__main__":
    # A metrics file of the report would change what the report is made of.
    stage(main, __file__, record=False)
