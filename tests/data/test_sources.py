import os
import socket
from collections.abc import Callable
from itertools import islice
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from study.config import ConfigError
from study.data.sources import check_source, digest_source, open_source


def _two_splits(make_parquet: Callable[..., Path], picture: Callable[..., bytes]) -> Path:
    names = ["cat", "dog"]
    make_parquet("train", [(picture(i), i % 2) for i in range(5)], names)
    return make_parquet("validation", [(picture(9), 1), (picture(8), 0)], names)


def test_shapes_have_the_number_of_classes_and_images_asked_for(source, prepare):
    images = open_source(source("shapes", num_classes=3), prepare(7, 4), "train")
    assert [record.label for record in images] == [0, 1, 2, 0, 1, 2, 0]
    assert len(images.class_names) == 3


def test_shapes_need_a_number_of_images(source, prepare):
    with pytest.raises(ConfigError, match="validation_images = None: must be a number"):
        check_source(source("shapes", num_classes=3), prepare(7))


def test_shapes_refuse_a_negative_seed(source, prepare):
    with pytest.raises(ConfigError, match="seed = -1: must be at least 0"):
        check_source(source("shapes", num_classes=3), prepare(7, 4, seed=-1))


def test_parquet_gives_labels_names_and_bytes_in_file_order(source, prepare, make_parquet, picture):
    _two_splits(make_parquet, picture)
    images = open_source(source("parquet"), prepare(), "train")
    assert images.class_names == ["cat", "dog"]
    assert [(r.name, r.label) for r in images] == [(f"{i}.png", i % 2) for i in range(5)]
    assert [r.load() for r in images] == [picture(i) for i in range(5)]


def test_parquet_takes_val_and_test_files_for_validation(source, prepare, make_parquet, picture):
    make_parquet("train", [(picture(0), 0)])
    make_parquet("test", [(picture(1), 0)])
    assert open_source(source("parquet"), prepare(), "validation").origin.endswith("validation")
    make_parquet("val", [(picture(1), 0), (picture(2), 0)])
    assert len(open_source(source("parquet"), prepare(), "validation")) == 2


def test_parquet_without_names_calls_classes_by_label(source, prepare, make_parquet, picture):
    make_parquet("train", [(picture(0), 1), (picture(1), 0)])
    assert open_source(source("parquet"), prepare(), "train").class_names == ["0", "1"]


def test_parquet_labels_must_count_from_zero(source, prepare, make_parquet, picture):
    make_parquet("train", [(picture(0), 1), (picture(1), 2)])
    with pytest.raises(ConfigError, match="labels from 1 to 2: must be from 0 to 1"):
        check_source(source("parquet"), prepare())


def test_missing_column_is_named(source, prepare, root: Path):
    (root / "data" / "x").mkdir(parents=True)
    table = pa.table({"img": [{"bytes": b""}], "label": [0]})
    pq.write_table(table, root / "data" / "x" / "train-0.parquet")
    with pytest.raises(ConfigError, match="no column 'image': image_column must be one of img, l"):
        check_source(source("parquet"), prepare())


def test_missing_label_is_refused(source, prepare, root: Path):
    (root / "data" / "x").mkdir(parents=True)
    table = pa.table({"image": [{"bytes": b""}] * 2, "label": pa.array([0, None], pa.int64())})
    pq.write_table(table, root / "data" / "x" / "train-0.parquet")
    with pytest.raises(ConfigError, match="1 rows without a label"):
        check_source(source("parquet"), prepare())


def test_broken_parquet_file_is_named_in_one_line(source, prepare, root: Path):
    (root / "data" / "x").mkdir(parents=True)
    (root / "data" / "x" / "train-0.parquet").write_bytes(b"not parquet at all")
    with pytest.raises(ConfigError, match="not a readable parquet file") as caught:
        check_source(source("parquet"), prepare())
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", ["parquet", "image_folder"])
def test_missing_folder_says_what_to_do(source, prepare, root: Path, kind: str):
    with pytest.raises(ConfigError) as caught:
        check_source(source(kind), prepare())
    assert str(caught.value) == (
        "data/x: no such folder; link your data there or name another path in params/data"
    )


def test_folder_without_training_files_is_refused(source, prepare, make_parquet, picture):
    make_parquet("validation", [(picture(0), 0)])
    with pytest.raises(ConfigError, match="data/x: no train-"):
        check_source(source("parquet"), prepare())


def test_too_few_images_are_counted(source, prepare, make_parquet, picture):
    _two_splits(make_parquet, picture)
    with pytest.raises(ConfigError, match="train_images = 6: must be at most 5"):
        check_source(source("parquet"), prepare(train=6))


def test_class_missing_among_the_kept_images_is_named(source, prepare, make_parquet, picture):
    _two_splits(make_parquet, picture)
    with pytest.raises(ConfigError, match="class 'dog' has no image among the first 1"):
        check_source(source("parquet"), prepare(train=1))


def test_image_folder_takes_classes_in_turn(source, prepare, image_folder: Path):
    images = open_source(source("image_folder"), prepare(), "train")
    expected = ["ant/0", "bee/0", "ant/1", "bee/1", "ant/2"]
    assert [r.name for r in images] == [f"train/{name}.png" for name in expected]
    assert [r.label for r in images] == [0, 1, 0, 1, 0]
    assert images.class_names == ["ant", "bee"]


def test_class_folder_without_images_is_an_error(source, prepare, image_folder: Path):
    (image_folder / "train" / "cow").mkdir()
    (image_folder / "train" / "cow" / "notes.txt").write_text("none yet")
    with pytest.raises(ConfigError, match="data/x/train/cow: no images"):
        check_source(source("image_folder"), prepare())


def test_class_folders_without_a_split_state_the_rule(source, prepare, root: Path):
    (root / "data" / "x" / "ant").mkdir(parents=True)
    with pytest.raises(ConfigError, match="no folder train: must have train/CLASS/ and validat"):
        check_source(source("image_folder"), prepare())


def test_unknown_validation_class_is_refused(source, prepare, image_folder: Path, picture):
    (image_folder / "val" / "cow").mkdir()
    (image_folder / "val" / "cow" / "0.png").write_bytes(picture(0))
    with pytest.raises(ConfigError, match="val/cow: must be a class of the training images"):
        check_source(source("image_folder"), prepare())


@pytest.mark.parametrize("link", ["train/ant/link.png", "train/cow"])
def test_link_that_leaves_the_folder_is_refused(
    source, prepare, image_folder: Path, picture, root: Path, link: str
):
    target = root / "elsewhere" / "secret.png"
    target.parent.mkdir()
    target.write_bytes(picture(0))
    (image_folder / link).symlink_to(target if link.endswith("png") else target.parent)
    with pytest.raises(ConfigError, match=f"{link}: link that leaves data/x"):
        check_source(source("image_folder"), prepare())


def test_data_folder_may_itself_be_a_link(source, prepare, image_folder: Path, root: Path):
    image_folder.rename(root / "elsewhere")
    image_folder.symlink_to(root / "elsewhere")
    check_source(source("image_folder"), prepare())


def test_huggingface_rows_keep_label_and_bytes(
    source, prepare, make_parquet, picture, root: Path, monkeypatch: pytest.MonkeyPatch
):
    folder = _two_splits(make_parquet, picture)
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", root / "cache")
    images = open_source(source("huggingface", path=str(folder)), prepare(), "validation")
    assert images.class_names == ["cat", "dog"]
    assert [(r.label, r.load()) for r in images] == [(0, picture(8)), (1, picture(9))]


def test_huggingface_set_that_cannot_be_loaded_is_named(source, prepare, root: Path):
    with pytest.raises(ConfigError, match=r"data set .*/nowhere at .*: cannot be loaded") as caught:
        open_source(source("huggingface", path=str(root / "nowhere")), prepare(), "train")
    assert "\n" not in str(caught.value)


def test_check_of_a_hub_data_set_stays_offline(source, prepare, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(socket, "socket", None)
    check_source(source("huggingface", path="nobody/nothing"), prepare())


@pytest.mark.parametrize("kind", ["parquet", "image_folder"])
def test_digest_changes_with_the_content_of_a_file(
    source, make_parquet, picture, request: pytest.FixtureRequest, kind: str
):
    if kind == "parquet":
        folder = _two_splits(make_parquet, picture)
    else:
        folder = request.getfixturevalue("image_folder")
    before = digest_source(source(kind))
    assert digest_source(source(kind)) == before
    file = sorted(path for path in folder.rglob("*.p*") if path.is_file())[0]
    content = file.read_bytes()
    file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert digest_source(source(kind)) != before


def test_digest_of_a_remote_source_is_its_revision(source):
    digest = digest_source(source("huggingface", path="a/b"))
    assert digest == {"source": "huggingface", "path": "a/b", "revision": None}


def test_real_images_have_their_size(source, prepare):
    shared = os.environ.get("STUDY_TEST_DATA")
    if not shared:
        pytest.skip("STUDY_TEST_DATA is not set")
    from study.data.pictures import decode

    config = source("parquet", path=f"{Path(shared).resolve()}/data/imagenet20-128")
    images = open_source(config, prepare(), "validation")
    assert len(images.class_names) == 20
    pixels = [decode(record, 128) for record in islice(images, 4)]
    assert all(isinstance(p, np.ndarray) and p.shape == (3, 128, 128) for p in pixels)
