"""Subcommands of `study` that run a grid, or exchange autoencoders with others."""

import argparse
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from study import paths
from study.config import ConfigError, DataConfig, Family, StudyError, load_group

if TYPE_CHECKING:
    from study.executors import Executor


def add_command(
    commands: "argparse._SubParsersAction[argparse.ArgumentParser]",
    name: str,
    run: Callable[[argparse.Namespace], None],
    summary: str,
    description: str,
    *examples: str,
) -> argparse.ArgumentParser:
    """Add a subcommand.

    Args:
        commands: where to.
        name: of the subcommand.
        run: takes the parsed options.
        summary: its line in the list of all.
        description: what it does.
        examples: what may follow `python -m study`.
    """
    lines = "".join(f"  python -m study {example}\n" for example in examples)
    parser = commands.add_parser(
        name,
        help=summary,
        description=description,
        epilog=f"examples:\n{lines}\nexit codes: 0 done, 1 could not go on, 2 wrong input",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(run=run)
    return parser


def add_parsers(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the subcommands; each sets `run`, which takes the parsed options."""
    export = add_command(
        commands,
        "export-autoencoder",
        _export,
        "write a fine-tuned autoencoder with a model card",
        "Copy a fine-tuned autoencoder to a diffusers folder with a model card.",
        "export-autoencoder laptop-shapes-kl_small-eq-0 exported/eq",
    )
    export.add_argument("instance", help="profile-data-autoencoder-arm-seed")
    export.add_argument("target", type=Path, help="folder to make")
    inspect = add_command(
        commands,
        "inspect-autoencoder",
        _inspect,
        "measure any diffusers autoencoder, without the pipeline",
        "Print and save reconstruction, equivariance error and latent statistics of an "
        "autoencoder\non held-out images. No network is trained, so there is no rFD; --lpips adds "
        "LPIPS.",
        "inspect-autoencoder weights/taesd --data shapes --images 200",
        "inspect-autoencoder weights/taesd --data imagenet20_128 --size 128 --images 2000",
    )
    inspect.add_argument("source", help="diffusers folder, LDM checkpoint file, or hub id")
    inspect.add_argument("--data", required=True, help="a file of params/data, without .yaml")
    inspect.add_argument("--size", type=int, default=128, help="image side (default: 128)")
    inspect.add_argument("--images", type=int, default=1000, help="how many (default: 1000)")
    inspect.add_argument("--batch", type=int, default=50, help="images per call (default: 50)")
    inspect.add_argument(
        "--family", choices=[family.value for family in Family], help="of a hub id"
    )
    inspect.add_argument("--lpips", help="file of torchvision's VGG16 weights")
    inspect.add_argument("--output", type=Path, help="new folder (default: inspected/SOURCE)")
    convert = add_command(
        commands,
        "convert-autoencoder",
        _convert,
        "turn an LDM checkpoint into weights for params/autoencoder",
        "Convert a checkpoint of latent-diffusion's AutoencoderKL to diffusers format.",
        "convert-autoencoder eq-vae-ldm.ckpt weights/eq_vae",
    )
    convert.add_argument("file", type=Path, help=".safetensors, or what torch.save writes")
    convert.add_argument("target", type=Path, help="folder to make")


def add_grid(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the subcommands that run the selected profile, or say what that will cost."""
    grid = add_command(
        commands,
        "grid",
        _grid,
        "run the selected profile on several GPUs or a cluster",
        "Run the stage instances of the selected profile side by side, each as soon as what it "
        "needs is done,\neach by `dvc repro -s`; what is up to date is skipped. A failed instance "
        "is tried again and goes on\nwhere it was; if it fails for good, what needs it is not run. "
        "At the end one `dvc repro` finds nothing\nleft to do. What instances print is in "
        "work/grid/INSTANCE.log. Workers of a machine with GPUs\nshare its cores evenly; on a "
        "CPU set OMP_NUM_THREADS=1 for more than one.",
        "grid",
        "grid --workers 4",
        "grid --processes 8",
        "grid --only '*-0' '*-0-*'",
        "grid --executor slurm --workers 32 --option timeout_min=2880 --option slurm_partition=gpu",
    )
    grid.add_argument("--workers", type=int, help="at once (default: one a GPU; slurm: 16 jobs)")
    grid.add_argument("--processes", type=int, default=1, help="GPUs an instance (default: 1)")
    grid.add_argument("--executor", choices=["local", "slurm"], default="local")
    grid.add_argument(
        "--option",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="of a Slurm job, as submitit's AutoExecutor takes it (default: timeout_min=1440, "
        "gpus_per_node as --processes)",
    )
    grid.add_argument(
        "--only",
        nargs="+",
        default=["*"],
        metavar="PATTERN",
        help="instances that match, as STAGE@INSTANCE, and what they need: one sitting of several; "
        "what an earlier pattern wants goes first; there is no last dvc repro then",
    )
    grid.add_argument(
        "--replace",
        action="store_true",
        help="let what --only leaves out go out of date where an input of it comes out otherwise "
        "here than dvc.lock has it (default: that instance fails, and keeps its entry)",
    )
    grid.add_argument("--retries", type=int, default=2, help="of a failed instance (default: 2)")
    grid.add_argument(
        "--limit",
        type=float,
        default=8.0,
        help="hours of all workers together above which it asks, or, in a pipe, wants --yes "
        "(default: 8; by the estimate, which is made first where there is none)",
    )
    grid.add_argument("--yes", action="store_true", help="do not estimate and do not ask")
    estimate = add_command(
        commands,
        "estimate",
        _estimate,
        "say what the selected profile will cost on this machine",
        "Time a few steps of every kind of stage with the stage's own function, in a temporary "
        "root, and\nprint hours, wall-clock, disk and price of what is left to do; start-up and "
        "compilation are in it.\nWhere instances have run, the prediction is compared with what "
        "they took.",
        "estimate",
        "estimate --workers 8 --price 2.5",
    )
    estimate.add_argument("--workers", type=int, help="at once (default: one a GPU)")
    estimate.add_argument("--price", type=float, default=0.0, help="of an hour of one worker")


def _estimate(options: argparse.Namespace) -> None:
    from study.config import load_grid
    from study.estimate import estimate, table
    from study.executors import visible_gpus
    from study.preflight import check_grid

    if options.workers is not None and options.workers < 1:
        raise ConfigError(f"--workers {options.workers}: must be at least 1")
    check_grid(str(load_grid(paths.GRID)["profile"]))
    workers = options.workers or max(1, len(visible_gpus()))
    made = estimate(_say)
    print(table(made, workers, options.price))


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _ask(profile: str, workers: int, limit: float) -> None:
    """Go on where the rest of the profile costs little, or someone says so.

    Raises:
        ConfigError: it costs more than the limit, and there is no terminal to ask at.
        StudyError: the answer was no.
    """
    from study.estimate import estimate, saved, shown

    made = saved(profile) or estimate(_say)
    hours = made.hours()
    print(f"estimate: {hours:.2f} hours, {shown(made.wall_s(workers))} with {workers} workers")
    if hours <= limit:
        return
    if not sys.stdin.isatty():
        rule = f"must be at most --limit {limit:g}, or give --yes"
        raise ConfigError(f"estimate of profile {profile} = {hours:.2f} hours: {rule}")
    if input("go on? [y/N] ").strip().lower() not in ("y", "yes"):
        raise StudyError("nothing was run")


def _grid(options: argparse.Namespace) -> None:
    from study.board import Board
    from study.config import load_grid
    from study.preflight import check_grid
    from study.schedule import State, finish, plan

    for name, least in (("workers", 1), ("processes", 1), ("retries", 0)):
        value = getattr(options, name)
        if value is not None and value < least:
            raise ConfigError(f"--{name} {value}: must be at least {least}")
    profile = str(load_grid(paths.GRID)["profile"])
    check_grid(profile)
    executor = _executor(options)
    if not options.yes:
        _ask(profile, executor.workers, options.limit)
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    began = time.monotonic()
    with Board() as board:
        schedule = plan(
            executor, options.retries, board.report, options.only, replace=options.replace
        )
        schedule.tick = board.tick
        board.tick(schedule.jobs.values())
        print(f"{len(schedule.jobs)} instances: {board.count()}", flush=True)
        try:
            complete = schedule.run()
        except KeyboardInterrupt:
            print("stopped; a stage goes on where it was at the next start", file=sys.stderr)
            sys.exit(128 + signal.SIGINT)
    lost = [job for job in schedule.jobs.values() if job.state is State.not_run]
    for job in lost:
        board.report(job)
    print(f"{board.count()}, in {time.monotonic() - began:.0f} s")
    if not complete:
        failed = [job for job in schedule.jobs.values() if job.state is State.failed]
        logs = ", ".join(paths.shown(job.log) for job in failed)
        raise StudyError(f"{len(failed)} failed, {len(lost)} not run; see {logs}")
    if options.only == ["*"]:
        finish()
        print("dvc repro: nothing left to do")


def _executor(options: argparse.Namespace) -> "Executor":
    from study.executors import ClusterJobs, LocalProcesses, visible_gpus

    if options.executor == "local":
        if options.option:
            raise ConfigError(f"--option {options.option[0]}: needs --executor slurm")
        gpus = visible_gpus()
        if gpus and options.processes > len(gpus):
            rule = f"must be at most the number of GPUs, {len(gpus)}"
            raise ConfigError(f"--processes {options.processes}: {rule}")
        workers = options.workers or max(1, len(gpus) // options.processes)
        return LocalProcesses(workers, gpus, options.processes)
    chosen: dict[str, int | str] = {"timeout_min": 1440, "gpus_per_node": options.processes}
    for text in options.option:
        key, equals, value = text.partition("=")
        if not equals:
            raise ConfigError(f"--option {text!r}: must be KEY=VALUE")
        chosen[key] = int(value) if value.isdigit() else value
    folder = paths.ROOT / "work" / "submitit"
    return ClusterJobs(options.workers or 16, folder, chosen, processes=options.processes)


def _export(options: argparse.Namespace) -> None:
    from study.exchange.export import export

    profile = options.instance.partition("-")[0]
    finetuned = _metrics("finetune_autoencoder", options.instance)
    if finetuned is None:
        folder = paths.metrics(profile, "finetune_autoencoder", options.instance).parent
        known = ", ".join(sorted(file.stem for file in folder.glob("*.json")))
        rule = f"must be one of {known}" if known else f"profile {profile!r} has none"
        raise ConfigError(f"{options.instance}: no such fine-tuned autoencoder; {rule}")
    evaluated = _metrics("evaluate_autoencoder", options.instance)
    source = paths.outputs(profile, "finetune_autoencoder", options.instance)
    export(source, options.target, finetuned, evaluated)
    missing = "" if evaluated else "; not evaluated, so the card lacks quality and scaling"
    print(f"{paths.shown(options.target)}: {options.instance} with model card{missing}")


def _metrics(stage: str, instance: str) -> dict[str, Any] | None:
    from study.tracking import read_metrics

    file = paths.metrics(instance.partition("-")[0], stage, instance)
    return read_metrics(file) if file.is_file() else None


def _inspect(options: argparse.Namespace) -> None:
    from study.exchange.export import require_vacant
    from study.exchange.inspect import inspect, open_autoencoder, save, summary

    target = options.output or paths.ROOT / "inspected" / Path(options.source).stem
    require_vacant(target)
    family = Family(options.family) if options.family else None
    data = load_group(DataConfig, "data", options.data)
    autoencoder = open_autoencoder(options.source, family)
    analysis = inspect(
        autoencoder, data, options.size, options.images, options.batch, options.lpips
    )
    save(analysis, target, {"source": options.source, "data": options.data, "size": options.size})
    print(summary(analysis))
    print(f"{paths.shown(target)}: metrics.json, metrics.csv, spectra.csv and pictures")


def _convert(options: argparse.Namespace) -> None:
    from study.exchange.export import require_vacant
    from study.exchange.ldm import load_ldm

    require_vacant(options.target)
    autoencoder = load_ldm(options.file)
    autoencoder.save(options.target)
    size = f"factor {autoencoder.factor}, {autoencoder.channels} channels"
    print(f"{paths.shown(options.target)}: AutoencoderKL, {size}")
