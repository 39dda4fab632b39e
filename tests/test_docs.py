"""What is written down is true: the README's commands and numbers, the configs, the file map, the arrows."""

import ast
import re
import shlex
from pathlib import Path

import pytest
import yaml

from tests.conftest import ROOT, Train

README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", README, re.S)


def commands() -> list[str]:
    lines = [line for language, block in BLOCKS if language == "bash" for line in block.splitlines()]
    return [line for line in lines if line.startswith("python train.py")]


def test_every_command_of_the_readme_runs(train: Train, workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In order, in one folder, as a reader would; the first set-up command is `python train.py` on its own."""
    code, out = train()
    assert code == 0
    monkeypatch.syspath_prepend(workplace)
    model, config = (next(block for kind, block in BLOCKS if part in block) for part in ("class MLP", "mlp.MLP"))
    Path("mlp.py").write_text(model)
    Path("mlp.yaml").write_text(config)
    assert len([line for line in model.splitlines() if line.strip()]) == 6
    assert len(commands()) == 11
    for command in commands():
        code, out = train(*shlex.split(command)[2:])
        assert code == 0, f"{command}\n{out}"
    assert "that of the exact linear fit" in out
    for kind, block in BLOCKS:
        if kind == "python" and "load_from_checkpoint" in block:
            exec(block, {})


def test_the_numbers_of_the_readme(train: Train) -> None:
    out = train()[1]
    block = next(block for kind, block in BLOCKS if kind == "text")
    for line in block.splitlines():
        if line == "...":
            continue
        found = next(
            other
            for other in out.splitlines()
            if other.split()[0:1] == line.split()[0:1] and len(other.split()) == len(line.split())
        )
        for a, b in zip(line.split(), found.split(), strict=True):
            try:
                assert float(b) == pytest.approx(float(a), rel=1e-3 if "%" not in line else 0.5)
            except ValueError:
                assert a == b


def test_the_set_up_commands_are_those_of_ci() -> None:
    test_command = 'python -m pip install -e ".[test]" && python -m pytest'
    assert test_command in README
    assert "python -m pip install -e . && python train.py" in README


def test_the_file_map_names_every_file() -> None:
    table = README[README.index("## The files") :]
    named = set(re.findall(r"(\w+\.py)", table))
    assert named == {path.name for path in (ROOT / "linreg").glob("*.py")} - {"__init__.py", "errors.py"} | {"train.py"}


def test_the_links_to_lines_hold() -> None:
    links = re.findall(r"\[`([^`]+)`\]\(([\w/.]+)#L(\d+)\)", README)
    assert len(links) == 5
    for code, path, line in links:
        assert code in (ROOT / path).read_text().splitlines()[int(line) - 1], f"{path}#L{line}"
    tests = re.findall(r"\| `(test_\w+)` \|", README)
    assert len(tests) == 5
    assert all(f"def {name}(" in (ROOT / "tests/test_lecture.py").read_text() for name in tests)


def test_the_readme_is_short() -> None:
    assert len(README.splitlines()) < 200


def test_a_config_does_not_restate_a_default(train: Train) -> None:
    defaults = yaml.safe_load(train("--print_config")[1])
    for path in (ROOT / "configs").glob("*.yaml"):
        config = yaml.safe_load(path.read_text())
        if path.name == "default.yaml":
            continue
        for section in ("model", "data"):
            given, default = config.get(section, {}), defaults[section]
            same_class = given.get("class_path") == default["class_path"].split(".")[-1]
            for name, value in given.get("init_args", {}).items():
                assert not same_class or default["init_args"][name] != value, f"{path.name}: {name}"


ARROWS = {  # who may import whom inside the package; nothing imports `linreg` itself
    "errors": "",
    "loader": "",
    "standardizer": "",
    "figures": "",
    "metrics": "",
    "least_squares": "",
    "screen": "errors",
    "safe_yaml": "errors",
    "allowed": "errors",
    "files": "errors",
    "stopping": "errors screen",
    "cells": "",
    "text_file": "errors",
    "reader": "cells errors text_file",
    "blocks": "cells errors reader text_file",
    "sources": "blocks errors reader",
    "table": "blocks errors sources",
    "cache": "cells errors files table",
    "data": "cache errors loader table",
    "chunks": "callbacks errors linear_regression loader model",
    "learning_rate": "least_squares",
    "optimization": "errors",
    "resume": "errors",
    "run_folder": "errors files resume safe_yaml screen",
    "preparation": "data errors learning_rate least_squares model standardizer",
    "model": "errors learning_rate least_squares metrics optimization preparation resume standardizer",
    "checkpoint_file": "allowed errors files model",
    "checkpoints": "errors learning_rate run_folder",
    "restored": "checkpoint_file checkpoints errors screen",
    "console": "data learning_rate model",
    "callbacks": "console errors learning_rate model screen",
    "linear_regression": "model",
    "coefficients": "files linear_regression model table",
    "report": "coefficients data errors figures files least_squares linear_regression metrics model run_folder screen",
    "prediction": "cells coefficients errors files model reader screen",
    "parser": "allowed data errors linear_regression safe_yaml screen",
    "trainer": "callbacks checkpoint_file checkpoints chunks errors model prediction restored run_folder stopping",
    "main": "cli errors screen",
}


def imports(path: Path) -> set[str]:
    nodes = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.ImportFrom) and node.module]
    return {node.module for node in nodes if node.module.split(".")[0] == "linreg"}


@pytest.mark.parametrize("name", ARROWS)
def test_the_arrows_hold(name: str) -> None:
    assert imports(ROOT / f"linreg/{name}.py") == {f"linreg.{other}" for other in ARROWS[name].split()}


def test_the_package_can_be_read_in_one_sitting() -> None:
    for path in (ROOT / "linreg").glob("*.py"):
        source = path.read_text()
        assert len(source.splitlines()) <= 210, path.name
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.FunctionDef):
                assert node.end_lineno - node.lineno < 45, f"{path.name}: {node.name}"
