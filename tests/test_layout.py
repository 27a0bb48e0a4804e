"""The house: what stands at the top, which way imports point, and what may not be in the tree at all."""

import ast
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("configs", "counterfactuals", "debias", "eval")
MODULES = [ROOT / "train_distill.py", *sorted(path for name in PACKAGES for path in (ROOT / name).rglob("*.py"))]
# What the evaluate library loads by path derives from its classes: these files are imported by no module of ours.
LOADED_BY_PATH = {path for path in MODULES if "evaluate_modules" in path.parts}
TREE = [
    "README.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    "CITATION.cff",
    "LICENSE",
    "Makefile",
    "setup.cfg",
    "pyproject.toml",
    "ruff.toml",
    ".pre-commit-config.yaml",
    ".ci/run",
    "train_distill.py",
    "configs/schema.py",
    "configs/accelerate",
    "configs/deepspeed",
    "counterfactuals/lexicons",
    "docs/architecture.md",
]
OURS = {*PACKAGES, "train_distill"}
MAY_IMPORT = {
    "train_distill": {"configs", "counterfactuals", "debias", "eval"},
    "configs": {"configs", "counterfactuals", "debias", "eval"},
    "debias": {"counterfactuals", "debias"},
    "debias/__main__": {"configs", "counterfactuals", "debias"},  # an entry point: reads settings, as the recipe does
    "eval": {"counterfactuals", "eval"},
    "counterfactuals": {"counterfactuals"},
}
HEAVY = {"datasets", "deepspeed", "gensim", "matplotlib", "wandb"}
UNSAFE_IMPORTS = {"cloudpickle", "dill", "joblib", "marshal", "pickle", "shelve"}
UNSAFE_USES = {
    "torch.load",
    "yaml.unsafe_load",
    "yaml.full_load",
    "trust_remote_code=True",
    "allow_pickle=True",
}


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), filename=name_of(path))


def imports(nodes: Iterator[ast.AST] | list[ast.stmt]) -> Iterator[tuple[int, str]]:
    """(line, dotted name) of each absolute import; `from a import b` gives a.b, since b may be a module of a."""
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            yield from ((node.lineno, f"{node.module}.{alias.name}") for alias in node.names)


def files() -> list[Path]:
    """Files that git tracks, or would with `git add .`; skips where there is no git checkout."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    try:
        listed = subprocess.run(command, cwd=ROOT, capture_output=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("not a git checkout")
    return [ROOT / name for name in listed.decode().split("\0") if name and (ROOT / name).is_file()]


@pytest.mark.parametrize("name", TREE)
def test_the_tree_has(name: str) -> None:
    assert (ROOT / name).exists()


def test_ci_run_is_executable() -> None:
    assert os.access(ROOT / ".ci" / "run", os.X_OK)


@pytest.mark.parametrize("folder", PACKAGES)
def test_packages_have_an_empty_init(folder: str) -> None:
    assert (ROOT / folder / "__init__.py").read_text(encoding="utf-8") == ""


def test_the_recipe_is_short() -> None:
    assert len((ROOT / "train_distill.py").read_text(encoding="utf-8").splitlines()) < 300


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_imports_point_one_way(path: Path) -> None:
    name = path.relative_to(ROOT).with_suffix("").as_posix()
    home = name if name in MAY_IMPORT else name.split("/")[0]
    found = [(line, name) for line, name in imports(ast.walk(tree_of(path))) if name.split(".")[0] in OURS]
    wrong = [f"{name_of(path)}:{line} {name}" for line, name in found if name.split(".")[0] not in MAY_IMPORT[home]]
    assert not wrong, f"{home} may import {sorted(MAY_IMPORT[home])} only"


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_eval_keeps_its_builtin_meaning(path: Path) -> None:
    wrong = []
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Import) and any((alias.asname or alias.name) == "eval" for alias in node.names):
            wrong.append(f"{name_of(path)}:{node.lineno} import eval")
        elif isinstance(node, ast.arg) and node.arg == "eval":
            wrong.append(f"{name_of(path)}:{node.lineno} a parameter named eval")
    assert not wrong


@pytest.mark.parametrize("path", sorted({*MODULES} - LOADED_BY_PATH), ids=name_of)
def test_heavy_libraries_are_imported_where_they_are_used(path: Path) -> None:
    found = imports(tree_of(path).body)
    assert not [f"{name_of(path)}:{line} {name}" for line, name in found if name.split(".")[0] in HEAVY]


def unsafe_uses(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """(line, what) of each thing that runs code out of a data file: pickles, unsafe YAML, code shipped with a model."""
    for line, name in imports(ast.walk(tree)):
        if name.split(".")[0] in UNSAFE_IMPORTS or name in UNSAFE_USES:
            yield line, name
    classes = [node for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]
    bases = {node.name: [ast.unparse(base) for base in node.bases] for node in classes}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute | ast.keyword) and ast.unparse(node) in UNSAFE_USES:
            yield node.lineno, ast.unparse(node)
        elif isinstance(node, ast.Call) and ast.unparse(node.func) in ("yaml.load", "yaml.load_all"):
            loader = next((ast.unparse(key.value) for key in node.keywords if key.arg == "Loader"), "")
            if not {loader, *bases.get(loader, [])} & {"yaml.SafeLoader", "yaml.CSafeLoader"}:
                yield node.lineno, ast.unparse(node)


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_nothing_runs_code_out_of_a_file(path: Path) -> None:
    assert not [f"{name_of(path)}:{line} {what}" for line, what in unsafe_uses(tree_of(path))]


@pytest.mark.parametrize(
    "code",
    [
        "import pickle",
        "from torch import load",
        "torch.load(path)",
        "yaml.load(text)",
        "yaml.load(text, Loader=yaml.Loader)",
        "class Own(yaml.Loader): ...\nyaml.load(text, Loader=Own)",
        "np.load(path, allow_pickle=True)",
        "from_pretrained(name, trust_remote_code=True)",
    ],
)
def test_unsafe_uses_are_seen(code: str) -> None:
    assert list(unsafe_uses(ast.parse(code)))


@pytest.mark.parametrize(
    "code",
    [
        "yaml.safe_load(text)",
        "class Strict(yaml.SafeLoader): ...\nyaml.load(text, Loader=Strict)",
        "from_pretrained(name, trust_remote_code=False)",
        "json.load(file)",
    ],
)
def test_safe_uses_pass(code: str) -> None:
    assert not list(unsafe_uses(ast.parse(code)))


def test_no_file_is_over_a_mebibyte() -> None:
    assert not [f"{name_of(path)}: {path.stat().st_size} bytes" for path in files() if path.stat().st_size > 2**20]


def test_no_path_of_one_machine() -> None:
    """Folders that exist on whoever's machine wrote the line; documentation writes relative paths."""
    machine = re.compile(r"(?<![\w.])/(?:work|root|farm|home/\w+|Users/\w+)/")
    texts = ((path, path.read_text(encoding="utf-8", errors="replace")) for path in files())
    lines = ((path, number, line) for path, text in texts for number, line in enumerate(text.splitlines(), 1))
    assert not [f"{name_of(path)}:{number} {line[:120]}" for path, number, line in lines if machine.search(line)]
