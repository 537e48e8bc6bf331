"""Subcommands of `study` that turn autoencoders into folders for others, and others' into ours."""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

from study import paths
from study.config import ConfigError, DataConfig, Family, load_group


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
