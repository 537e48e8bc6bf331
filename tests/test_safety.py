"""What the code must never do with a file or a socket, read from the source."""

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
UNPICKLING = {"cloudpickle", "dill", "joblib", "marshal", "pickle", "shelve"}
UNSAFE = {
    *("pickle.load", "pickle.loads", "pickle.Unpickler", "pd.read_pickle", "torch.hub.load"),
    *("joblib.load", "yaml.unsafe_load", "eval", "exec", "os.system"),
    *("shutil.unpack_archive", "tarfile.open", "zipfile.ZipFile"),
}


def nodes() -> Iterator[tuple[str, ast.AST]]:
    """Place and node, of everything in the code that is run outside tests."""
    for folder in ("benchmarks", "notebooks", "study"):
        for file in sorted((ROOT / folder).rglob("*.py")):
            for node in ast.walk(ast.parse(file.read_text())):
                yield f"{file.relative_to(ROOT)}:{getattr(node, 'lineno', 0)}", node


def calls() -> Iterator[tuple[str, str, ast.Call]]:
    """Place, name and call, of every call."""
    for place, node in nodes():
        if isinstance(node, ast.Call):
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


def test_models_of_others_are_read_from_safetensors() -> None:
    reads = [(place, call) for place, name, call in calls() if name.endswith(".from_pretrained")]
    assert reads
    assert [place for place, call in reads if keyword(call, "use_safetensors") is not True] == []


def test_of_modules_that_unpickle_only_an_error_is_used() -> None:
    imported = []
    for _, node in nodes():
        if isinstance(node, ast.Import):
            imported += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            imported += [f"{node.module}.{alias.name}" for alias in node.names]
    found = {name for name in imported if name.partition(".")[0] in UNPICKLING}
    assert found <= {"pickle", "pickle.UnpicklingError"}
    assert {name for _, name, _ in calls() if name.partition(".")[0] in UNPICKLING} == set()


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
