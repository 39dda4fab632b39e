"""The card of a run: what was typed, which data by their SHA-256, what came of it, and what it was made with."""

import hashlib
import platform
from pathlib import Path

import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from linreg import CSVData, LinearRegression, SyntheticData, run
from tests.conftest import ROOT, Train, completed, read_metrics, read_rows


def test_a_card_tells_how_a_number_was_made(train: Train, workplace: Path) -> None:
    typed = ["--data.path", "configs/penguins.csv", "--data.target", "body_mass_g", "--data.categories", "[species]"]
    assert train(*typed, "--max_epochs", 40)[0] == 0
    folder = Path("runs/default/version_0")
    card, metrics = (folder / "card.md").read_text(), read_metrics(folder)
    digest = hashlib.sha256(Path("configs/penguins.csv").read_bytes()).hexdigest()
    assert f"configs/penguins.csv: {Path('configs/penguins.csv').stat().st_size:,} bytes, SHA-256 {digest}" in card
    assert "'species' has the levels 'Adelie', left out as the reference, 'Chinstrap', 'Gentoo'" in card
    assert "344 rows" in card
    of = metrics["run"]
    assert f"reported: {of['checkpoint']}, epoch {of['epoch']} of {of['epochs']}" in card
    assert f"lr {of['lr']:g} (chosen from the data)" in card
    for row in read_rows(folder / "coefficients.csv"):
        assert f"{float(row['learned']):+.10g}" in card
    assert f"torch {torch.__version__}" in card
    assert f"python {platform.python_version()}" in card
    commit = completed(["git", "-C", str(ROOT), "rev-parse", "HEAD"]).stdout.strip()
    assert f"commit {commit}" in card if commit else "no commit" in card
    accumulator = EventAccumulator(str(folder))
    accumulator.Reload()
    text = accumulator.Tensors("card/text_summary")[0].tensor_proto.string_val[0].decode()
    assert digest in text


def test_a_card_of_other_data_and_a_rate_of_ones_own(workplace: Path) -> None:
    found = run(LinearRegression(3, lr=0.1), SyntheticData(num_rows=60), max_epochs=1)
    card = (found.folder / "card.md").read_text()
    assert "lr 0.1, " in card
    assert "SHA-256" not in card
    assert "prediction = " in card


def test_a_config_run_again_says_what_is_not_as_on_its_card(train: Train, workplace: Path) -> None:
    lines = Path("configs/penguins.csv").read_text().splitlines()
    Path("a.csv").write_text("\n".join(lines[:200]) + "\n")
    digest = hashlib.sha256(Path("a.csv").read_bytes()).hexdigest()
    assert train("--data.path", "a.csv", "--data.target", "body_mass_g", "--max_epochs", 1)[0] == 0
    config = "runs/default/version_0/config.yaml"
    out = train("--config", config)[1]
    assert "not as on the card" not in out
    Path("a.csv").write_text("\n".join(lines[:201]) + "\n")
    card = Path(config).with_name("card.md")
    card.write_text(card.read_text().replace(f"torch {torch.__version__}", "torch 2.0.1"))
    out = " ".join(train("--config", config)[1].split())
    other = hashlib.sha256(Path("a.csv").read_bytes()).hexdigest()
    assert f"not as on the card of that run: torch {torch.__version__} (was torch 2.0.1); a.csv: " in out
    assert f"SHA-256 {other} (was a.csv: " in out
    assert f"SHA-256 {digest})" in out
    card.write_bytes(b"## Made with\n\xff")
    assert train("--config", config)[0] == 0


def test_a_config_run_again_says_which_features_are_new_or_gone(train: Train, workplace: Path) -> None:
    def write(*names: str) -> None:
        cells = {"kind": "uvw", "b,\nc": "123", "a": "254", "d": "717", "y": "3846"}
        rows = [",".join(cells[name][i % len(cells[name])] for name in names) for i in range(60)]
        Path("a.csv").write_text("\n".join([",".join(f'"{name}"' for name in names), *rows, ""]))

    write("kind", "a", "b,\nc", "y")
    typed = ["--data.path", "a.csv", "--data.target", "y", "--data.categories", "all", "--max_epochs", 1]
    assert train(*typed)[0] == 0
    folder = Path("runs/default/version_0")
    assert "\nfeatures: kind=v, kind=w, a, b, c\n" in (folder / "card.md").read_text()
    write("y", "b,\nc", "a", "kind")  # in another order
    again = ["--config", folder / "config.yaml"]
    out = " ".join(train(*again)[1].split())
    assert "not as on the card of that run: a.csv: " in out
    assert "features that are" not in out
    write("d", "y", "b,\nc", "kind")
    out = " ".join(train(*again)[1].split())
    assert "); features that are new: d; features that are gone: a data" in out
    write("a", "y", "b,\nc")
    assert "); features that are gone: kind=v, kind=w data" in " ".join(train(*again)[1].split())
    card = (folder / "card.md").read_text()
    (folder / "card.md").write_text(card.replace("\nfeatures: ", "\n"))  # an older one
    assert "features that are" not in train(*again)[1]


def test_a_file_is_told_as_it_was_when_it_was_read(workplace: Path) -> None:
    Path("a.csv").write_text("a,y\n1,2\n2,3\n3,5\n4,4\n")
    data, before = CSVData("a.csv", "y"), hashlib.sha256(Path("a.csv").read_bytes()).hexdigest()
    model = LinearRegression(data.num_features)
    Path("a.csv").write_text("a,y\n1,2\n")
    card = (run(model, data, max_epochs=1).folder / "card.md").read_text()
    assert before in card


def test_what_data_of_ones_own_call_files_is_theirs(workplace: Path) -> None:
    class Own(SyntheticData):
        files = (Path("a.csv"), None, 3)

    assert (run(LinearRegression(3), Own(num_rows=60), max_epochs=1).folder / "card.md").exists()
