"""The wall and the rules of the house, read off the syntax trees of src/: a new file passes without being listed."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import ROOT

from classify import build

SRC = ROOT / "src"
TEMPLATE = Path(build.__file__).parent.name  # these tests hold after a rename too
FILES = {file.relative_to(SRC).as_posix(): ast.parse(file.read_text()) for file in sorted(SRC.rglob("*.py"))}
LIBRARY = [name for name in FILES if name.startswith("tabrun/")]
OURS = (TEMPLATE, "tabrun", "hydra_plugins")
MAY_IMPORT = {  # a folder of the library: the others that its files may import; "" is tabrun/__init__.py alone
    "": set(),
    "reading": {"cli"},
    "tables": {"cli", "reading"},
    "runs": {"reading", "", "cli", "tables"},
    "training": {"reading", "cli", "tables", "runs"},
    "stack": {"reading", "cli", "tables", "runs", "training"},
    "sweeps": {"reading", "cli", "tables", "runs", "stack"},
    "verbs": {"reading", "cli", "tables", "runs"},
    "cli": {"reading", "tables", "runs", "training", "stack"},
}
PRIVATE = {  # file, name: why nothing public does
    ("tabrun/__init__.py", "_RJEM_MALLOC_CONF"): "polars has no other switch for memory, of which it takes half so",
}


def imports(name: str, top: bool = False) -> Iterator[str]:
    """The full names of the modules and objects that a file imports; top: only those at its top, when it is run."""
    package = name.split("/")[:-1]
    for node in at_top(FILES[name]) if top else ast.walk(FILES[name]):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) + 1 - node.level] if node.level else []
            yield from (".".join([*above, *filter(None, [node.module]), alias.name]) for alias in node.names)


def at_top(tree: ast.AST) -> Iterator[ast.AST]:
    """What is run when the module is imported."""
    for node in ast.iter_child_nodes(tree):
        typing_only = isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        if not typing_only and not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            yield node
            yield from at_top(node)


def folder(module: str) -> str:
    """Of a module or name in tabrun: tabrun.runs.folder.lock -> runs."""
    part = [*module.split("."), ""][1]
    return part if (SRC / "tabrun" / part).is_dir() else ""


def test_the_library_knows_no_template() -> None:
    for name in LIBRARY:
        assert TEMPLATE not in {module.partition(".")[0] for module in imports(name)}, name
        words = ast.unparse(FILES[name]).replace(".", " ").replace("/", " ").split()
        assert TEMPLATE not in [word.strip("'\"(),:{}[]") for word in words], name


def test_a_folder_imports_those_below_it() -> None:
    assert {part.name for part in (SRC / "tabrun").iterdir() if part.is_dir() and part.name[0] != "_"} <= {*MAY_IMPORT}
    for name in LIBRARY:
        own = folder(name.removesuffix(".py").replace("/", "."))
        used = {folder(module) for module in imports(name) if module.split(".")[0] == "tabrun"}
        assert used - {own} <= MAY_IMPORT[own], name


def test_no_module_imports_itself_by_others() -> None:
    names = {name.removesuffix(".py").removesuffix("/__init__").replace("/", "."): name for name in FILES}

    def module_of(name: str) -> str | None:
        return next((m for m in (name, name.rpartition(".")[0]) if m in names), None)

    uses = {module: {module_of(found) for found in imports(name, top=True)} - {None} for module, name in names.items()}
    while ended := [module for module in uses if not uses[module] - {module}]:
        uses = {module: found - {*ended} for module, found in uses.items() if module not in ended}
    assert uses == {}


@pytest.mark.parametrize("name", ["heads", "nets", "build"])
def test_what_load_needs_is_imported_without_hydra_and_lightning(name: str) -> None:
    used = {module.partition(".")[0] for module in imports(f"{TEMPLATE}/{name}.py", top=True)}
    assert not used & {"hydra", "lightning"}


def test_no_private_part_of_a_library() -> None:
    assert len(PRIVATE) <= 3
    own = {name for tree in FILES.values() for name in defined(tree)}
    found = {(file, part) for file, tree in FILES.items() for part in private(tree) if part not in own}
    found |= {
        (file, module)
        for file in FILES
        for module in imports(file)
        if any(is_private(part) for part in module.split(".")) and module.split(".")[0] not in OURS
    }
    assert found == {*PRIVATE}


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__") and name != "_"


def defined(tree: ast.AST) -> Iterator[str]:
    """The names of functions and classes, and of attributes that are set on self or cls."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and of_self(node):
            yield node.attr


def private(tree: ast.AST) -> Iterator[str]:
    """Private names that are reached for on an object, by `.name` or getattr, or that switch in the environment."""
    docstrings = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and is_private(node.attr) and not of_self(node):
            yield node.attr
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings:
            is_name = node.value.isidentifier() and is_private(node.value) and not node.value.endswith("_")
            if is_name:
                yield node.value


def of_self(node: ast.Attribute) -> bool:
    return isinstance(node.value, ast.Name) and node.value.id in ("self", "cls")


def test_texts_of_errors_are_not_parsed() -> None:
    assert "re" not in {module.partition(".")[0] for module in imports("tabrun/cli/keys.py")}


TEMPLATES_KEYS = "trainer|model|metrics|callbacks|optimizer|scheduler|head|loss|logger"
FILE_TYPES = "(csv|json|onnx|pt2)"
STILL = {  # files of the library that read keys of the template's; to be emptied
    *("training/pace.py", "stack/plan.py", "sweeps/rates.py", "stack/training.py", "verbs/evaluate.py"),
}


def test_the_library_reads_no_key_of_the_template() -> None:
    """Neither config["model"] or config.model, nor a dotted key such as "trainer.max_epochs"."""
    found = {name.removeprefix("tabrun/") for name in LIBRARY if any(keys_read(FILES[name]))}
    assert found <= STILL
    for code in ('x = self.config["trainer"]["x"]', "cfg.model.hidden", 'own.get("loss")', 'key == "callbacks.mine"'):
        assert any(keys_read(ast.parse(code))), code


def keys_read(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        words = ast.unparse(node) if isinstance(node, ast.Subscript | ast.Attribute | ast.Call) else ""
        config = r"(\w+\.)*(\w*config|cfg|own|made|before|after)"
        if re.match(rf"{config}(\.|\[\W|\.get\(\W)({TEMPLATES_KEYS})\b", words):
            yield words
        if isinstance(node, ast.Constant) and re.fullmatch(
            rf"({TEMPLATES_KEYS})\.(?!{FILE_TYPES}$)[a-z][\w.]+", str(node.value)
        ):
            yield node.value
