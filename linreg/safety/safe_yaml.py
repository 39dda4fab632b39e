"""YAML from a stranger: bounded in depth and size before anything is made of it, and no key given twice."""

import json
import os
from typing import Any, cast

import yaml
from jsonargparse import _loaders_dumpers as loaders
from yaml.events import AliasEvent, CollectionEndEvent, CollectionStartEvent, NodeEvent, ScalarEvent

from linreg.system.errors import InputError

MAX_DEPTH, MAX_NODES, MAX_LENGTH = 50, 20_000, 1_000  # of a config: ours have 6 levels and 300 values
MAX_BYTES = 1_000_000
FASTEST = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def check_size(text: str) -> None:
    """YAMLError for a text that nests deeper, or whose aliases stand for more, than any config does.

    A few lines of aliases of aliases stand for gigabytes; 100,000 brackets crash the C parser, which recurses.
    """
    sizes: dict[str, int] = {}  # of what each anchor stands for, with all aliases in it
    open_nodes: list[tuple[str | None, int]] = []  # anchor, and how much came before
    total = 0
    for event in yaml.parse(text, Loader=FASTEST):
        problem = None
        if isinstance(event, CollectionStartEvent):
            open_nodes.append((event.anchor, total))
        elif isinstance(event, CollectionEndEvent):
            anchor, before = open_nodes.pop()
            if anchor:
                sizes[anchor] = total - before
        elif isinstance(event, AliasEvent):
            total += sizes.get(str(event.anchor), 0)
            if event.anchor not in sizes:
                problem = f"the alias *{event.anchor} stands for nothing, or for what it is a part of"
        elif isinstance(event, NodeEvent) and event.anchor:
            sizes[event.anchor] = 1
        total += isinstance(event, NodeEvent)
        if isinstance(event, ScalarEvent) and event.implicit[0] and len(event.value) > MAX_LENGTH:
            problem = f"a value of {len(event.value):,} characters, which is not in quotes"  # a number takes for ever
        if len(open_nodes) > MAX_DEPTH or total > MAX_NODES:
            problem = f"more than {MAX_DEPTH} levels or {MAX_NODES:,} values are no config"
        if problem:
            raise yaml.MarkedYAMLError(problem=problem, problem_mark=cast(Any, event.start_mark))


class StrictLoader(loaders.get_yaml_default_loader()):  # type: ignore[misc]
    """YAML as jsonargparse reads it, but bounded, and with an error for a key given twice, where the last one wins."""

    def __init__(self, stream: Any) -> None:
        if "*" in stream or len(stream) > MAX_DEPTH:  # else it is too short to be deep or large
            check_size(stream)
        super().__init__(stream)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if str(key.value) in seen:
                raise yaml.MarkedYAMLError(problem=f"the key {key.value!r} is given twice", problem_mark=key.start_mark)
            seen.add(str(key.value))
        return super().construct_mapping(node, deep)


loaders.yaml_default_loader = StrictLoader  # type: ignore[assignment]  # for its own readings too, of which `set_loader` covers some only


def read_value(text: str) -> Any:
    """What was typed for a flag; YAMLError for what is no YAML, or more than a flag can mean."""
    return yaml.load(text, Loader=StrictLoader)


def read_config(text: str, where: str) -> dict[str, Any]:
    """A config, whose sections are known to be mappings; InputError for a text that is none."""
    try:
        if len(text) > MAX_BYTES:
            raise ValueError(f"no config has more than {MAX_BYTES:,} characters")
        content = yaml.load(text, Loader=StrictLoader)
    except (yaml.YAMLError, ValueError) as error:
        mark = getattr(error, "problem_mark", None)
        line = f" line {mark.line + 1}:" if mark else ""
        problem = getattr(error, "problem", None) or " ".join(str(error).split())
        raise InputError(f"{where}:{line} {problem}") from None
    if content is None:
        raise InputError(f"{where}: the file is empty")
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        expected = "sections such as `model:`, `data:` and `trainer:` are expected"
        raise InputError(f"{where}: {expected}, not a {type(content).__name__}")
    for name in ("config", "ckpt_path"):
        if content.get(name) is not None:
            raise InputError(f"{where}: {name!r} cannot stand in a config; type --{name} {content[name]!r}")
    for name, kinds in (("trainer", dict), ("model", str | dict), ("data", str | dict)):
        section = content.get(name, {})
        if not isinstance(section, kinds) or (isinstance(section, str) and os.path.lexists(section)):
            found = f"{name}: {json.dumps(section, default=str)}"
            raise InputError(f"{where}: {found}: a section of settings is expected; leave it out for defaults")
    return content
