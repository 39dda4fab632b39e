"""What a person sees on a terminal: a real one, by a pseudo-terminal, whose screen is put together from what came."""

import os
import re
import signal
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from tests.conftest import LONG, command, posix, started

pty = pytest.importorskip("pty")

pytestmark = [posix, pytest.mark.slow]
Terminal = Callable[..., tuple[int, str, str]]


def screen_of(text: str) -> str:
    """What a terminal shows: a carriage return goes back to the line's beginning, and later text lies over it."""
    lines: list[list[str]] = [[]]
    at = 0
    for letter in text:
        if letter == "\r":
            at = 0
        elif letter == "\n":
            lines.append([])
            at = 0
        else:
            assert letter.isprintable(), f"{letter!r} on the screen"
            lines[-1] += " " * (at + 1 - len(lines[-1]))
            lines[-1][at] = letter
            at += 1
    return "\n".join("".join(line).rstrip() for line in lines)


@pytest.fixture
def terminal(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """Runs a command line on a terminal; its exit code, the screen at the end, and all that was written.

    A signal is sent once the bar has been seen, if one is given.
    """
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "80")

    def run(*args: object, signal_to_send: int | None = None) -> tuple[int, str, str]:
        ours, theirs = pty.openpty()
        text = b""
        with started(command(*args), stdin=theirs, stdout=theirs, stderr=theirs) as child:
            os.close(theirs)
            with suppress(OSError):  # the other side is closed
                while part := os.read(ours, 65_536):
                    text += part
                    if signal_to_send and b"left  loss" in text:
                        child.send_signal(signal_to_send)
                        signal_to_send = None
            code = child.wait(LONG)
        os.close(ours)
        return code, screen_of(text.decode()), text.decode()

    return run


BAR = re.compile(r"^epoch [\d,]+ of [\d,]+  \[(#*)(\.*)]  \d+:\d\d:\d\d left  loss [\d.e+-]+", re.M)
LONG_RUN = ["--config", "configs/stochastic.yaml", "--max_epochs", 1_000]


def test_the_line_is_redrawn_and_gone(terminal: Terminal) -> None:
    code, screen, text = terminal("--config", "configs/stochastic.yaml", "--max_epochs", 40)  # seconds, on any machine
    assert code == 0, screen
    drawn = [match for line in text.split("\r") if (match := BAR.match(line))]
    assert len(drawn) > 1
    assert [len(match[1]) for match in drawn] == sorted(len(match[1]) for match in drawn)
    assert len(drawn[-1][1]) > len(drawn[0][1])
    assert "excess_mse/train" in text
    assert "v_num" not in text
    assert not BAR.search(screen)
    assert "left  loss" not in screen
    assert [line for line in screen.splitlines() if len(line) > 80] == []
    assert "\x1b" not in text  # no colour, so none to turn off by NO_COLOR


def test_it_is_gone_when_the_run_is_stopped(terminal: Terminal) -> None:
    code, screen, _ = terminal(*LONG_RUN, signal_to_send=signal.SIGINT)
    assert code == 130
    assert re.search(
        r"^stopped; (.* lost; )?resume it with: python train.py --ckpt_path|^stopped; no epoch was saved", screen, re.M
    )


def test_it_is_gone_when_the_run_diverges(terminal: Terminal) -> None:
    flags = ["--model.lr_scheduler", "{class_path: ExponentialLR, init_args: {gamma: 1.0004}, interval: step}"]
    code, screen, text = terminal(*LONG_RUN, *flags)
    assert code == 1, screen
    assert BAR.search(text.replace("\r", "\n"))
    assert re.search("^error: the training diverged", screen, re.M)


NET = """
import time, torch
from lightning.pytorch import LightningDataModule, LightningModule
class Net(LightningModule):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(1, 1)
    def training_step(self, batch, batch_idx):
        time.sleep(0.05)
        return {"loss": self.layer(batch).square().mean()}
    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.01)
class Rows(LightningDataModule):
    def train_dataloader(self):
        return torch.utils.data.DataLoader(torch.ones(24, 1), batch_size=4)
"""


def test_any_model_has_its_loss_and_its_time_there(terminal: Terminal) -> None:
    Path("net.py").write_text(NET)
    code, screen, text = terminal("--model", "net.Net", "--data", "net.Rows", "--max_epochs", 2)
    assert code == 0, screen
    assert BAR.search(text.replace("\r", "\n")), text
    assert not BAR.search(screen)


def test_a_prediction_leaves_no_bar(terminal: Terminal) -> None:
    assert terminal("--config", "configs/csv.yaml", "--max_epochs", 1)[0] == 0
    typed = ["--ckpt_path", "runs/csv/version_0/checkpoints/last.ckpt", "--data.path", "configs/penguins.csv"]
    code, screen, text = terminal("predict", *typed)
    assert (code, screen.strip()) == (0, "predictions.csv: 344 predictions, 2 of them empty for a missing cell"), text
