"""Time the study's training, sampling and encoding: `python -m benchmarks.gpu --only ROW,…`.

Each row is written to the output as soon as it is there; a row that fails says why and the next one
begins. `--tiny` rehearses on a CPU.
"""

import argparse
import gc
import json
import os
import platform
import sys
import traceback
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import torch

from benchmarks import autoencoders, generators
from benchmarks.rows import PEAK_TFLOPS, ROWS
from benchmarks.timing import Clock
from study.command import device

GRAPH = {"cuda_graph": True}
TIMED = {
    "dit_xl2": partial(generators.train, name="dit", size="XL_2"),
    "sit_xl2": partial(generators.train, name="sit", size="XL_2"),
    "repa_xl2": partial(generators.train, name="repa", size="XL_2"),
    "maskgit_l": partial(generators.train, name="maskgit", size="L_1", side=16, tokens=16384),
    "sit_b2": partial(generators.train, name="sit", size="B_2"),
    "dit_b2": partial(generators.train, name="dit", size="B_2"),
    "sit_s2": partial(generators.train, name="sit", size="S_2", side=16),
    "sample_xl2": partial(generators.sample, size="XL_2"),
    "encode": autoencoders.encode,
    "decode": autoencoders.decode,
    "finetune_full": partial(autoencoders.finetune, arm="plain", separate=False),
    "finetune_modes": partial(autoencoders.finetune, arm="eq", separate=False),
    "finetune_full_two": partial(autoencoders.finetune, arm="plain", separate=True),
    "finetune_modes_two": partial(autoencoders.finetune, arm="eq", separate=True),
}
CHANGES: dict[str, dict[str, Any]] = {"sit_s2": GRAPH, "sit_b2": GRAPH, "dit_b2": GRAPH}
OF_A_MODE = (2, 3)
"""Steps of each mode of fine-tuning that warm up, and that are timed."""


def main(arguments: list[str] | None = None) -> int:
    """Time rows; 1 if one of them failed."""
    options = _options(arguments)
    place, lines, failed = device(), [], False
    changes = {k: _value(v) for k, _, v in (text.partition("=") for text in options.set)}
    for name in options.only.split(",") if options.only else ROWS:
        row, given = ROWS[name], CHANGES.get(name, {}) | changes
        batch = options.batch or (4 if options.tiny else row.batch)
        warm_up, repeats = OF_A_MODE if "modes" in name else (options.warm_up, options.repeats)
        clock = Clock(
            device=place,
            warm_up=warm_up,
            repeats=repeats,
            seconds=options.seconds,
            profiled=options.profile,
        )
        record: dict[str, Any] = {"row": name, "label": options.label, "batch": batch}
        record |= machine()
        try:
            record |= TIMED[name](clock, batch=batch, tiny=options.tiny, changes=given)
            record |= shares(name, record["images_per_s"])
        except Exception as error:
            # Whatever it is: the other rows must still be timed.
            failed = True
            traceback.print_exc()
            record["error"] = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
        write(options.output, record)
        lines.append(line(record))
        print(lines[-1], flush=True)
        _forget()
    print("\n" + "\n".join(lines))
    return int(failed)


def shares(name: str, rate: float) -> dict[str, float | None]:
    """What a rate comes to: arithmetic, share of the chip's peak, of the roofline, of the goal."""
    row = ROWS[name]
    tflops = None if row.gigaflops is None else rate * row.gigaflops / 1e3
    return {
        "tflops": tflops,
        "peak_share": None if tflops is None else tflops / PEAK_TFLOPS,
        "roofline_share": None if row.roofline is None else rate / row.roofline,
        "must_share": rate / row.must,
    }


def read(file: Path) -> list[dict[str, Any]]:
    """Records of a file; none if it is not there."""
    return json.loads(file.read_text()) if file.is_file() else []


def write(file: Path, record: dict[str, Any]) -> None:
    """Add a record, in the place of an earlier one of the same row and label."""
    same = [(r["row"], r["label"]) == (record["row"], record["label"]) for r in read(file)]
    kept = [r for r, old in zip(read(file), same, strict=True) if not old]
    partial_file = file.with_suffix(".partial")
    file.parent.mkdir(parents=True, exist_ok=True)
    partial_file.write_text(json.dumps([*kept, record], indent=1) + "\n")
    partial_file.replace(file)


def line(record: dict[str, Any]) -> str:
    """One record for the terminal."""
    name = f"{record['row']} {record['label']}".strip()
    if "error" in record:
        return f"{name:28} {record['error']}"
    share = record["must_share"]
    memory = f"{record.get('memory_gib', 0):6.1f} GiB"
    rate = f"{record['images_per_s']:10.2f} images/s {record['ms']:9.2f} ms"
    return f"{name:28} {rate} {share:6.1%} of must {memory}, ready in {record['ready_s']:.0f} s"


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__)
    parser.add_argument("--only", help=f"of {', '.join(ROWS)}")
    parser.add_argument("--output", type=Path, default=Path("work/benchmarks/gpu.json"))
    parser.add_argument("--label", default="", help="to tell several records of a row apart")
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="settings")
    parser.add_argument("--batch", type=int)
    parser.add_argument("--warm-up", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--seconds", type=float, default=120, help="a row begins no repeat after")
    parser.add_argument("--profile", action="store_true", help="record the longest kernels")
    parser.add_argument("--tiny", action="store_true", help="small networks: a rehearsal")
    return parser.parse_args(arguments)


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text


def machine() -> dict[str, Any]:
    """What it ran on."""
    cuda = torch.cuda.is_available()
    return {
        "device": torch.cuda.get_device_name() if cuda else f"cpu, {os.cpu_count()} cores",
        "torch": torch.__version__,
        "cudnn": torch.backends.cudnn.version() if cuda else None,
        "python": platform.python_version(),
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "tuned": os.environ.get("TORCHINDUCTOR_COORDINATE_DESCENT_TUNING") == "1",
    }


def _forget() -> None:
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


if __name__ == "__main__":
    sys.exit(main())
