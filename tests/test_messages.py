"""Each message of another library that this one goes by, provoked: a library that has found other words is noticed."""

import argparse
import os
import pickle
import re
import warnings
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
import torch.distributed as dist
from jsonargparse import ArgumentParser, set_parsing_settings
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch.multiprocessing import ProcessRaisedException, start_processes
from torch.utils.data import DataLoader, Dataset

from linreg import InputError, LinearRegression, SyntheticData
from linreg.system import messages
from linreg.system.errors import one_line, with_remedies
from tests.conftest import Train, posix

OPTIONS: dict[str, Any] = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}


def test_a_gpu_that_is_not_there() -> None:
    with pytest.raises(MisconfigurationException, match="backend found"):
        pl.Trainer(accelerator="gpu", **OPTIONS)


def test_a_folder_in_which_there_is_a_table(tmp_path: Path) -> None:
    Path(tmp_path, "metrics.csv").touch()
    with pytest.warns(UserWarning, match=messages.EXPECTED[0]):
        _ = CSVLogger(tmp_path, "", "").experiment


def fail(number: int) -> None:
    raise KeyError(f"no such name, in process {number}")


@posix
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded, use of fork")
def test_what_another_process_has_raised() -> None:
    with pytest.raises(ProcessRaisedException) as caught:
        start_processes(fail, nprocs=1, start_method="fork")
    assert one_line(caught.value) == "ProcessRaisedException: KeyError: 'no such name, in process 0'"


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (torch.nn.Linear(3, 3), (4, 3)),
        (torch.nn.BatchNorm1d(3), (4, 3)),
        (torch.nn.Conv1d(3, 3, 1), (4, 3, 2)),
        (torch.nn.GRU(3, 3), (4, 3)),
    ],
)
def test_rows_in_float64(layer: torch.nn.Module, shape: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match=r"the model float32; call x.to\(self.dtype\) first"), with_remedies():
        layer(torch.zeros(shape, dtype=torch.float64))


def test_rows_of_lists() -> None:
    (x,) = DataLoader([{"x": [1.0, 2.0]}, {"x": [3.0, 4.0]}], 2)
    with pytest.raises(InputError, match="rows are to hold tensors, not lists"), with_remedies():
        torch.nn.Linear(2, 1)(x["x"])


class Quitter(Dataset):
    def __len__(self) -> int:
        return 4

    def __getitem__(self, i: int) -> int:
        os._exit(3)


@posix
def test_what_is_not_the_same_twice() -> None:
    torch.use_deterministic_algorithms(True)
    try:
        with pytest.raises(InputError, match="give --deterministic warn"), with_remedies():
            torch.zeros(3).put_(torch.tensor([0, 0]), torch.ones(2))
    finally:
        torch.use_deterministic_algorithms(False)


@pytest.mark.slow
def test_a_lost_worker() -> None:
    with pytest.raises(RuntimeError, match=messages.LOST_PROCESS[2]):
        list(DataLoader(Quitter(), num_workers=1))


@posix
def test_a_process_that_says_nothing() -> None:
    store, soon = dist.HashStore(), timedelta(milliseconds=10)
    with ThreadPoolExecutor() as pool:
        one, _ = pool.map(lambda rank: dist.ProcessGroupGloo(store, rank, 2, timedelta(minutes=1)), (0, 1))
    options = dist.AllreduceOptions()
    options.timeout = soon
    with pytest.raises(RuntimeError, match=messages.LOST_PROCESS[3]):
        one.recv([torch.zeros(1)], 1, 0).wait(soon)
    with pytest.raises(RuntimeError, match="|".join(messages.LOST_PROCESS[3:])):
        one.allreduce([torch.zeros(1)], options).wait()


class Code:
    def __reduce__(self) -> Any:
        return print, ("ran",)


@pytest.mark.parametrize("content", [Code(), argparse.Namespace(a=1)])
def test_code_in_a_checkpoint(content: object, tmp_path: Path) -> None:
    torch.save({"it": content}, tmp_path / "x.ckpt")
    with pytest.raises(pickle.UnpicklingError) as error:
        torch.load(tmp_path / "x.ckpt", weights_only=True)
    assert any(sign in str(error.value) for sign in messages.UNSAFE_PICKLE)


def test_a_name_and_a_type_that_a_parser_does_not_know(capsys: pytest.CaptureFixture[str]) -> None:
    parser = ArgumentParser()
    parser.add_argument("--rate", type=float | None)
    found = []
    for typed in (["--speed", "1"], ["--rate", "x"]):
        with pytest.raises(SystemExit):
            parser.parse_args(typed)
        found.append(capsys.readouterr().err)
    assert any("speed" in name for name in messages.UNKNOWN_NAME.findall(found[0])[-1])
    assert any(line.strip(" -").startswith(messages.TRIED_TYPES) for line in found[1].splitlines())


def test_an_import_that_is_denied(train: Train) -> None:
    set_parsing_settings(import_path_denylist=["*"], import_path_allowlist=["torch.optim"])
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(Dataset, "data")
    with pytest.raises(argparse.ArgumentError) as error:
        parser.parse_args(["--data=os.path.Nothing"])
    denied = messages.DENIED_IMPORT.search(str(error.value))
    assert denied
    assert denied[1].startswith("os.path")
    with pytest.raises(AttributeError) as absent:
        torch.Tensors  # noqa: B018
    found = messages.NO_ATTRIBUTE.search(str(absent.value))
    assert found
    assert found.groups() == ("torch", "Tensors")


def test_warnings_that_are_no_news(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(16), raising=False)  # a machine with 16 cores
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        (tmp_path / "x.ckpt").touch()
        options = OPTIONS | {"callbacks": [ModelCheckpoint(tmp_path)], "max_epochs": 1, "log_every_n_steps": 50}
        options["logger"] = pl.loggers.CSVLogger(tmp_path / "logs")
        pl.Trainer(accelerator="cpu", **options).fit(LinearRegression(3), SyntheticData(num_rows=20))
        rows, flags = SyntheticData(num_rows=200, batch_size=10), {"accelerator": "cpu", "logger": False}
        for steps, path in ((1, None), (2, tmp_path / "inside.ckpt")):
            trainer = pl.Trainer(max_steps=steps, **OPTIONS | flags | {"enable_checkpointing": False})
            trainer.fit(LinearRegression(3), rows, ckpt_path=path)
            trainer.save_checkpoint(tmp_path / "inside.ckpt")
        trainer = pl.Trainer(
            max_steps=1, **OPTIONS | flags | {"callbacks": [pl.callbacks.Timer()], "enable_checkpointing": False}
        )
        trainer.fit(LinearRegression(3), rows)
        trainer.save_checkpoint(tmp_path / "timed.ckpt")
        pl.Trainer(max_steps=1, **OPTIONS | flags | {"enable_checkpointing": False}).fit(
            LinearRegression(3), rows, ckpt_path=tmp_path / "timed.ckpt"
        )
        whole = torch.utils.data.TensorDataset(torch.randn(9, 3), torch.randn(9, 1))
        overfit = pl.Trainer(max_epochs=1, overfit_batches=1, **OPTIONS | flags | {"enable_checkpointing": False})
        overfit.fit(LinearRegression(3), DataLoader(whole, 3, shuffle=True))
        array = np.zeros(3)
        array.flags.writeable = False
        torch.set_warn_always(True)  # also if it has said so before
        torch.from_numpy(array)
        torch.set_warn_always(False)
    said = [str(warning.message) for warning in caught]
    patterns = [*messages.EXPECTED[1:], messages.READ_ONLY_ARRAY, messages.OF_NO_USE[2]]
    if torch.__version__ >= "2.13":
        patterns.append(messages.OF_NO_USE[0])
    assert not [pattern for pattern in patterns if not any(re.match(pattern, text) for text in said)], said


def test_a_script_that_a_font_lacks() -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure()
    figure.subplots().set_xlabel("ᚠ" + chr(0x1F9EE))
    with pytest.warns(UserWarning, match=messages.MISSING_GLYPH):
        FigureCanvasAgg(figure).draw()


@pytest.mark.slow
@pytest.mark.parametrize("flag", ["--overfit_batches", "--limit_val_batches"])
def test_a_share_that_makes_no_batch_has_a_remedy(flag: str, train: Train) -> None:
    code, out = train(flag, 0.5, "--data.batch_size", 32, "--max_epochs", 2)
    assert (code, "give a whole number" in out) == (2, True), out
    assert train(flag, 2, "--data.batch_size", 32, "--max_epochs", 2)[0] == 0
