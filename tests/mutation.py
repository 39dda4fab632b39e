"""What the fuzz of ``tests/fuzz.py`` changes: values at any depth of a checkpoint, a config, a command line."""

import copy
import inspect
import random
from dataclasses import dataclass
from typing import Any

import torch
import yaml
from lightning import Trainer

from linreg import CSVData, LinearRegression, RegressionData, Regressor, SyntheticData
from linreg.command.signatures import parameters_of
from linreg.experiment import run

# "W" stands for the folder around all, of which nothing but a run in work/runs may change.
PLACES = ["W/canary/secret.txt", "W/canary/folder", "W/canary/folder/deep/..", "local://W/canary/folder", "../canary"]
PLACES += ["W/canary/pipe", "W/canary/link", "W/canary/dirlink", "W/canary/metrics.csv", "W/canary/best.ckpt"]
PLACES += ["W/foreign/runs/base/version_0/checkpoints/best.ckpt", "W/foreign/runs/base/version_0", "W/canary/new/x"]
DEADLY = ["local://W/canary/folder", "runs/base/version_0/checkpoints/../../../../../canary/folder"]
NUMBERS: list[Any] = [-1, 0, 1, 2, 3, 10, 0.5, 1.5, -0.1, -(2**63), 2**70, 1e-320]
NUMBERS += [1e39, 1e308, float("nan"), float("inf")]
VALUES: list[Any] = [None, True, False, *NUMBERS, "", "banana", "auto", "\x1b[31m", "ü\u2028\u0100", "a\nb", "0", "-1"]
VALUES += ["x" * 3_000, [], {}, [[]], [None], {"a": 1}, {"class_path": "os.system"}, {"class_path": 5}, ["a", 1]]
CLASSES = ["linreg.CSVData", "linreg.Regressor", "linreg.SyntheticData", "linreg.LinearRegression", "torch.optim.Adam"]
CLASSES += ["torch.optim.SparseAdam", "torch.optim.LBFGS", "torch.optim.lr_scheduler.StepLR", "os.system", "linreg.no"]
CALLBACKS = ["EarlyStopping", "ModelCheckpoint", "LearningRateMonitor", "RichProgressBar", "DeviceStatsMonitor"]
CALLBACKS += ["StochasticWeightAveraging", "GradientAccumulationScheduler", "RichModelSummary", "LearningRateFinder"]
CALLBACKS += ["ModelSummary", "TQDMProgressBar", "OnExceptionCheckpoint", "Callback", "WeightAveraging", "Timer"]
# What the user asks to write somewhere is written there, and what takes its time or many processes is no fault.
WHERE = {"default_root_dir", "dirpath", "output"}
HOW_LONG = {"max_epochs", "max_steps", "min_epochs", "min_steps", "devices"}
COMMON = ["true", "false", "0", "1", "2", "3", "10", "0.5", "1.0", "-1", "null", "auto"]
WORDS = {"precision": ["16-mixed", "64-true", "transformer-engine", "8"], "accelerator": ["gpu", "tpu", "cpu", "mps"]}
WORDS |= {"strategy": ["ddp", "fsdp", "deepspeed", "single_device"], "profiler": ["simple", "advanced", "xla"]}
WORDS |= {"model.optimizer": CLASSES[4:7] + ["Rprop"], "data.target": ["y", "[a, y]", "a"], "data.path": ["table.csv"]}
WORDS |= {
    "max_time": ["00:00:00:00", "1"],
    "model.lr_scheduler": ["StepLR", "ReduceLROnPlateau", "{class_path: CyclicLR}"],
}
WORDS |= {"data.categories": ["all", "c", "[c, a]", "{c: [t, u]}", "{c: [t]}", "[y]"], "data.exclude": ["c", "[a, b]"]}
WORDS |= {"data.decimal": [",", ";"], "data.missing_values": ["t", '["?", 1, 0.5]', "[null]"]}
OWN_FLAGS = ["data.path", "data.target", "data.features", "data.missing", "data.cache", "seed_everything", "ckpt_path"]
OWN_FLAGS += ["data.categories", "data.exclude", "data.decimal", "data.missing_values"]
OWN_FLAGS += [f"data.{n}" for n in ("num_rows", "num_features", "noise_std", "data_seed", "batch_size", "val_fraction")]
OWN_FLAGS += [f"model.{n}" for n in ("lr", "momentum", "nesterov", "weight_decay", "optimizer", "lr_scheduler", "bias")]
OWN_FLAGS += ["check", "confidence", "chunk", "formula", "name", "model", "data", "config", "output", "weights_only"]
CLASSES_OF_SETTINGS = (Trainer, RegressionData, SyntheticData, CSVData, Regressor, LinearRegression)
TYPES = {
    name: str(p.annotation) for cls in CLASSES_OF_SETTINGS for name, p in inspect.signature(cls).parameters.items()
}
TYPES |= parameters_of(run) | {"seed_everything": "int"}
FITTING: dict[str, list[Any]] = {"bool": [True, False], "int": [0, 1, 2, 3, 7, -1, 2**70, -(2**63)]}
FITTING["float"] = [0.0, 0.5, 1.5, -0.1, float("nan"), float("inf"), 1e39, 1e-320, 1e308]
BOMBS = ["\na: &a [*a]", "\nb: " + "[" * 100_000, "\nc: &c0 [x, x]" + "".join(
    f"\nc{i + 1}: &c{i + 1} [*c{i}, *c{i}, *c{i}, *c{i}, *c{i}]" for i in range(14))]  # fmt: skip


@dataclass
class Mutation:
    """Changes values at random; each kind of case says what else is possible in it."""

    rng: random.Random
    kind: str
    said: list[str]

    def fits(self, key: Any, value: Any) -> bool:
        """Whether a value may be tried: one that makes a run last or start many processes proves nothing."""
        text = str(value)
        large = float(text) > 1 if text.replace(".", "", 1).isdecimal() else isinstance(value, float) and value > 1
        return not (large and str(key).split(".")[-1] in HOW_LONG)

    def of_its_type(self, key: str) -> list[Any]:
        """Values that a setting's own type allows, which get past the parser."""
        return [value for kind, values in FITTING.items() if kind in TYPES.get(key, "") for value in values]

    def pick(self, key: Any, values: list[Any]) -> Any:
        return copy.deepcopy(self.rng.choice([value for value in values if self.fits(key, value)]))

    def odd(self, key: Any, old: Any) -> Any:
        """Something else in place of a value."""
        choice, tensor = self.rng.random(), isinstance(old, torch.Tensor)
        if (fitting := self.of_its_type(str(key))) and self.rng.random() < 0.7:
            return self.pick(key, fitting)
        if tensor and choice < 0.6:
            odd = [old.new_zeros(0), old.double() * float("nan"), old * 1e30, old.new_zeros((2, *old.shape)), old.int()]
            return self.rng.choice([*odd, old.flatten(), old.bool(), old.new_zeros(()), old.tolist(), old[None]])
        if isinstance(old, bool) and choice < 0.5:
            return not old
        if (self.kind == "checkpoint" or key not in WHERE) and choice < (0.5 if isinstance(old, str) else 0.1):
            return self.rng.choice(PLACES)
        if isinstance(old, int | float | None) and choice < 0.7:
            return self.pick(key, [*NUMBERS, True])
        if key in ("class_path", "optimizer", "lr_scheduler") and choice < 0.7:
            return self.rng.choice(CLASSES)
        if key == "callbacks" and self.kind == "config":
            return [{"class_path": self.rng.choice(CALLBACKS)}]
        if choice < 0.8:  # the same deeper in
            for _ in range(self.rng.choice([1, 1, 1, 3, 100])):
                old = self.rng.choice([[old], {"a": old}])
            return old
        return self.pick(key, VALUES)

    def change(self, tree: Any) -> None:
        """Changes one value at any depth of dicts and lists, in place."""
        path: list[str] = []
        if isinstance(tree.get("callbacks"), dict) and self.rng.random() < 0.4:
            self.point_elsewhere(tree["callbacks"])
            return
        while True:
            keys = list(tree) if isinstance(tree, dict) else list(range(len(tree)))
            if not keys:
                return
            key = self.rng.choice(keys)
            path.append(str(key)[:30])
            if not (isinstance(tree[key], dict | list) and tree[key]) or self.rng.random() < 0.12:
                break
            tree = tree[key]
        if key == "config" and isinstance(tree[key], str) and self.rng.random() < 0.8:
            self.said.append("config:")
            tree[key] = self.text(tree[key])
            return
        how = self.rng.choice(["drop", "drop", "rename", "empty", *["odd"] * 8])
        old = tree.pop(key) if how in ("drop", "rename") else tree[key]
        if how == "rename" and isinstance(tree, dict):
            tree[self.rng.choice([f"{key}x", 5, "", *PLACES])] = old
        elif how == "empty":
            tree[key] = type(old)() if isinstance(old, str | int | float | dict | list) else None
        elif how == "odd":
            tree[key] = self.odd(key, old)
        self.said.append(
            f"{how} {'/'.join(path)} {tree[key]!r:.80}" if how in ("odd", "empty") else f"{how} {'/'.join(path)}"
        )

    def point_elsewhere(self, states: dict[str, Any]) -> None:
        """Changes what the callbacks of a checkpoint believe to have written, and may remove."""
        place = self.rng.choice([*PLACES, *DEADLY * 8])
        for name, state in states.items():
            if isinstance(state, dict) and self.rng.random() < 0.7:
                key = self.rng.choice([*["best_model_path", "best_k_models"] * 3, "last_model_path", "dirpath"])
                changed: dict[str, Any] = {key: place}
                if key == "best_k_models":
                    worst = torch.tensor(1e9)
                    changed = {key: {place: worst}, "kth_best_model_path": place, "kth_value": worst}
                state.update(changed)
                self.said.append(f"{name:.14} {key} {place}")

    def text(self, text: str) -> str:
        """A config in YAML, changed as what it says or as text."""
        choice = self.rng.random()
        try:
            config = yaml.safe_load(text)
        except (yaml.YAMLError, RecursionError):  # it was changed as text before
            config = None
        if choice < 0.8 and isinstance(config, dict):
            for _ in range(self.rng.choice([1, 1, 2, 3])):
                self.change(config)
            return yaml.safe_dump(config, sort_keys=False, allow_unicode=True)
        lines = text.splitlines() or [""]
        at = self.rng.randrange(len(lines))
        if choice < 0.95:
            odd = [lines[at] * 2, "", "  " + lines[at], "\t", lines[0], "- a", "{", "? [a]: b", "<<: *a", "'", "\x00"]
            lines.insert(
                at, self.rng.choice([*odd, "data: null", "model: null", "config: x.yaml", "ckpt_path: x.ckpt"])
            )
            self.said.append(f"line {at}: {lines[at]!r:.60}")
            return "\n".join(lines)
        self.said.append("a bomb")
        return text + self.rng.choice(BOMBS)

    def flags(self) -> list[str]:
        trainer = [name for name in inspect.signature(Trainer).parameters if name not in WHERE]
        flags = []
        for _ in range(self.rng.choice([1, 1, 2, 3])):
            name = self.rng.choice(trainer + OWN_FLAGS)
            choice, fitting = self.rng.random(), self.of_its_type(name.split(".")[-1])
            if choice < 0.7 and (fitting or name in WORDS):
                value = self.pick(name, [*fitting, *WORDS.get(name, [])])
            elif choice < 0.8 and name not in WHERE:
                value = self.rng.choice(PLACES)
            else:
                value = self.pick(name, [*COMMON, *VALUES, "[5]", "-3", "[", "&a [*a]", "{a: b: c}"])
            value = value if isinstance(value, str) else yaml.safe_dump(value).removesuffix("...\n").strip()
            flags += self.rng.choice([[f"--{name}", value], [f"--{name}={value}"], [f"--{name}={value}"]])
        return flags[: len(flags) - (self.rng.random() < 0.05)]
