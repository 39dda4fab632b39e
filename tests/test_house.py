"""The house rules, by the sources alone: no circles, who may import whom, how long a file, function or room may be."""

import ast
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.conftest import ROOT

# The law. A room is a folder of the package (`a.b` one in another) without those below it that are rooms of their own.
PACKAGE = "linreg"
CORE = "core"  # the files in the package's own folder
OUTSIDE = "outside"  # train.py, and what it runs
OWN_ROOM = {  # files there that are a room of their own
    "experiment": "experiment",
    "evaluation": "experiment",
    "ending": "experiment",
    "lecture": "lecture",
    "__main__": OUTSIDE,
}
ALLOWED = {  # whom the files of a room may import; each may import those of its own room
    "system": "",
    "safety": "system",
    CORE: "system safety",  # which says what an optimizer by name may be
    "files": "system",
    "tables": "core system safety files",
    "report": "core system",
    "runs": "core system safety",
    "processes": "system",
    "stack": "core system safety runs report processes",
    "experiment": "core system safety runs report stack",
    "checks": "core system files runs stack experiment",
    "lecture": "core system runs report stack experiment",
    "command": "core system safety runs report processes stack experiment checks lecture",
    "regression.exact": "core system tables report",
    "regression.pictures": "core system report regression.exact",
    "regression": "core system tables report regression.exact regression.pictures",
    "examples": PACKAGE,  # itself, whose names are what a user knows
    OUTSIDE: "processes command",
}
MOST_LINES_OF_A_FILE = 210
MOST_LINES_OF_A_FUNCTION = 40  # without its docstring
MOST_LINES_OF_A_ROOM = 1_730
MOST_LINES_OF = {"core regression": 1_416}  # of several rooms together; 600 is aimed at
MOST_LINES_OF_ALL = 13_392  # 4,500 is aimed at; 1,600 of them are the doctor
UNCOUNTED_IN_ALL = "examples"


@dataclass
class File:
    room: str
    source: str
    is_package: bool = False
    tree: ast.Module = field(init=False)

    def __post_init__(self) -> None:
        self.tree = ast.parse(self.source)


def room_of(module: str, is_package: bool) -> str:
    parts = module.split(".")[1:]
    folder = ".".join(parts if is_package else parts[:-1])
    return folder or OWN_ROOM.get(parts[-1], CORE)


def files_of(root: Path) -> dict[str, File]:
    """All files of the package by their modules' names, and train.py; the package's own __init__.py is not counted."""
    found = {}
    for path in sorted((root / PACKAGE).rglob("*.py")):
        parts, is_package = path.relative_to(root).with_suffix("").parts, path.name == "__init__.py"
        module = ".".join(parts[:-1] if is_package else parts)
        if module != PACKAGE:
            found[module] = File(room_of(module, is_package), path.read_text(encoding="utf-8"), is_package)
    if (root / "train.py").exists():
        found["train"] = File(OUTSIDE, (root / "train.py").read_text(encoding="utf-8"))
    return found


def absolute(name: str, level: int, module: str, is_package: bool) -> str:
    """The whole name of what ``from ..name import`` means in a module."""
    if not level:
        return name
    here = module.split(".")
    here = here[: len(here) - level + is_package]
    return ".".join([*here, *filter(None, [name])])


def names(file: File, module: str) -> Iterator[tuple[str, str]]:
    """Each import anywhere in a file: (from where, what), the second one empty where a module itself is meant."""
    for node in ast.walk(file.tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, "") for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            origin = absolute(node.module or "", node.level, module, file.is_package)
            yield from ((origin, alias.name) for alias in node.names)
        elif isinstance(node, ast.Call) and is_import(node.func):
            literals = [*node.args[:1], *(keyword.value for keyword in node.keywords if keyword.arg == "name")]
            for text in (each.value for each in literals if isinstance(each, ast.Constant)):
                if isinstance(text, str):
                    name = text.lstrip(".")
                    yield absolute(name, len(text) - len(name), module, file.is_package), ""


def is_import(function: ast.expr) -> bool:
    name = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
    return name in ("import_module", "__import__")


def imports(files: dict[str, File]) -> dict[str, set[str]]:
    """The files of the package that each file imports."""
    graph: dict[str, set[str]] = {module: set() for module in files}
    for module, file in files.items():
        for origin, name in names(file, module):
            if origin.split(".")[0] == PACKAGE:
                inner = f"{origin}.{name}"
                graph[module].add(inner if inner in files else origin)
    return graph


def circles(files: dict[str, File]) -> list[str]:
    """A line for each group of files that import each other, by whatever way around."""
    graph, reached = imports(files), {}
    for module in files:
        seen, waiting = set(), [module]
        while waiting:
            new = graph.get(waiting.pop(), set()) - seen
            seen |= new
            waiting += new
        reached[module] = seen
    groups = {frozenset(b for b in reached[a] if a in reached.get(b, ())) for a in files if a in reached[a]}
    return sorted(f"a circle: {', '.join(sorted(group))}" for group in groups)


def arrows(files: dict[str, File]) -> list[str]:
    """A line for each import of a room that the importing file's room may not import."""
    found = [
        f"{module}: {file.room} is a room without a law" for module, file in files.items() if file.room not in ALLOWED
    ]
    for module, others in imports(files).items():
        room = files[module].room
        for other in sorted(others - {module}):
            if other == PACKAGE and ALLOWED.get(room) == PACKAGE:
                continue
            if other == PACKAGE:
                found.append(f"{module} imports {PACKAGE} itself")
            elif other not in files:
                found.append(f"{module} imports {other}, which is no file")
            elif files[other].room not in (room, *ALLOWED.get(room, "").split()):
                found.append(f"{module} imports {other}: {room} -> {files[other].room}")
    return sorted(found)


def budgets(files: dict[str, File]) -> list[str]:
    """A line for each file, function, room and group of rooms that is too long."""
    found, of_room = [], dict.fromkeys(ALLOWED, 0)
    for module, file in files.items():
        lines = len(file.source.splitlines())
        if file.room != OUTSIDE:
            of_room[file.room] = of_room.get(file.room, 0) + lines
        found += over(module, lines, MOST_LINES_OF_A_FILE)
        for node in ast.walk(file.tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                said = node.body[0] if ast.get_docstring(node) else None
                length = (node.end_lineno or node.lineno) - node.lineno + 1
                length -= (said.end_lineno or said.lineno) - said.lineno + 1 if said else 0
                found += over(f"{module}.{node.name}", length, MOST_LINES_OF_A_FUNCTION)
    for room, lines in of_room.items():
        found += over(f"room {room}", lines, MOST_LINES_OF_A_ROOM)
    for rooms, most in MOST_LINES_OF.items():
        found += over(f"rooms {rooms}", sum(of_room[room] for room in rooms.split()), most)
    all_lines = sum(lines for room, lines in of_room.items() if room.split(".")[0] not in UNCOUNTED_IN_ALL.split())
    return sorted(found + over("the package", all_lines, MOST_LINES_OF_ALL))


def over(what: str, lines: int, most: int) -> list[str]:
    return [f"{what}: {lines} lines, more than {most}"] * (lines > most)


def doors(files: dict[str, File]) -> list[str]:
    """A line for each room whose ``__init__.py`` does not say what comes in, what goes out, and what to read."""
    rooms = {file.room for file in files.values()} - {CORE, OUTSIDE, *OWN_ROOM.values()}
    said = {
        room: ast.get_docstring(files[f"{PACKAGE}.{room}"].tree) or "" for room in rooms if f"{PACKAGE}.{room}" in files
    }
    return sorted(
        f"room {room}: no word of {word!r} at its door"
        for room in rooms
        for word in ("In:", "Out:", "Read ")
        if word not in said.get(room, "")
    )


LAWS = {"circles": circles, "arrows": arrows, "budgets": budgets, "doors": doors}


@pytest.mark.parametrize("law", LAWS)
def test_the_house_keeps_its_law(law: str) -> None:
    found = LAWS[law](files_of(ROOT))
    assert not found, "\n".join(["", *found])


# What follows holds the laws themselves against small trees, of which each breaks one.

Tree = dict[str, str]
DOOR = '"""A room. In: x. Out: y. Read z."""'
GOOD: Tree = {
    **{f"linreg/{room}/__init__.py": DOOR for room in ("stack", "runs", "report", "regression", "command", "examples")},
    "linreg/__init__.py": "from linreg.regression.model import Model",
    "linreg/errors.py": "import os\nLINREG = 'linreg.regression.model'",
    "linreg/experiment.py": "from linreg.stack.trainer import Trainer\nMODEL = 'linreg.LinearRegression'",
    "linreg/tables/__init__.py": DOOR,
    "linreg/tables/table.py": "from linreg.tables.cells import cell\nfrom linreg.errors import InputError",
    "linreg/tables/cells.py": "from linreg import errors",
    "linreg/stack/trainer.py": "import linreg.runs.folder",
    "linreg/runs/folder.py": "from .. import errors",
    "linreg/report/figures.py": "",
    "linreg/regression/model.py": "from linreg.regression.exact import solution",
    "linreg/regression/exact/__init__.py": DOOR,
    "linreg/regression/exact/solution.py": "from linreg.tables.table import Table",
    "linreg/command/main.py": "def main():\n    from linreg.experiment import Experiment",
    "linreg/examples/digits.py": "from linreg import Model",
    "train.py": "if True:\n    from linreg.command.main import main",
}


def judged(tmp_path: Path, law: str, **changed: str) -> list[str]:
    """What a law finds in the good tree, with some files changed; "__" in their names stands for "/"."""
    tree = GOOD | {f"linreg/{name.replace('__', '/')}.py": source for name, source in changed.items()}
    for name, source in tree.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(source)
    return LAWS[law](files_of(tmp_path))


@pytest.mark.parametrize("law", LAWS)
def test_a_good_tree_is_good(law: str, tmp_path: Path) -> None:
    assert judged(tmp_path, law) == []


BACK = {  # ways for tables/cells.py to import tables/table.py, which imports it
    "from": "from linreg.tables.table import Table",
    "from the folder": "from linreg.tables import table",
    "import": "import linreg.tables.table",
    "import as": "import linreg.tables.table as table",
    "relative": "from .table import Table",
    "relative, from the folder": "from . import table",
    "relative, from above": "from ..tables import table",
    "in a function": "def f():\n    from linreg.tables.table import Table",
    "in a method": "class A:\n    def f(self):\n        import linreg.tables.table",
    "for types": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from linreg.tables.table import Table",
    "in a try": "try:\n    from linreg.tables.table import Table\nexcept ImportError:\n    pass",
    "by name": "import importlib\nimportlib.import_module('linreg.tables.table')",
    "by name, in a function": "def f():\n    import_module(name='linreg.tables.table')",
    "by name, relative": "import importlib\nimportlib.import_module('.table', __package__)",
    "by __import__": "__import__('linreg.tables.table')",
}


@pytest.mark.parametrize("way", BACK)
def test_a_circle_is_found(way: str, tmp_path: Path) -> None:
    expected = ["a circle: linreg.tables.cells, linreg.tables.table"]
    assert judged(tmp_path, "circles", tables__cells=BACK[way]) == expected


def test_a_circle_of_three_and_one_of_itself(tmp_path: Path) -> None:
    found = judged(
        tmp_path,
        "circles",
        runs__a="import linreg.runs.b",
        runs__b="def f():\n    from linreg.runs.c import x",
        runs__c="from linreg.runs.a import y",
        runs__d="import linreg.runs.d",
        runs__e="import linreg.runs.a",  # leads to a circle, and is none
    )
    assert found == ["a circle: linreg.runs.a, linreg.runs.b, linreg.runs.c", "a circle: linreg.runs.d"]


@pytest.mark.parametrize(
    ("importer", "imported", "arrow"),
    [
        ("errors", "tables.table", "core -> tables"),
        ("errors", "experiment", "core -> experiment"),
        ("tables__cells", "runs.folder", "tables -> runs"),
        ("report__figures", "tables.table", "report -> tables"),
        ("runs__folder", "stack.trainer", "runs -> stack"),
        ("stack__trainer", "tables.table", "stack -> tables"),
        ("stack__trainer", "experiment", "stack -> experiment"),
        ("stack__trainer", "regression.model", "stack -> regression"),
        ("experiment", "command.main", "experiment -> command"),
        ("experiment", "regression.exact.solution", "experiment -> regression.exact"),
        ("command__main", "regression.model", "command -> regression"),
        ("regression__exact__solution", "regression.model", "regression.exact -> regression"),
        ("regression__model", "runs.folder", "regression -> runs"),
        ("examples__digits", "experiment", "examples -> experiment"),
        ("examples__digits", "regression.model", "examples -> regression"),
    ],
)
@pytest.mark.parametrize("way", ["import {}", "def f():\n    from {} import x", "import_module('{}')"])
def test_an_arrow_that_is_not_allowed_is_found(
    importer: str, imported: str, arrow: str, way: str, tmp_path: Path
) -> None:
    module = f"linreg.{importer.replace('__', '.')}"
    found = judged(tmp_path, "arrows", **{importer: way.format(f"linreg.{imported}")})
    assert found == [f"{module} imports linreg.{imported}: {arrow}"]


def test_other_arrows_that_are_found(tmp_path: Path) -> None:
    source = "from linreg import Model\nif TYPE_CHECKING:\n    import linreg.nowhere.model"
    found = judged(tmp_path, "arrows", runs__folder=source, attic__old="")
    assert found == [
        "linreg.attic.old: attic is a room without a law",
        "linreg.runs.folder imports linreg itself",
        "linreg.runs.folder imports linreg.nowhere.model, which is no file",
    ]


def test_a_room_without_a_door_is_found(tmp_path: Path) -> None:
    found = judged(tmp_path, "doors", attic__old="")
    assert found == [f"room attic: no word of {word!r} at its door" for word in ("In:", "Out:", "Read ")]


def test_git_takes_every_file_of_the_package() -> None:
    files = [str(path) for path in (ROOT / "linreg").rglob("*.py")]
    ignored = subprocess.run(["git", "check-ignore", "--no-index", *files], cwd=ROOT, capture_output=True, text=True)
    assert not ignored.stdout  # ruff and a commit would pass them by


def test_the_program_imports_the_command_only(tmp_path: Path) -> None:
    judged(tmp_path, "arrows")
    (tmp_path / "train.py").write_text("def f():\n    import linreg.regression.model")
    found = arrows(files_of(tmp_path))
    assert found == ["train imports linreg.regression.model: outside -> regression"]


def lines(number: int) -> str:
    return "x = 1\n" * number


def function(number: int) -> str:
    return "class A:\n    async def f(self):\n" + "        x = 1\n" * (number - 1)


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({"tables__cells": lines(210)}, []),
        ({"tables__cells": lines(211)}, ["linreg.tables.cells: 211 lines, more than 210"]),
        ({"tables__cells": function(40)}, []),
        ({"tables__cells": function(41)}, ["linreg.tables.cells.f: 41 lines, more than 40"]),
        (dict.fromkeys([f"tables__{i}" for i in range(5)], lines(210)), []),
        (dict.fromkeys([f"tables__{i}" for i in range(6)], lines(190)), ["room tables: 1144 lines, more than 1100"]),
        ({"errors": lines(200), "regression__model": lines(200), "regression__exact__solution": lines(210)}, []),
        (
            {"errors": lines(210), "metrics": lines(210), "regression__model": lines(181)},
            ["rooms core regression: 602 lines, more than 600"],
        ),
        (
            {
                f"{room}__{i}": lines(200)
                for room in ("tables", "report", "runs", "stack", "command", "examples")
                for i in range(5)
            },
            ["the package: 5020 lines, more than 4500"],
        ),
    ],
)
def test_a_budget_that_is_not_kept_is_found(
    changed: Tree, expected: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(MOST_LINES_OF, "core regression", 600)
    monkeypatch.setattr("tests.test_house.MOST_LINES_OF_A_ROOM", 1_100)
    monkeypatch.setattr("tests.test_house.MOST_LINES_OF_ALL", 4_500)
    assert judged(tmp_path, "budgets", **changed) == expected
