"""Checkpoints, configs and flags changed at random: none may end in a traceback, hang, or touch what is not the run's.

``python -m tests.fuzz --cases 200`` is the long form; ``python -m tests.fuzz --kind checkpoint --case 17`` repeats one
case and shows all of it.
"""

import argparse
import os
import random
import re
import shutil
import signal
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import torch

from tests.conftest import ROOT
from tests.mutation import Mutation
from tests.sandbox import build, forget_reads, harm, look, start

KINDS = ("checkpoint", "config", "flags")
RUN = "work/runs/base/version_0"
FIT = ["--max_epochs", "2"]
ENDS: Counter[str] = Counter()  # how many ended how
BASES = (  # of the checkpoints: a plan of linreg's own; state of an optimizer and a scheduler, on a file
    ["--data.num_rows", "60"],
    ["--data.path", "table.csv", "--data.target", "y", "--data.categories", "all", "--model.optimizer", "Adam"]
    + ["--model.lr", "0.1"]
    + ["--model.lr_scheduler", "{class_path: torch.optim.lr_scheduler.StepLR, init_args: {step_size: 1}}"],
)


def judge(code: int | None, output: str) -> list[str]:
    """What is wrong with how a process ended; with the last line of linreg and of all in a traceback, to group by."""
    if "Traceback" in output:
        lines, frames = (
            output.strip().splitlines(),
            re.findall(r'File ".*?([\w.]+/[\w.]+)", line (\d+), in (\S+)', output),
        )
        ours = [":".join(frame) for frame in frames if frame[0].startswith("linreg/")][-1:]
        return [f"traceback: {lines[-1][:150]} | {' '.join(ours)} | {':'.join(frames[-1]) if frames else ''}"]
    if code is None:
        return ["hang"]
    if code not in (0, 1, 2):
        return [f"exit code {code}"]
    lines = [line for line in output.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("error: ")]
    if code and (len(errors) != 1 or errors[0] != lines[-1]):
        return [
            f"exit code {code} with {len(errors)} error lines, and the last is {lines[-1][:100] if lines else ''!r}"
        ]
    return ["a terminal escape on the screen"] * ("\x1b[31m" in output)  # the mutations'; a progress bar has its own


def play(kind: str, seed: int, case: int, root: Path, bases: Path, limit: float) -> tuple[list[str], list[str], str]:
    """Plays one case in a new folder; what is wrong, what it was, and its output."""
    rng = random.Random(f"{seed} {kind} {case}")
    number = rng.randrange(len(BASES))
    build(root, bases, number)
    subcommand = rng.choice(["fit"] * (3 if kind == "checkpoint" else 12) + ["test", "validate", "predict"])
    mutation, own, may_read = Mutation(rng, kind, []), "", ""
    arguments = ["--ckpt_path", f"runs/base/version_0/checkpoints/{rng.choice(['last', 'best'])}.ckpt"]
    if kind == "checkpoint":
        content = torch.load(root / "work" / arguments[1], weights_only=True)
        for _ in range(rng.choice([1, 1, 1, 2, 4])):
            mutation.change(content)
        content = point(content, str(root))
        place = rng.choice([RUN + "/checkpoints/last.ckpt", "downloads/x.ckpt", "project/checkpoints/last.ckpt"])
        torch.save(content, root / place)
        arguments[1] = os.path.relpath(root / place, root / "work") if rng.random() < 0.5 else str(root / place)
        own = RUN if place.startswith(RUN) and subcommand == "fit" else ""
        # The data have to be read, and what lies where a run has its config, to see whose it is.
        may_read = place + " config.yaml " + str(content.get("config") if isinstance(content, dict) else "")
    elif subcommand == "fit" and (kind == "config" or rng.random() < 0.8):
        arguments = []
    if kind == "config":
        source = rng.choice([*sorted((root / "work/configs").glob("*.yaml")), *[root / RUN / "config.yaml"] * 4])
        text = mutation.text(source.read_text(encoding="utf-8")).replace("W/", f"{root}/")
        (root / "work/case.yaml").write_text(text, encoding="utf-8")
        arguments += ["--config", "case.yaml"]
    arguments += ["--data.path", "table.csv"] if subcommand == "predict" else []
    arguments += (["--max_epochs", "4"] if kind == "checkpoint" else FIT) if subcommand == "fit" else []
    if kind == "flags":
        arguments += [flag.replace("W/", f"{root}/") for flag in mutation.flags() if "\0" not in flag]
        own = RUN if any("base/" in argument for argument in arguments) and subcommand == "fit" else ""
        mutation.said = arguments
    forget_reads(root)
    before = look(root)
    code, output, _ = start([subcommand, *arguments], root / "work", limit)
    reads = may_read if kind == "checkpoint" else " ".join(before)  # a user may read what is the user's
    ENDS[f"{kind}: exit {code}"] += 1
    typed = [f"made work/{flag.removeprefix('--output=')}" for flag in arguments if flag.startswith("--output=")]
    harmed = [text for text in harm(before, look(root), own, reads) if text not in typed]
    return judge(code, output) + harmed, [subcommand, *mutation.said], output


def point(value: Any, root: str) -> Any:
    """The same with the folder around all in the place of W."""
    if isinstance(value, dict):
        return {point(key, root): point(inner, root) for key, inner in value.items()}
    if isinstance(value, list):
        return [point(inner, root) for inner in value]
    return value.replace("W/", f"{root}/") if isinstance(value, str) else value


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=12, help="of each kind")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kind", choices=KINDS)
    parser.add_argument("--case", type=int, help="this one only, with its output")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # ends the case that is played, too

    os.environ["OMP_NUM_THREADS"] = "1"
    torch.set_num_threads(1)
    causes: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as folder:
        bases, seconds = Path(folder).resolve() / "bases", 0.0
        shutil.copytree(ROOT / "configs", bases / "configs")
        for number, flags in enumerate(BASES):
            (bases / f"{number}").mkdir()
            rng = random.Random(number)
            rows = [f"{(a := rng.gauss(0, 1))},{(b := rng.gauss(5, 2))},{rng.choice('tu')},{a - b}" for _ in range(60)]
            (bases / f"{number}/table.csv").write_text("\n".join(["a,b,c,y", *rows]) + "\n")
            code, output, seconds = start([*flags, *FIT, "--name", "base"], bases / f"{number}", 120)
            assert code == 0, output
        limit = max(10.0, 20 * seconds)  # on a busy machine a good case takes its time too
        for kind in [options.kind] if options.kind else KINDS:
            for case in range(options.cases) if options.case is None else [options.case]:
                root = Path(folder).resolve() / f"{kind}_{case}"
                problems, said, output = play(kind, options.seed, case, root, bases, limit)
                shutil.rmtree(root)
                causes.update(f"{kind}: {problem}" for problem in problems)
                if problems or options.case is not None:
                    print(
                        f"{kind} {case}: {'; '.join(problems) or 'fine'}\n  {' | '.join(map(repr, said))[:600]}",
                        flush=True,
                    )
                    print(f"  python -m tests.fuzz --seed {options.seed} --kind {kind} --case {case}", flush=True)
                if options.case is not None:
                    print(output)
    for cause, count in causes.most_common():
        print(f"{count:4} {cause}")
    print(f"{sum(causes.values())} problems; {', '.join(f'{end}: {count}' for end, count in sorted(ENDS.items()))}")
    return int(bool(causes))


if __name__ == "__main__":
    sys.exit(main())
