"""The figures of speed are those that were measured; that a machine is fast is no test."""

import json
from pathlib import Path

from tests.bench_speed import show

ROOT = Path(__file__).parents[1]


def test_the_page_shows_what_was_measured() -> None:
    measured = json.loads((ROOT / "tests/bench_speed.json").read_text())
    readme = (ROOT / "linreg/stack/README.md").read_text()
    assert show(measured["result"]) in readme
    assert measured["about"] in readme.replace("\n", " ")
