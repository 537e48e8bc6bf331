import json
from pathlib import Path

from synthetic import grid, write_tree

from study.report.measurement import measurement
from study.report.results import collect


def test_a_distance_that_misses_a_degradation_is_doubted(root: Path):
    study = grid([0])
    write_tree(study)
    lines = measurement(collect(study, root))
    assert "Under JPEG the distance rises: 0.4, 1.4, 2.4, 3.4 (`shapes`, n = 1,000)." in lines
    assert lines[-1] == "The distance rises with every grade of every degradation."
    assert sum(line.startswith("Floor, ") for line in lines) == 1
    for path in (root / "reference_statistics").glob("*.json"):
        content = json.loads(path.read_text())
        for row in content["records"]:
            row["value"] = 1.0 if row["metric"] == "ruler_noise_3" else row["value"]
        path.write_text(json.dumps(content))
    lines = measurement(collect(study, root))
    assert any(line.startswith("Under noise the distance **does not rise**") for line in lines)
    assert "in doubt" in lines[-1]


def test_the_second_extractors_response_is_told_beside_the_firsts(root: Path):
    study = grid([0])
    write_tree(study)
    for path in (root / "reference_statistics").glob("*.json"):
        content = json.loads(path.read_text())
        content["records"] += [
            row | {"metric": row["metric"].replace("ruler", "ruler_self_supervised")}
            for row in content["records"]
            if row["metric"].startswith("ruler_")
        ]
        floor = "fd_in_domain_self_supervised_floor"
        content["records"].append(content["records"][0] | {"metric": floor})
        path.write_text(json.dumps(content))
    lines = measurement(collect(study, root))
    assert "The distance rises with every grade of every degradation." in lines
    assert lines[-1] == "The self-supervised distance rises with every grade of every degradation."
    assert sum(line.startswith("Under JPEG the ") for line in lines) == 2
    assert any(line.startswith("Floor, FD in-domain self-supervised 1k") for line in lines)


def test_a_response_that_was_not_measured_is_said_to_be(root: Path):
    study = grid([0])
    write_tree(study)
    for path in (root / "reference_statistics").iterdir():
        path.unlink()
    assert measurement(collect(study, root))[-1] == "Response to degraded images: not measured."
