"""The house: what is at the top, which way imports point, how long things are, and what may not be in the tree."""

import ast
import configparser
import fnmatch
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("configs", "counterfactuals", "debias", "eval", "federated", "privacy")
TOP = [ROOT / "evenhand.py", ROOT / "train_distill.py"]
MODULES = [*TOP, *sorted(path for name in PACKAGES for path in (ROOT / name).rglob("*.py"))]
# the evaluate library loads these by path; no module of ours imports them
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
    "evenhand.py",
    "train_distill.py",
    "configs/schema.py",
    "configs/accelerate",
    "configs/deepspeed",
    "counterfactuals/lexicons",
    "docs/architecture.md",
    ".github/workflows/tests.yml",
    ".github/workflows/release.yml",
    ".github/dependabot.yml",
]
OURS = {*PACKAGES, "evenhand", "train_distill"}
MAY_IMPORT = {
    "evenhand": set(),  # by name, when a name or command is used
    "train_distill": {"configs", "counterfactuals", "debias", "eval"},
    "configs": {"configs", "counterfactuals", "debias", "eval", "federated", "privacy"},
    "federated": {"counterfactuals", "debias", "federated", "privacy"},
    "federated/__main__": {"train_distill"},  # entry points, as the recipe
    "federated/flower": {"configs", "debias", "federated"},
    "debias": {"counterfactuals", "debias"},
    "debias/__main__": {"configs", "counterfactuals", "debias"},  # an entry point: reads settings, as the recipe does
    "eval": {"counterfactuals", "eval", "privacy.attacks", "privacy.audit", "privacy.inversion"},
    "privacy": {"counterfactuals", "privacy"},
    "privacy/__main__": {"counterfactuals", "eval", "privacy"},
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


@cache
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
    assert len((ROOT / "train_distill.py").read_text(encoding="utf-8").splitlines()) < 250


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_files_and_functions_are_short(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 450
    functions = [node for node in ast.walk(tree_of(path)) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    sizes = {node.name: (node.end_lineno or 0) - node.lineno + 1 for node in functions}
    assert not {name: size for name, size in sizes.items() if size > 60}


@pytest.mark.parametrize("folder", sorted({path.parent for path in MODULES} - {ROOT, ROOT / "eval/tasks"}), ids=name_of)
def test_folders_hold_about_ten_files(folder: Path) -> None:
    assert len([path for path in folder.glob("*.py") if path.name != "__init__.py"]) <= 13


def test_the_wheel_holds_every_file() -> None:
    """What setup.cfg names: packages by pattern, data files by pattern within the package they are in."""
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg", encoding="utf-8")
    assert set(setup["options"]["py_modules"].split()) == {path.stem for path in TOP}
    patterns = {key: value.split(", ") for key, value in setup["options.package_data"].items()}

    def is_packed(path: Path) -> bool:
        package = next(folder for folder in path.parents if (folder / "__init__.py").exists())
        inside = path.relative_to(package).as_posix()
        home = ".".join(package.relative_to(ROOT).parts)
        known = [*patterns["*"], *patterns.get(home, ["*.py"])]
        return inside.endswith(".py") or any(
            fnmatch.fnmatch(inside, p) and inside.count("/") == p.count("/") for p in known
        )

    ours = [path for path in files() if path.relative_to(ROOT).parts[0] in PACKAGES]
    assert len(ours) > 100 and not [name_of(path) for path in ours if not is_packed(path)]
    included = setup["options.packages.find"]["include"].split()
    assert not [name for name in PACKAGES if f"{name}*" not in included]


def test_what_is_imported_is_installed_with_the_package() -> None:
    """But for the features that setup.cfg names as extras."""
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg", encoding="utf-8")
    extras = {"deepspeed", "evaluate", "flwr", "gensim", "lm_eval", "nltk", "rouge_score", "wandb", "wandb_workspaces"}
    installed = set(re.findall(r"^[\w-]+", setup["options"]["install_requires"], flags=re.M))
    known = {name.replace("-", "_") for name in installed} | extras | {*OURS, *sys.stdlib_module_names}
    known |= {"yaml", "sklearn"} if {"pyyaml", "scikit-learn"} <= installed else set()
    found = {name.split(".")[0] for path in MODULES for _, name in imports(ast.walk(tree_of(path)))}
    assert not found - known and "gguf" in installed  # transformers reads GGUF files with it


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_imports_point_one_way(path: Path) -> None:
    name = path.relative_to(ROOT).with_suffix("").as_posix()
    home = name if name in MAY_IMPORT else name.split("/")[0]
    found = [(line, name) for line, name in imports(ast.walk(tree_of(path))) if name.split(".")[0] in OURS]
    may = MAY_IMPORT[home]
    wrong = [
        f"{name_of(path)}:{line} {name}"
        for line, name in found
        if not {name.split(".")[0], ".".join(name.split(".")[:2])} & may
    ]
    assert not wrong, f"{home} may import {sorted(may)} only"


def test_no_import_is_circular() -> None:
    """Modules of ours, by what they import at the top of the file."""
    modules = {".".join(path.relative_to(ROOT).with_suffix("").parts): path for path in MODULES}
    graph = {
        name: {
            found
            for _, full in imports(tree_of(path).body)
            for found in (full, full.rpartition(".")[0])
            if found in modules
        }
        for name, path in modules.items()
    }
    while free := {name for name, needs in graph.items() if not needs & graph.keys() - {name}}:
        graph = {name: needs for name, needs in graph.items() if name not in free}
    assert not graph


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
    """Absolute folders that exist only on the author's machine; documentation uses relative paths."""
    machine = re.compile(r"(?<![\w.])/(?:work|root|farm|home/\w+|Users/\w+)/")
    texts = ((path, path.read_text(encoding="utf-8", errors="replace")) for path in files())
    lines = ((path, number, line) for path, text in texts for number, line in enumerate(text.splitlines(), 1))
    assert not [f"{name_of(path)}:{number} {line[:120]}" for path, number, line in lines if machine.search(line)]
