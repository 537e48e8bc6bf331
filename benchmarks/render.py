"""Tables of what was timed, beside what others reach: `python -m benchmarks.render`.

Reads `gpu.json`, `cpu.json` and `numerics.json` of a folder, those that are there, and the costs of
profile `lab`, and writes `performance.md` beside them.
"""

import argparse
import csv
import json
import re
import sys
from pathlib import Path
from typing import Any

from benchmarks.gpu import read
from benchmarks.rows import ROWS
from study import paths

Records = list[dict[str, Any]]

KINDS = {
    "attention": r"sdpa|flash|fmha|cudnn::fusion",
    "fused": r"^triton",
    "products": r"nvjet|gemm|cutlass|xmma|convolve|conv2d|winograd|splitK",
}
"""Kinds of kernels by their names, the first that fits: attention, what the compiler fused of all
that works element by element or along a channel, products of matrices and convolutions."""


def main(arguments: list[str] | None = None) -> int:
    """Write the page; 0."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.render", description=__doc__)
    parser.add_argument(
        "folder", nargs="?", type=Path, default=paths.ROOT / "reports" / "performance"
    )
    folder = parser.parse_args(arguments).folder
    (folder / "performance.md").write_text(page(folder))
    print(folder / "performance.md")
    return 0


def page(folder: Path) -> str:
    """The whole page, in Markdown."""
    parts = ["# Speed", *gpu(read(folder / "gpu.json")), *cpu(read(folder / "cpu.json"))]
    if (folder / "numerics.json").is_file():
        parts += numerics(json.loads((folder / "numerics.json").read_text()))
    if (costs := folder.parent / "lab" / "costs.csv").is_file():
        with costs.open(newline="") as stream:
            parts += stages(list(csv.DictReader(stream)))
    return "\n\n".join(parts) + "\n"


def gpu(records: Records) -> list[str]:
    """Rates of the GPU beside those of others, and what is known of rows that fall short."""
    if not records:
        return []
    best = {name: chosen for name in ROWS if (chosen := _fastest(records, name))}
    # Of a row of several modes only one was profiled, which is not the step that the row is of.
    profiled = [r for r in best.values() if r.get("kernels") and r.get("modes", 1) == 1]
    rows = []
    for name, row in ROWS.items():
        record = best.get(name)
        found = (
            "not run | | | | "
            if record is None
            else (
                f"**{_number(record['images_per_s'])}** | {_verdict(record)} {record['label']} | "
                f"{_percent(record['roofline_share'])} | {_percent(record['peak_share'])} | "
                f"{record.get('memory_gib', 0):.1f} "
            )
        )
        goals = f"{_number(row.must)} | {_number(row.aim)}"
        rows.append(f"| {row.title} | {row.peers} | {goals} | {found}|")
    parts = [
        "## GPU",
        f"{_machine(records)}. Images/s; batch {_batches()}. Of training rows the whole loop is "
        "timed, data loading and averaging of weights included; random latents. Median of steps "
        "by device events; of fine-tuning that of each mode, weighed by its probability. Rates "
        "of others, goals and rooflines are of one H200.",
        "\n".join(
            [
                "| work | others | must | aim | here | | of roofline | of peak | GiB |",
                "|---|---|---:|---:|---:|---|---:|---:|---:|",
                *rows,
            ]
        ),
        _variants(records, best),
        _precision(best),
        _spent(profiled),
        *(_kernels(record) for record in profiled),
        *(_errors(records)),
    ]
    return [part for part in parts if part]


def cpu(records: Records) -> list[str]:
    """Times on the CPU."""
    if not records:
        return []
    lines = [f"| {r['title']} | {_seconds(r)} | {_number(r.get('per_s'))} |" for r in records]
    table = "\n".join(["| what | time | images/s |", "|---|---:|---:|", *lines])
    return ["## CPU", f"{_machine(records)}.", table]


def numerics(record: dict[str, Any]) -> list[str]:
    """Validation losses and distances of the fast and the plain step; nothing of a cut run."""
    if "difference" not in record:
        return []
    fast, plain = record["fast"], record["plain"]
    lines = [
        f"| {seed} | {step} | {plain[seed]['validation'][step]:.5f} | "
        f"{fast[seed]['validation'][step]:.5f} | {difference:+.3%} |"
        for seed, steps in record["difference"].items()
        for step, difference in steps.items()
    ]
    head = ["| seed | step | fp32 | fast | difference |", "|---:|---:|---:|---:|---:|"]
    parts = [
        "## Does the fast step learn the same",
        f"S/2, {record['steps']} steps of {record['batch']} images, on {record['device']}: "
        "validation loss of averaged weights, in fp32, on fixed (image, t, noise).",
        "\n".join([*head, *lines]),
    ]
    if "distance_difference" in record:
        rows = [f"| {s} | {plain[s]['distance']:.4f} | {fast[s]['distance']:.4f} |" for s in plain]
        parts += [
            "Fréchet distance of samples to the training images, in the features of the in-domain "
            f"extractor; means differ by {record['distance_difference']:+.4f}, the standard "
            f"deviation of the fp32 seeds is {record['distance_seed_deviation']:.4f}.",
            "\n".join(["| seed | fp32 | fast |", "|---:|---:|---:|", *rows]),
        ]
    return parts


def stages(rows: list[dict[str, str]]) -> list[str]:
    """Where the time of a run goes: by stage, start-up and compilation apart; in seconds."""
    parts = ("startup_seconds", "compile_seconds", "seconds")
    sums: dict[str, list[float]] = {}
    for row in rows:
        spent = sums.setdefault(row["stage"], [0.0] * 4)
        for place, value in enumerate((1.0, *(float(row.get(name) or 0) for name in parts))):
            spent[place] += value
    total = sum(startup + seconds for _, startup, _, seconds in sums.values())
    lines = [
        f"| {stage} | {count:.0f} | {startup:,.0f} | {compiling:,.0f} | "
        f"{seconds - compiling:,.0f} | {(startup + seconds) / total:.1%} |"
        for stage, (count, startup, compiling, seconds) in sums.items()
    ]
    gpus = ", ".join(dict.fromkeys(row["gpu"] for row in rows if row["gpu"]))
    return [
        "## Where the time of a run goes",
        f"Profile `lab`, all finished instances, each by its own clock; on {gpus}, which instances "
        "that run at once share. Start-up: from the start of the process to the beginning of its "
        "work. DVC's own start comes on top, and is among the times on the CPU.",
        "\n".join(
            [
                "| stage | instances | start-up [s] | compilation [s] | work [s] | share |",
                "|---|---:|---:|---:|---:|---:|",
                *lines,
            ]
        ),
    ]


def _fastest(records: Records, name: str) -> dict[str, Any] | None:
    found = [r for r in records if r["row"] == name and "images_per_s" in r]
    return max(found, key=lambda r: r["images_per_s"], default=None)


def _verdict(record: dict[str, Any]) -> str:
    share = record["must_share"]
    return "reached" if share >= 1 else f"{1 - share:.1%} short"


def _variants(records: Records, best: dict[str, dict[str, Any]]) -> str:
    """Records other than the fastest of their row."""
    others = [r for r in records if "images_per_s" in r and r is not best.get(r["row"])]
    if not others:
        return ""
    lines = [
        f"| {r['row']} | {r['label']} | {r['batch']} | {_number(r['images_per_s'])} | "
        f"{r.get('memory_gib', 0):.1f} |"
        for r in others
    ]
    head = ["Other settings:", "", "| row | setting | batch | images/s | GiB |"]
    return "\n".join([*head, "|---|---|---:|---:|---:|", *lines])


def _kernels(record: dict[str, Any]) -> str:
    total = record["ms"]
    lines = [
        f"| `{kernel['kernel'][:80].replace('|', ' ')}` | {kernel['calls']:.0f} | "
        f"{kernel['ms']:.2f} | {kernel['ms'] / total:.1%} |"
        for kernel in record["kernels"][:12]
    ]
    head = [f"Longest kernels of {record['row']}, a step of {total:.1f} ms:", ""]
    return "\n".join([*head, "| kernel | calls | ms | share |", "|---|---:|---:|---:|", *lines])


def _spent(records: Records) -> str:
    """What the steps of profiled rows consist of."""
    if not records:
        return ""
    lines = []
    for record in records:
        spent = dict.fromkeys(["products", "attention", "fused", "other"], 0.0)
        for kernel in record["kernels"]:
            found = (kind for kind, names in KINDS.items() if re.search(names, kernel["kernel"]))
            spent[next(found, "other")] += kernel["ms"]
        rest = max(0.0, record["ms"] - sum(spent.values()))
        rate = ""
        if record.get("tflops") and spent["products"]:
            rate = f"{record['tflops'] * record['ms'] / spent['products']:,.0f}"
        times = " | ".join(_number(spent[kind]) for kind in spent)
        lines.append(
            f"| {record['row']} | {_number(record['ms'])} | {times} | {_number(rest)} | {rate} |"
        )
    head = [
        "What a step consists of, by its longest kernels; in ms. Fused kernels work element by "
        "element or along a channel and are bound by memory: 3.35 TB/s on an H100 SXM, 4.8 on an "
        "H200 [NVIDIA's data sheets]. Rate of products: all operations of the row over the time "
        "of its products, so that it is an upper bound.",
        "",
        "| row | step | products | attention | fused | other | shorter kernels and gaps | products "
        "[TFLOP/s, at most] |",
    ]
    return "\n".join([*head, "|---|" + "---:|" * 7, *lines])


def _precision(best: dict[str, dict[str, Any]]) -> str:
    """What bf16 does to latents and decoded images."""
    said = []
    if "latent_error" in (encoded := best.get("encode", {})):
        said.append(
            f"latents{_weights(encoded)} differ from fp32 by {encoded['latent_error']:.2%} of "
            "their standard deviation (root mean square; largest "
            f"{encoded['latent_error_largest']:.0%})"
        )
    if "decoding_loss_db" in (decoded := best.get("decode", {})):
        said.append(
            f"decoding{_weights(decoded)} loses {decoded['decoding_loss_db']:.3f} dB of a typical "
            "reconstruction"
        )
    return f"In bf16 {'; '.join(said)} (goals: at most 1% and 0.05 dB)." if said else ""


def _weights(record: dict[str, Any]) -> str:
    return "" if record["settings"]["weights"] else " of SD-VAE with random weights"


def _errors(records: Records) -> list[str]:
    return [f"{r['row']} {r['label']}: {r['error']}" for r in records if "error" in r]


def _machine(records: Records) -> str:
    found = dict.fromkeys(f"{r['device']}, torch {r['torch']}" for r in records)
    return "; ".join(found)


def _batches() -> str:
    other = ", ".join(f"{row.batch} for {name}" for name, row in ROWS.items() if row.batch != 256)
    return f"256, {other}"


def _number(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _percent(value: float | None) -> str:
    return "" if value is None else f"{value:.0%}"


def _seconds(record: dict[str, Any]) -> str:
    return f"{record['s']:.2f} s" if "s" in record else record["error"]


if __name__ == "__main__":
    sys.exit(main())
