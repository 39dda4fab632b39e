"""Seeded runs give the numbers that they gave, and what an older version has left can be used."""

import json
import shutil
from pathlib import Path

import pytest

from tests.conftest import ROOT, Train, read_metrics, read_rows
from tests.golden import RUNS, differences, flat, play

GOLDEN = json.loads((ROOT / "tests/golden.json").read_text())
OLD = ROOT / "tests/old_run"  # of the first version, before runs had a mark
QUICK = ("planned", "adam")
LAST = "runs/old/version_0/checkpoints/last.ckpt"


def comparable(record: dict[str, list[float]]) -> dict[str, list[float]]:
    """Without the weights of best.ckpt: of epochs that are equally good, rounding decides which one that is.

    And without the settings that not every torch has in the state of an optimizer or a schedule.
    """
    newer = ("/_is_initial", "/verbose", "/decoupled_weight_decay")
    return {
        place: numbers
        for place, numbers in record.items()
        if not place.startswith("best/") and not place.endswith(newer)
    }


@pytest.mark.parametrize(
    "name", [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in RUNS]
)
def test_the_same_numbers(name: str) -> None:
    before, now = (comparable(record) for record in (GOLDEN[name], json.loads(json.dumps(play(name)))))
    # Another processor rounds otherwise; a bias whose optimum is 0, in standardized units, is nothing but rounding.
    assert differences(before, now, tolerance=1e-3, least=1e-3) == []


def test_a_number_that_is_off_is_seen() -> None:
    name = "default"
    for place, value in comparable(GOLDEN[name]).items():
        assert differences(GOLDEN[name], GOLDEN[name] | {place: [value[0] + 1.0, *value[1:]]}, 1e-4), place
    assert differences(GOLDEN[name], {}) != []


@pytest.fixture
def old(workplace: Path) -> Path:
    shutil.copytree(OLD, "runs/old/version_0")
    return workplace


@pytest.mark.slow
def test_an_old_run_goes_on_in_its_folder(old: Path, train: Train) -> None:
    for epochs in (3, 4):
        code, out = train("--ckpt_path", LAST, "--max_epochs", epochs)
        assert code == 0, out
        assert "in a new folder" not in out
        assert "forgotten" not in out
    expected, found = json.loads((OLD / "four_epochs.json").read_text()), read_metrics("runs/old/version_0")
    del found["run"]  # which the older version did not write
    assert differences(flat(expected), flat(found), 1e-4) == []


def test_an_old_checkpoint_predicts_and_an_old_config_runs(old: Path, train: Train) -> None:
    assert train("predict", "--ckpt_path", LAST, "--data.path", "configs/penguins.csv")[0] == 0
    for before, now in zip(read_rows(OLD / "predictions.csv"), read_rows("predictions.csv"), strict=True):
        assert now["prediction"] == before["prediction"] == "" or float(now["prediction"]) == pytest.approx(
            float(before["prediction"]), rel=1e-6
        )
    assert train("--config", "runs/old/version_0/config.yaml")[0] == 0
    (folder,) = Path("runs").glob("*/version_1")
    expected, found = read_metrics(OLD), read_metrics(folder)
    del found["run"]
    assert differences(flat(expected), flat(found), 1e-4) == []
