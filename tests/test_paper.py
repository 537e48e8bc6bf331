"""The profiles at the paper's scale: what is missing is said, and every instance is composed."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from study import paths
from study.__main__ import main
from study.config import choices
from study.grid import expand, read_profile
from study.preflight import check_grid, select

PROFILES = ("paper", "paper_b", "paper_released", "paper_vq")
FILES = {
    "weights/inception.pth": "params/evaluation/adm.yaml: weights = ",
    "weights/adm_imagenet256.npz": "params/evaluation/adm.yaml: adm_reference = ",
    "weights/vgg16.pth": "params/evaluation/adm.yaml: lpips = ",
}
AUTOENCODERS = {
    "paper": ("ldm_kl_f8", "sd_vae_ft_ema"),
    "paper_b": ("ldm_kl_f8",),
    "paper_released": ("ldm_kl_f8", "eq_vae", "eq_vae_ema"),
    "paper_vq": ("vqgan_f16",),
}
"""Folders of weights that a profile needs."""


@pytest.fixture
def inputs(params: Path) -> Callable[[str], None]:
    """Put stand-ins where a profile looks for data and weights."""

    def make(profile: str) -> None:
        for split in ("train", "val"):
            for name in ("n01440764", "n01443537"):
                folder = paths.ROOT / "data" / "imagenet" / split / name
                folder.mkdir(parents=True)
                Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(folder / "1.JPEG")
        for name in AUTOENCODERS[profile]:
            folder = paths.ROOT / "weights" / name
            folder.mkdir(parents=True)
            cls = "VQModel" if name == "vqgan_f16" else "AutoencoderKL"
            levels = [128, 128, 256, 256, 512] if cls == "VQModel" else [128, 256, 512, 512]
            config = {"_class_name": cls, "block_out_channels": levels}
            (folder / "config.json").write_text(json.dumps(config))
            (folder / "diffusion_pytorch_model.safetensors").touch()
        for file in (*FILES, "weights/dinov2_vitb14.safetensors"):
            (paths.ROOT / file).touch()

    return make


def test_these_are_all() -> None:
    assert {name for name in choices("profile") if name.startswith("paper")} == set(PROFILES)


@pytest.mark.parametrize("profile", PROFILES)
def test_every_instance_passes_with_all_inputs(profile: str, inputs: Callable[[str], None]) -> None:
    pytest.importorskip("timm")
    pytest.importorskip("lpips")
    inputs(profile)
    select(profile, {})
    check_grid(profile)
    manifests = {file.stem for file in (paths.PARAMS / "inputs").glob("*.json")}
    assert {"data-imagenet_256"} <= manifests
    grid = expand(profile, read_profile(profile))
    sources = [item["source"] for item in grid["finetune_autoencoder"].values()]
    assert {Path(source).parent.name for source in sources} == {"inputs"}
    if profile == "paper_released":
        assert set(map(Path, sources)) == {
            Path("params/inputs") / f"{name}.json"
            for name in ("autoencoder-sd_vae", "arm-released", "arm-released_ema")
        }


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.usefixtures("params")
def test_what_is_missing_is_said_in_a_line_each(
    profile: str, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("timm")
    pytest.importorskip("lpips")
    with pytest.raises(SystemExit) as stopped:
        main(["use", profile])
    assert stopped.value.code == 2
    lines = capsys.readouterr().err.splitlines()
    assert all(line.startswith("error: ") for line in lines)
    said = [line.removeprefix("error: ") for line in lines]
    expected = ["data/imagenet: ", *(f"weights/{name}: " for name in AUTOENCODERS[profile])]
    expected += [f"{field}{file!r}: no such file" for file, field in FILES.items()]
    for text in expected:
        assert [line for line in said if line.startswith(text)], (text, said)
    more = 1 + (profile == "paper")  # LPIPS of fine-tuning; DINOv2.
    assert len(said) == len(expected) + more
    assert not paths.GRID.exists()


def test_results_can_be_looked_at_without_inputs(params: Path) -> None:
    main(["use", "paper", "--without-inputs"])
    assert paths.GRID.is_file()


def test_headers_name_claim_expected_number_and_cost() -> None:
    for name in PROFILES:
        lines = (paths.PARAMS / "profile" / f"{name}.yaml").read_text().splitlines()
        header = " ".join(line for line in lines if line.startswith("# "))
        for word in ("laims" if name != "paper_vq" else "claim", "Table", "Expected", "GPU hours"):
            assert word in header, (name, word)
