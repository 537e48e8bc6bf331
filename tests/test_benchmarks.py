"""Every row can be timed, at small size, and rendered."""

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks import autoencoders, cpu, gpu, numerics, render
from benchmarks.rows import ROWS
from study.autoencoders.objective import Draw
from study.config import ArmConfig, load_group

pytestmark = pytest.mark.filterwarnings("default")
QUICK = ["--tiny", "--warm-up", "1", "--repeats", "2", "--set", "compile=false", "--output"]
TUNED = {name for name in ROWS if name.startswith("finetune")}


def test_every_row_is_timed_by_something() -> None:
    assert gpu.TIMED.keys() == ROWS.keys()


@pytest.mark.parametrize("name", sorted(ROWS.keys() - TUNED))
def test_a_row(tmp_path: Path, name: str) -> None:
    assert gpu.main(["--only", name, *QUICK, str(tmp_path / "gpu.json")]) == 0
    (record,) = json.loads((tmp_path / "gpu.json").read_text())
    assert record["row"] == name
    assert record["images_per_s"] > 0
    assert record["repeats"] == 2
    assert record["settings"]["compile"] is False
    assert record["must_share"] == record["images_per_s"] / ROWS[name].must


def test_modes_of_a_recipe_and_their_shares() -> None:
    assert autoencoders.modes(load_group(ArmConfig, "arm", "plain"), 32) == [(Draw(), 1.0)]
    found = autoencoders.modes(load_group(ArmConfig, "arm", "eq"), 32)
    shares = [(draw.areas(32), share) for draw, share in found]
    assert len(found) == 1 + 24 + 24
    assert sum(share for _, share in shares) == pytest.approx(1)
    assert sum(p for (encoded, _), p in shares if encoded < 1) == pytest.approx(0.125, abs=0.01)
    assert dict(shares)[1.0, 1.0] == pytest.approx(0.375, abs=0.015)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(TUNED))
def test_a_row_of_fine_tuning(tmp_path: Path, name: str) -> None:
    pytest.importorskip("lpips")
    assert gpu.main(["--only", name, *QUICK, str(tmp_path / "gpu.json")]) == 0


def test_a_row_that_fails_is_recorded_and_the_next_is_timed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(*_: Any, **__: Any) -> None:
        raise RuntimeError("out of memory")

    monkeypatch.setitem(gpu.TIMED, "dit_xl2", failing)
    output = tmp_path / "gpu.json"
    assert gpu.main(["--only", "dit_xl2,encode", *QUICK, str(output)]) == 1
    failed, timed = json.loads(output.read_text())
    assert failed["error"] == "RuntimeError: out of memory"
    assert timed["images_per_s"] > 0
    page = render.page(tmp_path)
    assert "dit_xl2 : RuntimeError: out of memory" in page
    assert "not run" in page


def test_a_record_takes_the_place_of_its_row_and_label(tmp_path: Path) -> None:
    file = tmp_path / "gpu.json"
    for row, label, value in (("a", "", 1), ("a", "x", 2), ("a", "", 3)):
        gpu.write(file, {"row": row, "label": label, "value": value})
    assert [(r["label"], r["value"]) for r in gpu.read(file)] == [("x", 2), ("", 3)]


def test_the_page_compares_with_others(tmp_path: Path) -> None:
    base = {"row": "sit_b2", "batch": 256, "ms": 80.0, "device": "a GPU", "torch": "2"}
    fast = base | {"label": "", "images_per_s": 3200.0} | gpu.shares("sit_b2", 3200.0)
    slow = base | {"label": "eager", "images_per_s": 1500.0} | gpu.shares("sit_b2", 1500.0)
    kernels = [{"kernel": "matmul", "ms": 40.0, "calls": 12}]
    (tmp_path / "gpu.json").write_text(json.dumps([slow, fast | {"kernels": kernels}]))
    page = render.page(tmp_path)
    shown = "| SiT-B/2 training | official 827 | 3,000 | 3,350 | **3,200** | reached | 86% | 45% |"
    assert shown.replace("reached |", "reached  |") in page
    assert "| sit_b2 | eager | 256 | 1,500 |" in page
    assert "| `matmul` | 12 | 40.00 | 50.0% |" in page


def test_the_page_says_what_a_step_consists_of(tmp_path: Path) -> None:
    base = {"label": "", "batch": 256, "device": "a GPU", "torch": "2", "ms": 80.0}
    base |= {"images_per_s": 3200.0, "tflops": 400.0}
    kernels = [
        {"kernel": "nvjet_sm90_tst_192x192", "ms": 40.0, "calls": 12},
        {"kernel": "cudnn_generated_fort_native_sdpa_sm90_flash_bprop", "ms": 12.0, "calls": 12},
        {"kernel": "triton_poi_fused_gelu_convolution", "ms": 15.0, "calls": 12},
        {"kernel": "multi_tensor_apply_kernel", "ms": 1.5, "calls": 4},
    ]
    step = base | {"row": "sit_b2", "kernels": kernels} | gpu.shares("sit_b2", 3200.0)
    modes = step | {"row": "finetune_modes", "modes": 49}
    random, own = {"settings": {"weights": None}}, {"settings": {"weights": "weights/sd"}}
    encoded = (
        step | random | {"row": "encode", "latent_error": 0.0122, "latent_error_largest": 0.17}
    )
    decoded = base | own | {"row": "decode", "decoding_loss_db": 0.01}
    decoded |= gpu.shares("decode", 3200.0)
    (tmp_path / "gpu.json").write_text(json.dumps([step, modes, encoded, decoded]))
    page = render.page(tmp_path)
    tflops = step["tflops"]
    assert isinstance(tflops, float)
    assert f"| sit_b2 | 80 | 40 | 12 | 15 | 1.5 | 11.5 | {2 * tflops:,.0f} |" in page
    assert "| finetune_modes |" not in page
    assert "Longest kernels of finetune_modes" not in page
    assert "latents of SD-VAE with random weights differ from fp32 by 1.22% of their" in page
    assert "; decoding loses 0.010 dB" in page


def test_the_page_says_where_the_time_of_a_run_goes(tmp_path: Path) -> None:
    performance, lab = tmp_path / "performance", tmp_path / "lab"
    performance.mkdir()
    assert "Where the time" not in render.page(performance)
    lab.mkdir()
    rows = ["train,5,30,100,a GPU", "train,5,10,60,a GPU", "prepare,2,,18,a GPU"]
    head = "stage,startup_seconds,compile_seconds,seconds,gpu"
    (lab / "costs.csv").write_text("\n".join([head, *rows]) + "\n")
    page = render.page(performance)
    assert "| train | 2 | 10 | 40 | 120 | 89.5% |" in page
    assert "| prepare | 1 | 2 | 0 | 18 | 10.5% |" in page


def test_rows_on_the_cpu(tmp_path: Path) -> None:
    output = tmp_path / "cpu.json"
    arguments = ["--tiny", "--repeats", "1", "--output", str(output)]
    assert cpu.main(["--only", "help,shapes,batches,statistics", *arguments]) == 0
    assert all(record["s"] > 0 for record in json.loads(output.read_text()))
    assert "`python -m study --help`" in render.page(tmp_path)


def test_distances_are_compared_with_the_spread_of_seeds() -> None:
    def runs(*distances: float) -> dict[str, Any]:
        return {str(s): {"validation": {"9": 1.0}, "distance": d} for s, d in enumerate(distances)}

    plain = runs(1.0, 1.1, 1.2)
    near = numerics.compare({"plain": plain, "fast": runs(1.2, 1.2, 1.2)})
    far = numerics.compare({"plain": plain, "fast": runs(1.4, 1.4, 1.4)})
    assert near["distance_seed_deviation"] == pytest.approx(0.1)
    assert near["within_tolerance"]
    assert far["distance_difference"] == pytest.approx(0.3)
    assert not far["within_tolerance"]


@pytest.mark.slow
def test_fast_and_plain_training_agree(tmp_path: Path) -> None:
    output = tmp_path / "numerics.json"
    sizes = ["--steps", "20", "--batch", "8", "--images", "32", "--side", "8"]
    assert numerics.main(["--tiny", *sizes, "--output", str(output)]) == 0
    record = json.loads(output.read_text())
    assert record["difference"]["0"].keys() == {"2", "5", "10", "20"}
    assert "## Does the fast step learn the same" in render.page(tmp_path)

    # What is there is not run again.
    assert numerics.main(["--tiny", *sizes, "--seeds", "0", "1", "--output", str(output)]) == 0
    more = json.loads(output.read_text())
    assert more["plain"]["0"] == record["plain"]["0"]
    assert more["difference"].keys() == {"0", "1"}
