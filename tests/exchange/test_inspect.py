import json
from pathlib import Path

import pytest

from study import __main__ as command
from study.autoencoders.models import Autoencoder
from study.config import ConfigError, DataConfig, Family, load_group
from study.exchange.inspect import inspect as analyse
from study.exchange.inspect import open_autoencoder


def inspect(*arguments: str) -> int:
    return command.main(["inspect-autoencoder", *arguments])


def test_any_diffusers_folder_is_measured_and_saved(
    autoencoder: Autoencoder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    autoencoder.save(tmp_path / "weights")
    target = tmp_path / "out"
    size = ("--size", "16", "--images", "12", "--batch", "5", "--output", str(target))
    assert inspect(str(tmp_path / "weights"), "--data", "shapes", *size) == 0
    content = json.loads((target / "metrics.json").read_text())
    found = {each["metric"]: each["value"] for each in content["results"]}
    assert {"psnr_db", "latent_beyond_3", "intrinsic_dimension_12"} <= set(found)
    assert not any("rfd" in name or "perceptual" in name for name in found)
    printed = capsys.readouterr().out
    assert f"{found['equivariance_error_turn_90']:.3f}" in printed
    assert f"psnr_db                      {found['psnr_db']:.4g}" in printed
    names = {path.name for path in target.iterdir()}
    pictures = {f"{name}.png" for name in ("reconstructions", "latents", "transforms")}
    assert names == {"metrics.json", "metrics.csv", "spectra.csv", *pictures}


def test_a_folder_that_holds_something_is_left_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(SystemExit) as stopped:
        inspect("weights/none", "--data", "shapes", "--output", str(tmp_path))
    assert stopped.value.code == 2
    assert "must be a new or an empty folder" in capsys.readouterr().err


def test_a_factor_that_does_not_divide_the_side_is_one_line(
    kl: Autoencoder,
) -> None:
    kl.factor = 3
    shapes = load_group(DataConfig, "data", "shapes")
    with pytest.raises(ConfigError, match="multiple of the autoencoder's factor 3"):
        analyse(kl, shapes, 16, 12, 4)


@pytest.mark.parametrize("source", ["weights/none", "./none", "none"])
def test_what_is_not_there_is_no_hub_id(source: str) -> None:
    with pytest.raises(ConfigError, match="no such file or folder, and no hub id"):
        open_autoencoder(source, Family.kl)


def test_a_hub_id_needs_its_family() -> None:
    with pytest.raises(ConfigError, match=r"owner/name: not here; .* --family: kl, tiny, vq"):
        open_autoencoder("owner/name", None)
