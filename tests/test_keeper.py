import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from study.config import StudyError
from study.keeper import Keeper, check_weights, require_disk


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "work" / "instance" / "fingerprint"


def test_a_state_comes_back_as_it_was(folder: Path) -> None:
    state = {"step": 3, "weights": {"a": torch.randn(2, 3)}, "sums": [1.5, 2.5], "name": "x"}
    Keeper(folder).save(state)
    found = Keeper(folder).restore()
    assert found is not None
    assert torch.equal(found["weights"]["a"], state["weights"]["a"])
    assert {k: found[k] for k in ("step", "sums", "name")} == {
        k: state[k] for k in ("step", "sums", "name")
    }


def test_without_a_state_there_is_none(folder: Path) -> None:
    assert Keeper(folder).restore() is None
    assert Keeper().restore() is None


def test_without_a_folder_nothing_is_kept(tmp_path: Path) -> None:
    nothing = Keeper(every_s=0)
    assert not nothing.due
    nothing.save({"step": 1})
    nothing.clear()
    assert list(tmp_path.iterdir()) == []


def test_two_generations_are_kept(folder: Path) -> None:
    for step in range(5):
        Keeper(folder).save({"step": step})
    assert [file.name for file in sorted(folder.iterdir())] == [
        "state-00000003.pt",
        "state-00000004.pt",
    ]


@pytest.mark.parametrize("damage", [b"", b"half of it", None])
def test_a_damaged_state_falls_back_to_the_one_before(
    folder: Path, damage: bytes | None, capsys: pytest.CaptureFixture[str]
) -> None:
    for step in range(2):
        Keeper(folder).save({"step": step, "weights": torch.zeros(100)})
    newest = folder / "state-00000001.pt"
    content = newest.read_bytes()
    newest.write_bytes(content[: len(content) // 2] if damage is None else damage)
    found = Keeper(folder).restore()
    assert found is not None
    assert found["step"] == 0
    assert "state-00000001.pt: cannot be read" in capsys.readouterr().err


def test_a_state_with_code_in_it_is_not_run(folder: Path, tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[Any, ...]:
            return os.system, (f"touch {tmp_path}/ran",)

    folder.mkdir(parents=True)
    torch.save({"step": Evil()}, folder / "state-00000000.pt")
    assert Keeper(folder).restore() is None
    assert not (tmp_path / "ran").exists()


def test_what_belongs_to_the_run_travels_with_the_state(folder: Path) -> None:
    taken: list[dict[str, Any]] = []
    Keeper(folder, extra=lambda: {"curve": [{"step": 1.0}]}).save({"step": 1})
    found = Keeper(folder, resume=taken.append).restore()
    assert found == {"step": 1}
    assert taken == [{"curve": [{"step": 1.0}]}]


def test_a_state_is_due_when_the_interval_has_passed(folder: Path) -> None:
    assert Keeper(folder, every_s=0).due
    patient = Keeper(folder, every_s=3600)
    assert not patient.due
    patient.last -= 3601
    assert patient.due
    patient.save({"step": 1})
    assert not patient.due


def test_a_state_that_takes_long_is_kept_less_often(folder: Path) -> None:
    keeper = Keeper(folder, every_s=1e-9)
    keeper.save({"step": 1})
    assert keeper.wait > 1e-6
    assert not keeper.due


def test_finished_files_are_delivered_and_stay_until_the_end(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keeper, output = Keeper(folder), tmp_path / "output"
    for name in ("a", "b"):
        (keeper.place(output) / name).write_text(name)
    assert not output.exists()
    keeper.deliver(["a"], output)
    monkeypatch.setattr("study.keeper.os.link", lambda *names: (_ for _ in ()).throw(OSError()))
    keeper.deliver(["a", "b"], output)
    assert {file.name: file.read_text() for file in output.iterdir()} == {"a": "a", "b": "b"}
    assert sorted(file.name for file in keeper.place(output).iterdir()) == ["a", "b"]
    keeper.clear()
    assert not folder.exists()


def test_without_a_keeper_files_are_written_where_they_belong(tmp_path: Path) -> None:
    keeper = Keeper()
    (keeper.place(tmp_path / "output") / "a").write_text("a")
    keeper.deliver(["a"], tmp_path / "output")
    assert (tmp_path / "output" / "a").read_text() == "a"


def test_a_weight_that_is_not_finite_is_named() -> None:
    layer = torch.nn.Linear(2, 2)
    check_weights(layer, 7)
    with torch.no_grad():
        layer.bias[1] = torch.inf
    with pytest.raises(StudyError, match="step 7: weight bias: must be finite"):
        check_weights(layer, 7)


def test_what_will_not_fit_is_refused(tmp_path: Path) -> None:
    require_disk(tmp_path)
    with pytest.raises(StudyError, match=r"free disk space = .* GB: must be at least .* free some"):
        require_disk(tmp_path, 1e18)


def test_clearing_forgets_other_fingerprints_too(folder: Path) -> None:
    Keeper(folder).save({"step": 1})
    Keeper(folder.with_name("older")).save({"step": 1})
    Keeper(folder).clear()
    assert not folder.parent.exists()


LOOP = """
import signal, sys, time
from pathlib import Path
from study import keeper
signal.signal(signal.SIGTERM, keeper.terminate)
keeper._GRACE_S = int(sys.argv[3])
with keeper.Keeper(Path(sys.argv[1]), every_s=3600) as kept:
    for step in range(10_000):
        if kept.due:
            kept.save({"step": step})
        print(step, flush=True)
        time.sleep(float(sys.argv[2]))
"""


def terminated(folder: Path, pause: str, grace_s: str) -> int:
    """Exit code of a loop that is told to end after its first step."""
    command = [sys.executable, "-c", LOOP, str(folder), pause, grace_s]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "0\n"
        process.send_signal(signal.SIGTERM)
        return process.wait(40)


def test_sigterm_keeps_the_state_and_ends(folder: Path) -> None:
    assert terminated(folder, "0.01", "30") == 143
    found = Keeper(folder).restore()
    assert found is not None
    assert found["step"] > 0


def test_sigterm_ends_a_loop_that_does_not_come_round(folder: Path) -> None:
    assert terminated(folder, "600", "1") == 128 + signal.SIGALRM
    assert Keeper(folder).restore() is None
