"""Stage check_study: compose and check every instance of the profile before anything runs."""

from study import paths
from study.command import stage
from study.config.stages import CheckStudy
from study.preflight import check_grid
from study.tracking import Run, write_text


def main(config: CheckStudy, run: Run) -> None:
    """Check parameters, data, weights and disk; what it leaves never changes, so nothing reruns."""
    profile = config.cell.profile
    check_grid(profile)
    write_text(paths.outputs(profile, "check_study", profile) / "checked.txt", f"{profile}\n")


if __name__ == "__main__":
    stage(main, __file__, record=False)
