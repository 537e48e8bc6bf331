import io
import json
import struct
import time
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from study.config import ConfigError
from study.data import shapes
from study.data.sources import file_sha256
from study.data.store import PixelStore, to_float, to_uint8
from study.data.write import write_store


def _silent(iterable: Iterable, total: int, description: str) -> Iterable:
    return iterable


def _huge_png() -> bytes:
    """The header of a picture of 50,000 x 50,000 pixels."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        checksum = struct.pack(">I", zlib.crc32(kind + content))
        return struct.pack(">I", len(content)) + kind + content + checksum

    header = struct.pack(">IIBBBBB", 50_000, 50_000, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"")


@pytest.fixture
def parquet_with(make_parquet: Callable[..., Path], picture: Callable[..., bytes]):
    """150 training images, of which the first are as given."""

    def make(first: list[bytes]) -> None:
        train = [*first, *[picture(i) for i in range(150 - len(first))]]
        make_parquet("train", [(content, i % 2) for i, content in enumerate(train)])
        make_parquet("validation", [(picture(0), 0)])

    return make


def test_shapes_round_trip(source, prepare, tmp_path: Path):
    write_store(tmp_path, source("shapes", num_classes=3), prepare(7, 4), _silent)
    store = PixelStore(tmp_path)
    expected = list(shapes.dataset(4, 3, 16, 0, shapes.VALIDATION_START))
    assert np.array_equal(
        store.images("validation"), [image.transpose(2, 0, 1) for image, _ in expected]
    )
    assert store.labels("train").tolist() == [0, 1, 2, 0, 1, 2, 0]
    assert (store.image_size, store.num_classes) == (16, 3)


def test_image_folder_round_trip(source, prepare, image_folder: Path, tmp_path: Path):
    write_store(tmp_path / "store", source("image_folder"), prepare(), _silent)
    store = PixelStore(tmp_path / "store")
    assert store.images("train")[:, 0, 0, 0].tolist() == [0, 30, 10, 40, 20]
    assert store.labels("train").tolist() == [0, 1, 0, 1, 0]
    assert store.class_names == ["ant", "bee"]


def test_huggingface_round_trip(
    source, prepare, parquet_with, root: Path, monkeypatch: pytest.MonkeyPatch
):
    parquet_with([])
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", root / "cache")
    config = source("huggingface", path=str(root / "data" / "x"))
    write_store(root / "store", config, prepare(8), _silent)
    assert PixelStore(root / "store").images("train")[:, 0, 0, 0].tolist() == list(range(8))


def test_limit_keeps_the_first_images(source, prepare, parquet_with, tmp_path: Path):
    parquet_with([])
    write_store(tmp_path / "store", source("parquet"), prepare(8), _silent)
    store = PixelStore(tmp_path / "store")
    assert store.images("train")[:, 0, 0, 0].tolist() == list(range(8))
    assert store.labels("train").tolist() == [0, 1] * 4


def test_wide_image_is_scaled_and_cropped_at_its_centre(
    source, prepare, make_parquet, tmp_path: Path
):
    pixels = np.zeros((32, 96, 3), dtype=np.uint8)
    pixels[:, 32:64] = 200
    pixels[:, 47:49] = 100
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    for split in ("train", "validation"):
        make_parquet(split, [(buffer.getvalue(), 0)])
    write_store(tmp_path / "store", source("parquet"), prepare(), _silent)
    row = PixelStore(tmp_path / "store").images("train")[0, 0, 8].astype(int)
    assert np.array_equal(row, row[::-1])
    assert (row[2:6] > 190).all()
    assert (row[7:9] < 170).all()


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "CMYK"])
def test_other_colour_modes_become_rgb(source, prepare, make_parquet, tmp_path: Path, mode: str):
    buffer = io.BytesIO()
    picture = Image.new("RGB", (16, 16), (102, 102, 102)).convert(mode)
    picture.save(buffer, "TIFF")
    for split in ("train", "validation"):
        make_parquet(split, [(buffer.getvalue(), 0)])
    write_store(tmp_path / "store", source("parquet"), prepare(), _silent)
    images = PixelStore(tmp_path / "store").images("train")
    assert (images == 102).all()


def test_undecodable_image_is_counted_and_named(source, prepare, parquet_with, tmp_path: Path):
    parquet_with([b"\x89PNG broken"])
    manifest = write_store(tmp_path / "store", source("parquet"), prepare(), _silent)
    assert manifest["train"]["count"] == 149
    assert manifest["train"]["class_counts"] == [74, 75]
    reason = "not a picture in a known format"
    assert manifest["train"]["rejected"] == [{"name": "0.png", "reason": reason}]
    assert len(PixelStore(tmp_path / "store").images("train")) == 149


def test_more_than_one_percent_undecodable_is_an_error(
    source, prepare, parquet_with, tmp_path: Path
):
    parquet_with([b"no picture", b"nor this"])
    with pytest.raises(ConfigError, match=r"2 of 150 images .* at most 1 %; first: 0\.png"):
        write_store(tmp_path / "store", source("parquet"), prepare(), _silent)


def test_an_error_leaves_no_store_and_no_half_file(source, prepare, parquet_with, tmp_path: Path):
    write_store(tmp_path / "store", source("shapes", num_classes=2), prepare(4, 2), _silent)
    parquet_with([b"no picture", b"nor this"])
    with pytest.raises(ConfigError):
        write_store(tmp_path / "store", source("parquet"), prepare(), _silent)
    assert not list((tmp_path / "store").glob("*.partial"))
    with pytest.raises(FileNotFoundError):
        PixelStore(tmp_path / "store")


@pytest.mark.parametrize("kind", ["huge", "sixteen bits", "empty"])
def test_harmful_image_is_rejected_quickly(
    source, prepare, parquet_with, tmp_path: Path, kind: str
):
    buffer = io.BytesIO()
    Image.fromarray(np.full((16, 16), 40_000, dtype=np.uint16)).save(buffer, "PNG")
    content = {"huge": _huge_png(), "sixteen bits": buffer.getvalue(), "empty": b""}[kind]
    parquet_with([content])
    start = time.monotonic()
    manifest = write_store(tmp_path / "store", source("parquet"), prepare(), _silent)
    assert time.monotonic() - start < 2
    (rejected,) = manifest["train"]["rejected"]
    expected = {"huge": "exceeds limit", "sixteen bits": "8 bits", "empty": "no bytes"}[kind]
    assert expected in rejected["reason"]


def test_class_without_decodable_training_image_is_an_error(
    source, prepare, make_parquet, picture, tmp_path: Path
):
    cells = [(picture(i), 0) for i in range(150)]
    make_parquet("train", [*cells, (b"broken", 1)])
    make_parquet("validation", [(picture(0), 0)])
    with pytest.raises(ConfigError, match="class '1': no train image that can be decoded"):
        write_store(tmp_path / "store", source("parquet"), prepare(), _silent)


def test_manifest_holds_the_digests_of_the_arrays(source, prepare, tmp_path: Path):
    returned = write_store(tmp_path, source("shapes", num_classes=2), prepare(4, 2), _silent)
    written = json.loads((tmp_path / "manifest.json").read_text())
    assert written == returned
    assert written["train"]["images_sha256"] == file_sha256(tmp_path / "images-train.npy")
    assert written["validation"]["labels_sha256"] == file_sha256(tmp_path / "labels-validation.npy")


def test_writing_twice_gives_the_same_manifest(source, prepare, image_folder, tmp_path: Path):
    first, second = (
        write_store(tmp_path / name, source("image_folder"), prepare(), _silent) for name in "ab"
    )
    assert first == second


def test_images_are_mapped_read_only(source, prepare, tmp_path: Path):
    write_store(tmp_path, source("shapes", num_classes=2), prepare(4, 2), _silent)
    images = PixelStore(tmp_path).images("train")
    assert isinstance(images, np.memmap)
    assert not images.flags.writeable


def test_missing_store_names_the_stage_that_makes_it(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match="run dvc repro: made by stage prepare_data"):
        PixelStore(tmp_path)


def test_uint8_and_float_are_inverse():
    values = torch.arange(256, dtype=torch.uint8)
    assert torch.equal(to_uint8(to_float(values)), values)


def test_float_spans_minus_one_to_one_and_is_clamped_back():
    ends = to_float(torch.tensor([0, 255], dtype=torch.uint8))
    assert ends.tolist() == [-1, 1]
    assert to_uint8(torch.tensor([-7.0, 7.0])).tolist() == [0, 255]
