"""What the study at the paper's scale costs, on paper: from rates of one H200 and arithmetic.

`python -m benchmarks.paper_cost` writes the tables of `docs/scale.md` between its markers; rates
are those of published code or tuned loops on one H200, not of this study. Where
`reports/performance/scale.json` is there, its measured points stand beside the model's.
"""

import json
import re
import sys
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from study import paths
from study.config import load_grid
from study.estimate import Estimate
from study.grid import expand, read_profile

PROFILES = ("paper_released", "paper", "paper_b", "paper_vq")
DOCUMENT = paths.ROOT / "docs" / "scale.md"
MEASURED = paths.ROOT / "reports" / "performance" / "scale.json"
WORKERS = (1, 2, 8, 16, 32, 64)

IMAGES, HELD_OUT, SIDE = 1_281_167, 50_000, 256
TRAINING = {
    ("dit", "XL_2"): 599,
    ("sit", "XL_2"): 599,
    ("repa_dinov2", "XL_2"): 534,
    ("dit", "B_2"): 2780,
    ("sit", "B_2"): 2780,
    ("maskgit", "L_1"): 696,
}
"""Images/s of a step: tuned loops; REPA's with its teacher; MaskGIT's published code, compiled."""
FORWARD_TFLOP = {"XL_2": 0.2372, "B_2": 0.0460, "L_1": 0.1738}
SAMPLING_TFLOPS = 492
"""Of SiT-XL/2 with one network call a step; taken for all sizes."""
FINE_TUNING = 45
"""Images/s of the released recipe with LPIPS, expectation over its branches."""
ENCODING, DECODING = 1460, 695
FEATURES, JPEG = 1000, 125
"""Assumed, not measured: Inception on a GPU; decoding and scaling on one core."""
PARAMETERS = {"XL_2": 675e6, "B_2": 130e6, "L_1": 480e6}
NVLINK, NETWORK = 300e9, 50e9
"""Bytes/s of an all-reduce inside a node, and between nodes of one 400 Gbit/s port each."""
OVERLAP = 2 / 3
"""Share of a step, its backward pass, behind which the exchange of gradients can hide."""


@dataclass(frozen=True, slots=True)
class Cost:
    """Of one profile."""

    instances: int
    hours: dict[str, float]
    """By stage, on one GPU."""
    size: float
    plan: Estimate

    @property
    def total(self) -> float:
        """GPU hours."""
        return sum(self.hours.values())


def seconds_of(stage: str, item: dict[str, Any], sections: dict[str, Any], backbone: str) -> float:
    """Seconds of an instance on one GPU; what is not listed takes no part in the sum."""
    generator = str(item.get("generator"))
    match stage:
        case "prepare_data":
            return (IMAGES + HELD_OUT) / JPEG / 16
        case "reference_statistics":
            return (IMAGES + HELD_OUT) / FEATURES
        case "finetune_autoencoder":
            if item["arm"] in ("pretrained", "released", "released_ema"):
                return 0.0
            section = sections[stage]
            return section["steps"] * section["batch_size"] / FINE_TUNING
        case "evaluate_autoencoder":
            # Reconstruction, and three turns and three scales of images and of latents.
            count = sections[stage]["num_images"]
            return count * (7 / ENCODING + 7 / DECODING + 7 / FEATURES)
        case "cache_latents":
            return 2 * IMAGES / ENCODING
        case "train_generator":
            section = sections[stage]
            return section["steps"] * section["batch_size"] / TRAINING[generator, backbone]
        case "evaluate_generator":
            section = sections[stage]
            tokens = generator == "maskgit"
            calls = 2 * section["num_token_steps"] if tokens else section["num_steps"]
            each = calls * FORWARD_TFLOP[backbone] / SAMPLING_TFLOPS + 1 / DECODING + 1 / FEATURES
            points = len(sections["train_generator"]["checkpoints"])
            again = section["reconstructions"] * (1 / ENCODING + 1 / DECODING + 1 / FEATURES)
            return points * section["num_samples"] * each + again
        case _:
            return 0.0


def size_of(stage: str, item: dict[str, Any], sections: dict[str, Any], backbone: str) -> float:
    """Bytes that an instance leaves."""
    match stage:
        case "prepare_data":
            return (IMAGES + HELD_OUT) * 3 * SIDE**2
        case "reference_statistics":
            return IMAGES * 2048 * 4
        case "cache_latents":
            tokens = item["autoencoder"] == "vqgan_f16"
            return 2 * IMAGES * 2 * (16**2 if tokens else 8 * 32**2)
        case "train_generator":
            return len(sections[stage]["checkpoints"]) * 4 * PARAMETERS[backbone]
        case _:
            return 0.0


def needs_of(stage: str, name: str, selected: dict[str, Any]) -> list[str]:
    """What an instance waits for, by its name."""
    data = f"{selected['profile']}-imagenet_256"
    latents = "-".join(name.split("-")[:5])
    upstream = {
        "reference_statistics": [f"prepare_data@{data}"],
        "finetune_autoencoder": [f"prepare_data@{data}"],
        "evaluate_autoencoder": [f"finetune_autoencoder@{name}", f"reference_statistics@{data}"],
        "cache_latents": [f"finetune_autoencoder@{name}"],
        "train_generator": [f"cache_latents@{latents}"],
        "evaluate_generator": [f"train_generator@{name}", f"reference_statistics@{data}"],
    }
    return upstream.get(stage, [])


def cost(profile: str) -> Cost:
    """Hours and bytes of a profile."""
    selected = expand(profile, read_profile(profile))
    sections = load_grid(paths.PARAMS / "profile" / f"{profile}.yaml")
    hours: dict[str, float] = defaultdict(float)
    seconds, size, needs = {}, 0.0, {}
    for stage, items in selected.items():
        for name, item in items.items() if isinstance(items, dict) else ():
            trained = selected["train_generator"].get(name, {})
            backbone = str(trained.get("backbone"))
            full = f"{stage}@{name}"
            seconds[full] = seconds_of(stage, item, sections, backbone)
            hours[stage] += seconds[full] / 3600
            size += size_of(stage, item, sections, backbone)
            needs[full] = needs_of(stage, name, selected)
    plan = Estimate(
        profile=profile, digest="", seconds=seconds, size={}, done=[], dvc_s=0.0, needs=needs
    )
    return Cost(len(seconds), {k: v for k, v in hours.items() if v}, size, plan)


def speed_up(rate: float, parameters: float, gpus: int, batch: int = 256) -> float:
    """Of a step on several GPUs: computation is divided, gradients (fp32) are exchanged.

    t(P) = c / P + max(0, x(P) - o c / P), c the step of one GPU, x(P) = 2 (P - 1) / P x bytes /
    bandwidth, o the share behind which the exchange hides.
    """
    compute = batch / rate / gpus
    bandwidth = NVLINK if gpus <= 8 else NETWORK
    exchange = 2 * (gpus - 1) / gpus * 4 * parameters / bandwidth
    return batch / rate / (compute + max(0.0, exchange - OVERLAP * compute))


def tables() -> dict[str, str]:
    """Markdown by the name of its place in the document."""
    costs = {profile: cost(profile) for profile in PROFILES}
    stages = list(dict.fromkeys(stage for c in costs.values() for stage in c.hours))
    rows = [["profile", "instances", *(s.replace("_", " ") for s in stages), "GPU hours", "disk"]]
    for name, each in costs.items():
        parts = [f"{each.hours.get(stage, 0):.0f}" for stage in stages]
        total, size = f"{each.total:.0f}", f"{each.size / 1e9:,.0f} GB"
        rows.append([f"`{name}`", str(each.instances), *parts, total, size])
    walls = [["profile", *(str(count) for count in WORKERS), "longest chain"]]
    for name, each in costs.items():
        hours = [f"{each.plan.wall_s(count) / 3600:.0f}" for count in (*WORKERS, 10_000)]
        walls.append([f"`{name}`", *hours])
    inside = [["step", *(str(count) for count in WORKERS)]]
    for (generator, backbone), rate in TRAINING.items():
        values = [speed_up(rate, PARAMETERS[backbone], count) for count in WORKERS]
        inside.append([f"{generator} {backbone}", *(f"{value:.1f}" for value in values)])
    return {
        "cost": _markdown(rows),
        "across": _markdown(walls),
        "inside": _markdown(inside),
        "measured": measured(),
    }


def measured() -> str:
    """Points of one and more GPUs beside the model's, where there are some."""
    if not MEASURED.is_file():
        return "Not measured yet: there is no `reports/performance/scale.json`."
    content = json.loads(MEASURED.read_text())
    known = {f"{g}_{b.lower().replace('_', '')}": (r, b) for (g, b), r in TRAINING.items()}
    rows = [["what", "batch", "GPUs", "images/s", "speed-up", "model"]]
    alone = [r for r in content["records"] if r["processes"] == 1 and "images_per_s" in r]
    for row in alone:
        model = f"{known[row['row']][0]:,} images/s" if row["row"] in known else ""
        rows.append([row["row"], "the same", "1", f"{row['images_per_s']:,.1f}", "1.00", model])
    for row in content["summary"]:
        weak, count, model = row["scaling"] == "weak", row["processes"], ""
        if row["row"] in known:
            rate, backbone = known[row["row"]]
            # Weak: every GPU keeps the whole batch, so that a step computes as long as on one.
            batch = 256 * count if weak else 256
            model = f"{speed_up(rate, PARAMETERS[backbone], count, batch):.2f}"
        elif weak:
            model = f"{count:.2f}"
        batches = "times the GPUs" if weak else "the same"
        rate, gain = f"{row['images_per_s']:,.1f}", f"{row['speed_up']:.2f}"
        rows.append([row["row"], batches, str(count), rate, gain, model])
    return _markdown(rows)


def _markdown(rows: list[list[str]]) -> str:
    head, *body = rows
    lines = [head, ["---", *("---:" for _ in head[1:])], *body]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def filled(text: str) -> str:
    """The document with its tables made anew."""
    for name, content in tables().items():
        pattern = rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)"
        text, count = re.subn(pattern, rf"\g<1>{content}\n\g<2>", text, flags=re.DOTALL)
        if count != 1:
            raise ValueError(f"{DOCUMENT.name}: marker {name}: must be there once")
    return text


def main(document: Path = DOCUMENT) -> int:
    """Write the tables."""
    document.write_text(filled(document.read_text()))
    print(f"{paths.shown(document)}: tables written")
    return 0


if __name__ == "__main__":
    sys.exit(main())
