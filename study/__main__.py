"""The `study` command: select a profile, check it, show finished runs in MLflow.

Stages are run by `dvc repro`. Exit code 2: something the user gave is wrong; one line says what.
"""

import argparse
import os
import sys

from study import paths
from study.command import one_line_errors
from study.commands import add_command, add_grid, add_parsers

_EPILOG = """\
exit codes:
  0    done
  1    could not go on: no space, diverged; doctor, verify: found a fault; grid: an instance failed
  2    something given is wrong; one line on stderr says which file, field, value and rule
  141  nobody reads the output any more
  143  stopped together with what had started it

examples:
  python -m study use laptop && dvc repro
  python -m study COMMAND --help
"""

_NO_READER = 141
"""As a shell counts it: 128 and the number of SIGPIPE."""


def main(arguments: list[str] | None = None) -> int:
    """Parse and run a subcommand."""
    options = _parser().parse_args(arguments)
    try:
        with one_line_errors():
            options.run(options)
            sys.stdout.flush()
    except BrokenPipeError:
        # Who reads, such as head, has seen enough; what is left at exit has no reader either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _NO_READER
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m study",
        description="Select a profile, check it, show finished runs; stages are run by dvc repro.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    use = add_command(
        commands,
        "use",
        _use,
        "select a profile for dvc repro",
        "Check a profile and write its instances to params/study.yaml.",
        "use smoke",
        "use images data=image_folder",
    )
    use.add_argument("profile", help="a file of params/profile, without .yaml")
    use.add_argument("replace", nargs="*", metavar="KEY=NAME", help="data=NAME, evaluation=NAME")
    use.add_argument(
        "--without-inputs",
        action="store_true",
        help="data and weights need not be there: to look at finished results",
    )
    add_command(
        commands,
        "check",
        _check,
        "check the selected profile, its data and weights",
        "Check every instance of the selected profile, its data, weights and disk; run nothing.",
        "check",
    )
    track = add_command(
        commands,
        "track",
        _track,
        "show a profile's finished stages in MLflow",
        "Make MLflow show a profile's metrics files, for make ui; repeating it changes nothing.",
        "track",
        "track autoencoders",
    )
    track.add_argument("profile", nargs="?", help="default: the selected profile")
    verify = add_command(
        commands,
        "verify",
        _verify,
        "check that committed results follow from the code beside them",
        "Check out the commit of a profile's results in a worktree, ask DVC whether anything is "
        "left to run there, and list what was edited since; exit code 1 if something is left.",
        "verify autoencoders",
    )
    verify.add_argument("profile", help="a profile whose report is committed")
    doctor = add_command(
        commands,
        "doctor",
        _doctor,
        "look for faults of machine, checkout and inputs",
        "Print one line a fault, with its cure; exit code 1 if there is one.",
        "doctor",
        "doctor --json",
    )
    doctor.add_argument("--json", action="store_true", help="everything that was looked at")
    add_grid(commands)
    add_parsers(commands)
    return parser


def _use(options: argparse.Namespace) -> None:
    from study.config import ConfigError
    from study.preflight import select

    replacements = {}
    for text in options.replace:
        key, equals, value = text.partition("=")
        if not equals:
            raise ConfigError(f"{text!r}: must be KEY=NAME")
        replacements[key] = value
    file = select(options.profile, replacements, inputs=not options.without_inputs)
    print(f"{paths.shown(file)}: profile {options.profile}; now run dvc repro")


def _selected() -> str:
    from study.config import load_grid

    return str(load_grid(paths.GRID)["profile"])


def _check(options: argparse.Namespace) -> None:
    from study.preflight import check_grid

    profile = _selected()
    check_grid(profile)
    print(f"profile {profile}: parameters, data, weights and disk are fine")


def _track(options: argparse.Namespace) -> None:
    from study import tracking
    from study.config import ConfigError

    named = options.profile and paths.report(options.profile) / "metrics"
    if named and not named.is_dir():
        raise ConfigError(f"{paths.shown(named)}: no such folder; that profile has not run")
    tracking.sync(options.profile or _selected())


def _verify(options: argparse.Namespace) -> None:
    from study.verify import summary, verify

    print(summary(options.profile, verify(options.profile)))


def _doctor(options: argparse.Namespace) -> None:
    from study.doctor import examine, report

    findings = examine()
    print(report(findings, options.json))
    if any(finding.cure for finding in findings):
        sys.exit(1)


if __name__ == "__main__":
    sys.exit(main())
