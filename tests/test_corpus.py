"""The corpus of nasty files: the right numbers, or a refusal that says where and what; never anything else."""

import csv
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from linreg import CSVData, InputError, read_csv
from linreg.files.blocks import CSVBlocks
from linreg.files.plain_lines import PlainLines
from linreg.tables import reader
from linreg.tables.prediction import PredictionData
from tests.conftest import Train, read_rows
from tests.corpus import CASES, TO_PREDICT, judge, judge_message


@pytest.mark.parametrize("name", CASES)
def test_a_nasty_file(name: str, tmp_path: Path) -> None:
    assert judge(CASES[name], tmp_path) == ""


@pytest.mark.parametrize("name", TO_PREDICT)
def test_a_nasty_file_to_predict(name: str, tmp_path: Path) -> None:
    case = TO_PREDICT[name]
    path = case.path(tmp_path)
    data = PredictionData(str(path))
    data.feature_names = ["a", "b"]
    if case.x is None:
        with pytest.raises(InputError) as error:
            list(data.predict_dataloader())
        assert judge_message(case, path, str(error.value)) == ""
        return
    batches = list(data.predict_dataloader())
    np.testing.assert_array_equal(np.concatenate([x for x, _ in batches]), case.x)
    assert sum(len(rows.texts) for _, rows in batches) == len(case.x)


def append(path: Path) -> None:
    with path.open("a") as file:
        file.write("7,8,9\n")


def replace(path: Path) -> None:
    path.with_name("other.csv").write_text("b,a,y\n2,1,3\n5,4,6\n")
    os.replace(path.with_name("other.csv"), path)


def shorten(path: Path) -> None:
    os.truncate(path, 6)


CHANGES = [append, replace, shorten, Path.unlink]


PLAIN, QUOTED = "a,b,y\n" + "1,2,3\n" * 30_000, "a,b,y\n" + '1,"2",3\n' * 30_000
MOMENTS = [(reader, "choose"), (PlainLines, "by_numpy"), (CSVBlocks, "_settle"), (CSVBlocks, "_value")]


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("content", [PLAIN, QUOTED])
@pytest.mark.parametrize(("owner", "step"), MOMENTS)
def test_a_file_that_changes_while_it_is_read(
    change: Callable[[Path], None],
    owner: object,
    step: str,
    content: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = tmp_path / "t.csv"
    path.write_text(content)
    original, changed = getattr(owner, step), []

    def then_change(*arguments: object) -> object:
        done = original(*arguments)
        if not changed:
            changed.append(change(path))
        return done

    monkeypatch.setattr(owner, step, then_change)
    with pytest.raises(InputError, match=r"t\.csv.* (changed while it was read|no such file)"):
        read_csv(path, "y")


def test_rows_that_are_too_few_name_the_file(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("a,y\n1,2\n")
    with pytest.raises(InputError, match=r"t\.csv: 1 row: too few to split"):
        _ = CSVData(str(path), "y").splits
    assert len(CSVData(str(path), "y", val_fraction=0, test_fraction=0).splits["train"][0]) == 1


TYPED = [
    "half a quoted number",
    "a quoted comma: 1,5",
    "lone CRs",
    "gzip cut after 30 bytes",
    "a FIFO",
    "an old Excel workbook",
]
TYPED += ["text that turns to numbers", "Unix times in ns", "no complete row", "an unclosed quote in the header"]


def test_nasty_files_over_the_command_line(train: Train, workplace: Path) -> None:
    for name in TYPED:
        case = CASES[name]
        (workplace / "t.csv").unlink(missing_ok=True)
        path = case.path(workplace)
        code, out = train("--data.path", path, "--data.target", "y", "--max_epochs", 1)
        assert code == 2, out
        assert "Traceback" not in out
        assert len(out.splitlines()) == 1, out
        assert judge_message(case, path, out.strip()) == ""
    assert not Path("runs").exists()


def test_hard_columns_over_the_command_line(train: Train) -> None:
    rows = [
        f"0.1,{2000 + i % 21},{1_700_000_000_000 + i * 997},{i % 7}e39,{i % 5}e-140,{i % 2}e140,{3 * (i % 21) - i % 7}"
        for i in range(200)
    ]
    Path("t.csv").write_text("\n".join(["same,year,ms,beyond32,tiny,huge,y", *rows]))
    code, out = train("--data.path", "t.csv", "--data.target", "y", "--check", 0.01)
    assert code == 0, out
    learned = {row["name"]: float(row["learned"]) for row in read_rows("runs/default/version_0/coefficients.csv")}
    assert learned["year"] == pytest.approx(3, rel=0.1)
    assert learned["beyond32"] == pytest.approx(-1e-39, rel=0.1)


def test_predicting_nasty_files_over_the_command_line(train: Train, workplace: Path) -> None:
    Path("t.csv").write_text("a,b,y\n" + "".join(f"{i},{i * i % 7},{i + 1}\n" for i in range(40)))
    assert train("--data.path", "t.csv", "--data.target", "y", "--max_epochs", 2)[0] == 0
    command = ["predict", "--ckpt_path", "runs/default/version_0/checkpoints/last.ckpt", "--data.path", "new.csv"]
    for name in ("in another order", "gzip", "semicolons", "missing cells", "20,000 rows", "text over several lines"):
        case = TO_PREDICT[name]
        case.path(workplace).rename("new.csv")
        code, out = train(*command, "--output", "out.csv")
        assert code == 0, out
        with open("out.csv", newline="") as file:
            header, *rows = csv.reader(file, delimiter=";" if name == "semicolons" else ",")
        assert header[-1] == "prediction"
        assert [row[-1] == "" for row in rows] == [any(np.isnan(x)) for x in case.x]
        in_columns = [[float(row[header.index(n)] or "nan") for n in "ab"] for row in rows if "NA" not in row]
        np.testing.assert_array_equal(in_columns, [x for x, row in zip(case.x, rows, strict=True) if "NA" not in row])
    for name in ("a column lacks", "no row", "text far below", "a cut gzip"):
        case = TO_PREDICT[name]
        Path("out.csv").unlink(missing_ok=True)
        case.path(workplace).rename("new.csv")
        before = sorted(Path().iterdir())
        code, out = train(*command, "--output", "out.csv")
        assert code == 2, out
        assert judge_message(case, "new.csv", out.strip()) == ""
        assert sorted(Path().iterdir()) == before
    Path("new.csv").write_text("a,b\n1,2\n1e140,3\n")
    os.mkfifo("fifo")
    for output, part in (
        ("out.csv", "line 3: too far"),
        ("new.csv", "file to predict"),
        ("fifo", "regular"),
        ("", "''"),
    ):
        code, out = train(*command, "--output", output)
        assert code == 2, out
        assert part in out
        assert "Traceback" not in out
    assert Path("new.csv").read_text() == "a,b\n1,2\n1e140,3\n"
