"""The disk fills up, or cannot be written: one error that says so, and nothing half done."""

import errno
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from study.autoencoders.models import Autoencoder
from study.config import (
    BackboneConfig,
    DataConfig,
    PrepareDataConfig,
    Scaling,
    SiTConfig,
    Source,
    TrainGeneratorConfig,
    load_group,
)
from study.data.write import write_store
from study.generators.checkpoints import save_weights
from study.generators.objectives import build_objective
from study.generators.train import train_generator
from study.keeper import Keeper
from study.latents import LatentCache, write_cache
from study.tracking import write_text

MIB = 1 << 20


@pytest.fixture(autouse=True)
def room(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let work begin on a small disk."""
    monkeypatch.setattr("study.keeper.LEAST_FREE_BYTES", -1e9)


@contextmanager
def refused(file: Path) -> Iterator[None]:
    with pytest.raises(OSError, match="No space left on device") as caught:
        yield
    assert caught.value.errno == errno.ENOSPC
    assert caught.value.filename == str(file)


def partial_files(folder: Path) -> list[Path]:
    return list(folder.rglob("*.partial"))


def test_a_state_that_does_not_fit_leaves_the_one_before(small_disk: Path) -> None:
    folder = small_disk / "work" / "x"
    Keeper(folder).save({"step": 1})
    with refused(folder / "state-00000001.pt"):
        Keeper(folder).save({"step": 2, "weights": torch.zeros(2 * MIB)})
    assert Keeper(folder).restore() == {"step": 1}
    assert not partial_files(folder)


def test_a_small_file_that_does_not_fit_leaves_the_one_before(small_disk: Path) -> None:
    write_text(small_disk / "a.json", "{}")
    with refused(small_disk / "a.json"):
        write_text(small_disk / "a.json", "x" * 5 * MIB)
    assert (small_disk / "a.json").read_text() == "{}"
    assert not partial_files(small_disk)


@pytest.mark.parametrize(
    "write",
    [
        lambda folder: save_weights(folder / "a", {"x": torch.zeros(3)}),
        lambda folder: Keeper(folder).save({"x": torch.zeros(3)}),
        lambda folder: write_text(folder / "a", "text"),
    ],
    ids=["weights", "state", "text"],
)
def test_a_folder_that_cannot_be_written_is_said_to_be_so(
    tmp_path: Path, mount: Callable[..., None], write: Callable[[Path], None]
) -> None:
    (tmp_path / "real").mkdir()
    mount(tmp_path / "view", "--bind", "-o", "ro", str(tmp_path / "real"))
    with pytest.raises(OSError, match="Read-only file system") as caught:
        write(tmp_path / "view")
    assert Path(caught.value.filename).parent == tmp_path / "view"


def test_a_generator_goes_on_when_there_is_room_again(
    small_disk: Path,
    tmp_path: Path,
    kl: Autoencoder,
    images: np.ndarray,
    labels: np.ndarray,
    backbone: BackboneConfig,
    make_run: Callable[..., TrainGeneratorConfig],
) -> None:
    write_cache(tmp_path / "latents", kl, images, labels, 4, 0.5, 16, 100)
    cache, filler = LatentCache(tmp_path / "latents"), small_disk / "filler"

    def train(folder: Path, full_at: int | None = None) -> None:
        def steps(span: range) -> Iterator[int]:
            for step in span:
                if step == full_at:
                    filler.write_bytes(bytes(4 * MIB - used(small_disk) - (1 << 15)))
                yield step

        objective = build_objective(load_group(SiTConfig, "generator", "sit"))
        keeper = Keeper(small_disk / "work" / "x", every_s=0) if folder.name == "b" else None
        train_generator(
            folder,
            objective,
            cache,
            None,
            backbone,
            make_run(steps=6, raw_weights=True),
            Scaling.standardised,
            0,
            torch.device("cpu"),
            lambda *_: None,
            steps,
            keeper,
        )

    train(tmp_path / "a")
    with pytest.raises(OSError, match="No space left on device"):
        train(small_disk / "b", full_at=3)
    assert not (small_disk / "b" / "index.json").exists()
    assert not partial_files(small_disk)
    filler.unlink()
    train(small_disk / "b")
    names = sorted(file.name for file in (tmp_path / "a").iterdir())
    assert names == sorted(file.name for file in (small_disk / "b").iterdir())
    for name in names:
        assert (small_disk / "b" / name).read_bytes() == (tmp_path / "a" / name).read_bytes()


def used(folder: Path) -> int:
    return sum(file.stat().st_blocks * 512 for file in folder.rglob("*") if file.is_file())


def test_latents_that_do_not_fit_are_no_cache(
    small_disk: Path, tiny: Autoencoder, images: np.ndarray, labels: np.ndarray
) -> None:
    folder = small_disk / "cache"
    # A copy for each place: 2 x 16,000 x 4 x 8 x 8 half-precision numbers are 16 MiB.
    many, classes = images.repeat(1000, 0), labels.repeat(1000)
    with refused(folder / "latents-00000.npy"):
        write_cache(folder, tiny, many, classes, 4, 1.0, 256, 16_000)
    with pytest.raises(FileNotFoundError):
        LatentCache(folder)
    assert not partial_files(folder)


def test_a_store_that_does_not_fit_is_no_store(small_disk: Path) -> None:
    shapes = DataConfig(
        source=Source.shapes,
        path=None,
        revision=None,
        image_column=None,
        label_column=None,
        num_classes=4,
    )
    sizes = PrepareDataConfig(image_size=64, train_images=400, validation_images=8, seed=0)
    folder = small_disk / "store"
    write_store(folder, shapes, replace(sizes, train_images=8), lambda records, *_: records)
    with pytest.raises(OSError, match="No space left on device"):
        write_store(folder, shapes, sizes, lambda records, *_: records)
    assert not (folder / "manifest.json").exists()
    assert not partial_files(folder)
