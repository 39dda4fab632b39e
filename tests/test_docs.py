"""What is written down is true: the README's commands and numbers, those of CI, the configs, the file map."""

import ast
import os
import re
import shlex
import shutil
from pathlib import Path

import pytest
import yaml

from tests.conftest import ROOT, Train, completed, posix

README = (ROOT / "README.md").read_text(encoding="utf-8")
PRE_COMMIT, WORKFLOW, PROJECT, OLDEST = (
    (ROOT / path).read_text(encoding="utf-8")
    for path in (
        ".pre-commit-config.yaml",
        ".github/workflows/test.yml",
        "pyproject.toml",
        "tests/oldest.txt",
    )
)
CHECKS = ["ruff check", "ruff format --check", "mypy"]
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", README, re.S)


def commands() -> list[str]:
    lines = [line for language, block in BLOCKS if language == "bash" for line in block.splitlines()]
    return [line for line in lines if line.startswith("python train.py")]


@pytest.mark.slow
def test_every_command_of_the_readme_runs(train: Train, workplace: Path) -> None:
    """In order, in one folder, as a reader would; the first set-up command is `python train.py` on its own."""
    code, out = train()
    assert code == 0
    model, config = (next(block for kind, block in BLOCKS if part in block) for part in ("class MLP", "mlp.MLP"))
    Path("mlp.py").write_text(model)
    Path("mlp.yaml").write_text(config)
    Path("linreg/examples").mkdir(parents=True)  # as in the clone, where the reader is
    for path in (ROOT / "linreg/examples").glob("*.yaml"):
        shutil.copy(path, "linreg/examples")
    assert len([line for line in model.splitlines() if line.strip()]) == 6
    assert len(commands()) == 10
    for command in commands():
        code, out = train(*shlex.split(command)[2:])
        assert code == 0, f"{command}\n{out}"
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


FAKE = """#!/bin/sh
if [ "$2" = venv ]; then mkdir -p "$3/bin"; cp "$0" "$3/bin/python"; exit; fi
echo "$*" >> {log}
if [ "$*" = "{failing}" ]; then exit 3; fi
"""


@posix
def test_the_set_up_commands_are_those_of_ci(tmp_path: Path) -> None:
    """CI runs what the README says, and then what pre-commit runs; it ends with the first that fails."""
    (first, test) = next(block for kind, block in BLOCKS if "pip install" in block).splitlines()
    assert first == "python -m pip install -e . && python train.py"
    assert test == 'python -m pip install -e ".[test]" && python -m pytest'
    expected = [" ".join(shlex.split(each)[1:]) for each in (*test.split(" && "), *(f"python -m {c}" for c in CHECKS))]
    for number, failing in enumerate([*expected, "nothing"]):
        place = tmp_path / f"{number}"
        (place / "bin").mkdir(parents=True)
        (place / "bin/python3").write_text(FAKE.format(log=place / "log", failing=failing))
        (place / "bin/python3").chmod(0o755)
        done = completed([str(ROOT / ".ci/run")], env=os.environ | {"PATH": f"{place / 'bin'}:{os.environ['PATH']}"})
        ran = (place / "log").read_text().splitlines()
        if failing == "nothing":
            assert (done.returncode, ran) == (0, expected), done.stderr
        else:
            assert (done.returncode, ran) == (3, expected[: number + 1]), done.stderr


def test_pre_commit_and_the_workflow_run_the_checks_of_ci() -> None:
    hooks = [hook for repo in yaml.safe_load(PRE_COMMIT)["repos"] for hook in repo["hooks"]]
    assert [hook["entry"].removeprefix("python -m ") for hook in hooks] == CHECKS
    assert all(not hook["pass_filenames"] for hook in hooks)
    jobs = yaml.safe_load(WORKFLOW)["jobs"]
    steps = [step.get("run", "") for job in jobs.values() for step in job["steps"]]
    assert all(any(line == f"python -m {each}" for step in steps for line in step.splitlines()) for each in CHECKS)
    assert sum("python -m pytest" in step for step in steps) == len(jobs) - 1  # all but the one of the checks


def test_the_oldest_dependencies_are_those_that_are_declared() -> None:
    declared = re.findall(r'^    "([\w-]+)(?:\[\w+\])?>=([\d.]+)', PROJECT, re.M)
    extras = PROJECT[PROJECT.index("[project.optional") : PROJECT.index("[tool")]
    declared += [found for found in re.findall(r'"([\w-]+)>=([\d.]+)"', extras) if found[0] not in ("ruff", "mypy")]
    oldest = dict(line.split("==") for line in OLDEST.splitlines() if line and not line.startswith("#"))
    assert {name for name, _ in declared} == oldest.keys()
    for name, version in declared:
        assert oldest[name] == version or oldest[name].startswith(f"{version}."), name


def test_the_map_names_every_room_and_a_rooms_door_every_file() -> None:
    table = README[README.index("## The rooms") :]
    for door in (ROOT / "linreg").rglob("__init__.py"):
        room = str(door.parent.relative_to(ROOT)).replace(os.sep, "/") + "/"
        assert f"`{room}`" in table or f"`{room.removeprefix('linreg/')}`" in table, room
        said = re.findall(r"``(?:linreg\.)?(\w+)``", ast.get_docstring(ast.parse(door.read_text())) or "")
        assert {path.stem for path in door.parent.glob("*.py")} - {"__init__"} <= {*said}, room


def test_the_links_name_what_is_there() -> None:
    links = re.findall(r"\[`([^`]+)`\]\(([\w/.]+)\)", README)
    assert len(links) == 6
    for symbol, path in links:
        nodes: list[ast.AST] = [ast.parse((ROOT / path).read_text())]
        for name in symbol.split("."):
            nodes = [n for node in nodes for n in node.body if getattr(n, "name", None) == name]
        assert len(nodes) == 1, f"{symbol} in {path}"
    tests = re.findall(r"\| `(test_\w+)` \|", README)
    assert len(tests) == 6
    assert all(f"def {name}(" in (ROOT / "tests/test_lecture.py").read_text() for name in tests)


def skeleton(text: str) -> dict[str, list[str]]:
    """What a translation shares with its original: code, headings by level, links, the code within tables."""
    outside = re.sub(r"```.*?```", "", text, flags=re.S)
    return {
        "blocks": re.findall(r"```\w+\n.*?```", text, re.S),
        "headings": re.findall(r"^#+ ", outside, re.M),
        "links": re.findall(r"\]\((?:\.\./|\.github/)?([\w/.]+)\)", outside),
        "tables": [
            " ".join(re.findall(r"`[^`]+`", row)) + str(row.count("|")) for row in re.findall(r"^\|.*", text, re.M)
        ],
        "code": sorted({*re.findall(r"`(--[^`]+|python [^`]+)`", re.sub(r"\s+", " ", outside))}),
    }


def test_the_korean_readme_keeps_step() -> None:
    korean = (ROOT / ".github/README.ko.md").read_text(encoding="utf-8")
    ours, theirs = skeleton(README), skeleton(korean)
    for part, expected in ours.items():
        assert theirs[part] == expected, part
    for path in re.findall(r"\]\(([\w/.]+)\)", korean):
        assert (ROOT / ".github" / path).exists(), path


def test_the_readme_is_short() -> None:
    """In lines, in characters, and in the length of a line of prose."""
    assert len(README.splitlines()) <= 200
    assert len(README) < 12_500
    outside = re.sub(r"```.*?```", "", README, flags=re.S)
    assert [line for line in outside.splitlines() if len(line) > 130 and not line.startswith("|")] == []


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


def test_every_room_is_installed() -> None:
    packages = set(
        re.findall(r'"(linreg[\w.]*)"', PROJECT[PROJECT.index("packages = [") : PROJECT.index("package-dir")])
    )
    rooms = {str(path.parent.relative_to(ROOT)).replace(os.sep, ".") for path in (ROOT / "linreg").rglob("*.py")}
    assert packages == rooms | {"linreg.configs"}
