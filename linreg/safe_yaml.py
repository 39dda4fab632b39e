"""YAML from a stranger: bounded in depth and size before anything is made of it, and no key given twice."""

from typing import Any

import yaml
from jsonargparse import get_loader, set_loader
from yaml.events import AliasEvent, CollectionEndEvent, CollectionStartEvent, NodeEvent

from linreg.errors import InputError

MAX_DEPTH, MAX_NODES = 50, 20_000  # of a config: ours have 6 and 300
FASTEST = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_read_yaml = get_loader("yaml")


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
            total += sizes.get(event.anchor, 0)
            if event.anchor not in sizes:
                problem = f"the alias *{event.anchor} stands for nothing, or for what it is a part of"
        elif isinstance(event, NodeEvent) and event.anchor:
            sizes[event.anchor] = 1
        total += isinstance(event, NodeEvent)
        if len(open_nodes) > MAX_DEPTH or total > MAX_NODES:
            problem = f"more than {MAX_DEPTH} levels or {MAX_NODES:,} values are no config"
        if problem:
            raise yaml.MarkedYAMLError(problem=problem, problem_mark=event.start_mark)


def load_yaml(text: str) -> Any:
    """YAML as jsonargparse reads it, except that a key given twice is an error: else the last one wins unseen."""
    if "*" in text or len(text) > MAX_DEPTH:
        check_size(text)
    nodes, seen = [yaml.compose(text, Loader=FASTEST)] if ":" in text else [], set()
    while nodes:
        node = nodes.pop()
        if id(node) in seen:  # an anchor's node stands wherever it is referred to
            continue
        seen.add(id(node))
        if isinstance(node, yaml.MappingNode):
            keys = [key.value for key, _ in node.value]
            for key, value in node.value:
                if keys.count(key.value) > 1:
                    raise yaml.MarkedYAMLError(
                        problem=f"the key {key.value!r} is given twice", problem_mark=key.start_mark
                    )
                nodes.append(value)
        elif isinstance(node, yaml.SequenceNode):
            nodes += node.value
    return _read_yaml(text)


set_loader("yaml", load_yaml, (yaml.YAMLError, RecursionError))


def read_config(text: str, where: str) -> dict[str, Any]:
    """A config, whose sections are known to be mappings.

    Raises:
        InputError: for a text that is none.
    """
    try:
        content = load_yaml(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        line = f" line {mark.line + 1}:" if mark else ""
        raise InputError(f"{where}:{line} {getattr(error, 'problem', None) or error}") from None
    if content is None:
        raise InputError(f"{where}: the file is empty")
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise InputError(
            f"{where}: sections such as `model:`, `data:` and `trainer:` are expected, not a {type(content).__name__}"
        )
    return content
