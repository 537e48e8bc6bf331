"""What the code must never do with a file or a socket, read from the source."""

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
UNSAFE = {
    *("pickle.load", "pickle.loads", "pickle.Unpickler", "torch.hub.load", "joblib.load"),
    *("yaml.unsafe_load", "eval", "exec", "os.system", "shutil.unpack_archive", "tarfile.open"),
}


def calls() -> Iterator[tuple[str, str, ast.Call]]:
    """Place, name and call, of every call in `study/`."""
    for file in sorted((ROOT / "study").rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Call):
                place = f"{file.relative_to(ROOT)}:{node.lineno}"
                yield place, ast.unparse(node.func), node


def keyword(call: ast.Call, name: str) -> object:
    found = [item.value for item in call.keywords if item.arg == name]
    return ast.literal_eval(found[0]) if found else None


def test_tensors_are_read_without_running_code() -> None:
    reads = [(place, call) for place, name, call in calls() if name == "torch.load"]
    assert reads
    assert [place for place, call in reads if keyword(call, "weights_only") is not True] == []


def test_arrays_are_read_without_running_code() -> None:
    reads = [(place, call) for place, name, call in calls() if name == "np.load"]
    assert reads
    assert [place for place, call in reads if keyword(call, "allow_pickle") is not False] == []


def test_nothing_unpickles_unpacks_or_evaluates() -> None:
    assert [place for place, name, _ in calls() if name in UNSAFE] == []
    assert [place for place, _, call in calls() if keyword_is_true(call, "shell")] == []
    assert [place for place, _, call in calls() if keyword_is_true(call, "trust_remote_code")] == []


def keyword_is_true(call: ast.Call, name: str) -> bool:
    values = [item.value for item in call.keywords if item.arg == name]
    return any(not (isinstance(v, ast.Constant) and v.value is False) for v in values)


def test_the_viewer_listens_on_this_machine_only() -> None:
    (line,) = [line for line in (ROOT / "Makefile").read_text().splitlines() if "mlflow ui" in line]
    assert "--host 127.0.0.1" in line
