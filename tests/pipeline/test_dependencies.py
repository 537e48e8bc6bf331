"""Code that each stage depends on, and the directions in which modules may import each other.

Read from the source, imports inside functions included; imports for type checkers only excluded.
"""

import grimp
import pytest
from clones import ROOT
from declared import STAGES, code

AT_MOST = 6

# They carry a stage (command line, file names, progress, records, viewer, compiled code) and decide
# no number beyond its rounding.
CARRIERS = frozenset(
    {
        "study",
        "study.__main__",
        "study.acceleration",
        "study.command",
        "study.compiled",
        "study.distributed",
        "study.fingerprint",
        "study.keeper",
        "study.launch",
        "study.mlflow_artifacts",
        "study.mlflow_content",
        "study.mlflow_store",
        "study.parent",
        "study.paths",
        "study.progress",
        "study.recorded",
        "study.scores",
        "study.tracking",
    }
)
BELOW = (
    *("study.acceleration", "study.compiled", "study.data", "study.config", "study.distributed"),
    *("study.keeper", "study.paths", "study.recorded"),
)
LIBRARY = (
    "study.autoencoders",
    "study.equivariance",
    "study.evaluation",
    "study.generators",
    "study.latents",
    "study.statistics",
)


@pytest.fixture(scope="module")
def graph() -> grimp.ImportGraph:
    return grimp.build_graph(
        "study",
        include_external_packages=True,
        exclude_type_checking_imports=True,
        cache_dir=None,
    )


def within(module: str, package: str) -> bool:
    return module == package or module.startswith(f"{package}.")


def imported(graph: grimp.ImportGraph, module: str) -> set[str]:
    """Modules of the study that `module` imports, directly or not, itself included."""
    found, waiting = {module}, [module]
    while waiting:
        for name in graph.find_modules_directly_imported_by(waiting.pop()):
            if within(name, "study") and name not in found | CARRIERS:
                found.add(name)
                waiting.append(name)
    return found


def importers(graph: grimp.ImportGraph, package: str) -> set[str]:
    known = package in graph.modules
    return graph.find_modules_that_directly_import(package) if known else set()


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_depends_on_all_it_imports(graph: grimp.ImportGraph, stage: str):
    needed = imported(graph, f"study.stages.{stage}")
    uncovered = [name for name in needed if not any(within(name, dep) for dep in code(stage))]
    assert sorted(uncovered) == []


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_depends_on_nothing_it_does_not_import(graph: grimp.ImportGraph, stage: str):
    needed = imported(graph, f"study.stages.{stage}")
    assert [dep for dep in code(stage) if not any(within(name, dep) for name in needed)] == []


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_has_few_code_dependencies_and_its_own_module(stage: str):
    assert f"study.stages.{stage}" in code(stage)
    assert len(code(stage)) <= AT_MOST


def test_packages_that_no_stage_lists_hold_no_code(graph: grimp.ImportGraph):
    for path in (ROOT / "study").rglob("__init__.py"):
        if path.parent.name not in ("config", "stages"):
            assert len(path.read_text().splitlines()) == 1, path
    # Decides when a stage ends, and nothing else.
    assert graph.find_modules_directly_imported_by("study.stages") == {"os", "study.parent"}


def test_mlflow_is_touched_by_its_own_modules_only(graph: grimp.ImportGraph):
    own = {"study.mlflow_content", "study.mlflow_store"}
    assert importers(graph, "mlflow") == own
    assert set.union(*(importers(graph, name) for name in own)) <= own | {"study.tracking"}


@pytest.mark.parametrize("package", ["hydra", "omegaconf"])
def test_hydra_is_touched_by_the_configuration_only(graph: grimp.ImportGraph, package: str):
    found = importers(graph, package)
    assert "study.config.load" in found
    assert all(within(m, "study.config") or m == "study.preflight" for m in found)


def test_dvc_is_not_imported(graph: grimp.ImportGraph):
    assert importers(graph, "dvc") == set()


def test_nothing_imports_a_stage(graph: grimp.ImportGraph):
    stages = [module for module in graph.modules if module.startswith("study.stages.")]
    assert {m: found for m in stages if (found := importers(graph, m))} == {}


@pytest.mark.parametrize(
    ("package", "allowed"),
    [
        ("study.paths", ()),
        ("study.statistics", ()),
        ("study.config", ("study.paths",)),
        ("study.data", ("study.config", "study.paths")),
        ("study.equivariance", ("study.config", "study.paths")),
        ("study.distributed", ("study.config",)),
        ("study.keeper", ("study.config", "study.distributed")),
        ("study.launch", ("study.config",)),
        ("study.acceleration", ("study.config", "study.paths")),
        ("study.recorded", ("study.distributed",)),
        *((name, (*LIBRARY, *BELOW)) for name in LIBRARY),
        ("study.report", ("study.config", "study.paths", "study.statistics", "study.tracking")),
    ],
)
def test_imports_go_one_way(graph: grimp.ImportGraph, package: str, allowed: tuple[str, ...]):
    modules = [module for module in graph.modules if within(module, package)]
    assert modules
    wrong = {
        (module, name)
        for module in modules
        for name in graph.find_modules_directly_imported_by(module)
        if within(name, "study") and not any(within(name, a) for a in (package, *allowed))
    }
    assert wrong == set()
