"""Stage prepare_data: a source of labelled images becomes one pixel store."""

from study import paths
from study.command import stage
from study.config.stages import PrepareData
from study.data.store import PixelStore
from study.data.write import write_store
from study.progress import track
from study.tracking import Run


def main(config: PrepareData, run: Run) -> None:
    """Decode, resize and write train and validation images."""
    manifest = write_store(run.output(), config.data, config.prepare_data, track)
    for split in ("train", "validation"):
        run.record(f"{split}_images", manifest[split]["count"])
        run.record(f"rejected_{split}_images", len(manifest[split]["rejected"]))
    store = PixelStore(paths.store(config.cell))
    run.picture(store.images("validation")[:64], columns=16)
    run.protocol = {"image_size": store.image_size, "classes": store.num_classes}


if __name__ == "__main__":
    stage(main, __file__)
