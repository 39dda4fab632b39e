"""From what was typed to a model, its data and settings: ``python train.py [fit | validate | test | predict]``."""

from __future__ import annotations

import json
from functools import partial
from inspect import Parameter
from typing import Any

import yaml
from jsonargparse import Namespace
from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from lightning.pytorch.cli import LightningCLI

from linreg.command.parser import DEFAULTS, WIDTHS, Parser, load_default
from linreg.command.signatures import ask, get_signature_parameters
from linreg.command.slips import check_source, flags_of, mend
from linreg.command.typed import Arguments
from linreg.experiment import run
from linreg.processes.launchers import launcher, rank_at_start
from linreg.report.card import made_with
from linreg.runs.loggers import to_be_made, told_where
from linreg.runs.recorded import check_begun, check_recorded, recorded_config, recorded_spelling
from linreg.safety.allowed import class_path_of, find_class, restrict_imports
from linreg.safety.checkpoint_file import load_model, read_checkpoint
from linreg.safety.safe_yaml import read_config
from linreg.stack.trainer import DEFAULT_CONFIG, check_flags
from linreg.system.errors import InputError, given
from linreg.system.screen import complain, say

MADE_HERE: set[str | int] = {"model", "data", "config", "flags"}  # arguments of a run that are no flags by these names


class CommandLine(LightningCLI):
    """A LightningCLI whose default subcommand is fit and whose Trainer flags are bare; it parses and builds, no more.

    Attributes:
        model: to train, or the trained one of the checkpoint.
        datamodule: what to train or to measure it on.
        settings: what else was decided, as the functions of ``experiment`` take it.
    """

    def __init__(self, typed: list[str]) -> None:
        if "--version" in typed:
            say(", ".join(made_with()))  # with which a bug report begins
            raise SystemExit(0)
        restrict_imports()
        self.arguments = Arguments(typed)
        self.command = self.arguments.subcommand
        asked = self.arguments.trainer_setting("logger")
        if (told := told_where(asked)) != asked:
            others = self.arguments.without("--logger", "--trainer.logger")
            self.arguments.flags = [("--trainer.logger", json.dumps(told)), *others]
        path = self.arguments.value("--ckpt_path")
        self.checkpoint = {} if path is None else read_checkpoint(path)
        self.own: list[str] = []  # the settings that are none of the Trainer's
        saved = self.checkpoint.get("config")
        self.recorded: dict[str, Any] = read_config(saved, f"the config in {path}") if saved else {}
        self.arguments.flags, notes = mend(self.arguments, flags_of(self.command, self.arguments, self.recorded))
        for note in notes if rank_at_start() == 0 else ():
            complain(note)
        check_source(self.arguments, self.recorded)
        super().__init__(
            LightningModule,
            LightningDataModule,
            subclass_mode_model=True,
            subclass_mode_data=True,
            save_config_callback=None,
            seed_everything_default=0,
            parser_class=Parser,
            parser_kwargs={"prog": f"python train.py {self.command}", "description": None},
            auto_configure_optimizers=False,
            run=False,
            args=self.arguments.arrange(str(DEFAULT_CONFIG), *self._implied_config()),
        )

    def _implied_config(self) -> list[str]:
        """What goes without saying: what the checkpoint was trained with, or that a path is that of a CSV file."""
        typed, subcommand, recorded = self.arguments, self.command, self.recorded
        where = f"the config in {typed.value('--ckpt_path')}"
        if self._predicts_a_file():
            return [recorded_spelling(recorded)] if recorded else []
        if not recorded:
            if self.checkpoint and not (typed.configs or typed.value("--data") or typed.value("--data.path")):
                raise InputError("this checkpoint does not say what it was trained on; give --data or --data.path")
            return [self._default_classes()]
        check_recorded(recorded, where, subcommand, lambda flag: bool(typed.configs) or typed.value(flag) is not None)
        if subcommand == "fit" and launcher():  # which says how many processes there are now
            recorded["trainer"] |= {"devices": "auto", "num_nodes": 1}
        return [recorded_config(recorded, self.checkpoint, subcommand, typed.value("--data.path") is not None)]

    def _predicts_a_file(self) -> bool:
        """Whether it is the rows of a CSV file that are to be predicted, and not what a data module says."""
        is_table = "columns" in self.checkpoint or not self.checkpoint.get("config")
        return self.command == "predict" and (is_table or self.arguments.value("--data.path") is not None)

    def _asked_of_data(self) -> dict[str, Any]:
        """The arguments of the model that are left to its data: those without a default that nobody has given.

        Of a table its widths are among them, and win over a default.
        """
        contents = (self.recorded, *self.arguments.contents)
        sections: list[Any] = [each["model"] for each in contents if isinstance(each.get("model"), dict)]
        recorded = next((section["class_path"] for section in sections if "class_path" in section), DEFAULTS["model"])
        given_args = {name.removeprefix("--model.") for name, value in self.arguments.flags if value is not None}
        for section in sections:
            given_args |= {*init_args} if isinstance(init_args := section.get("init_args"), dict) else set()
        cls = find_class(self.arguments.class_path("model") or str(recorded))
        found = {p.name: p.default for p in get_signature_parameters(cls)} if cls else {}
        asked = {name: default for name, default in found.items() if default is Parameter.empty or name in WIDTHS}
        return {name: default for name, default in asked.items() if name not in given_args}

    def _default_classes(self) -> str:
        """The classes that the command is for as long as no other is named: first of all the named ones themselves.

        A class that is named later would inherit arguments of equal name from the one before it.
        """
        in_configs = [each.get("data") for each in self.arguments.contents]
        in_configs += [each.get("init_args") for each in in_configs if isinstance(each, dict)]
        is_csv = self.arguments.value("--data.path") is not None
        is_csv = is_csv or any("path" in each for each in in_configs if isinstance(each, dict))
        data = self.arguments.class_path("data") or DEFAULTS["csv" if is_csv else "data"]
        sections: dict[str, Any] = {"data": {"class_path": data}}
        if self.arguments.task == "lecture":  # as configs/batch.yaml has it, but for the size of a batch
            usual = read_config((DEFAULT_CONFIG.parent / "batch.yaml").read_text(), "configs/batch.yaml")
            sections["trainer"] = usual["trainer"]
            if data == DEFAULTS["data"]:
                usual["data"]["init_args"].pop("batch_size")
                sections["data"] = usual["data"]
        if self.command == "fit":
            sections["model"] = {"class_path": self.arguments.class_path("model") or DEFAULTS["model"]}
        return yaml.safe_dump(sections)

    def add_core_arguments_to_parser(self, parser: Parser) -> None:
        parser.add_lightning_class_args(Trainer, "trainer")
        parser.add_bare_flags()
        for name in DEFAULTS:  # so that a config may call them by their names alone
            load_default(name)
        if self._predicts_a_file():
            parser.add_lightning_class_args(load_default("predict"), "data")
        else:
            parser.add_lightning_class_args(LightningDataModule, "data", subclass_mode=True)
        if self.command == "fit":
            parser.add_lightning_class_args(LightningModule, "model", subclass_mode=True)
            for name, default in self._asked_of_data().items():
                asked = partial(ask, name, default)
                vars(asked)["__name__"] = f"{name}_of"  # in --help
                parser.link_arguments("data", f"model.init_args.{name}", asked, apply_on="instantiate")
            self.own = parser.add_function_arguments(run, skip=MADE_HERE)
            return
        parser.add_argument("--ckpt_path", type=str, help="the checkpoint to look at")
        if self.command == "predict":
            output = "predictions.csv" if self._predicts_a_file() else "predictions.pt"
            parser.add_argument("--output", type=str, default=output, help="the file to write")
            self.own = ["output"]

    def parse_arguments(self, parser: Parser, args: list[str]) -> None:
        with given("the config"):
            self.config = parser.parse_args(args)

    def _set_seed(self) -> None:
        with given("--seed_everything"):
            super()._set_seed()

    def instantiate_classes(self) -> None:
        if self.command != "fit" and not self.checkpoint:
            raise InputError(f"{self.command} needs --ckpt_path, a checkpoint of the run to look at")
        loggers = to_be_made(self.config.trainer.logger)
        config = self.config.clone()
        config.trainer.logger = None
        check_flags(config.trainer.as_dict())  # before the data are read, which may take long
        with given("the config"):
            self.config_init = self.parser.instantiate(config)
        self.datamodule = self.config_init.data
        own = {name: self.config_init[name] for name in self.own}
        self.settings: dict[str, Any] = {**self.config_init.trainer, "logger": loggers, **own}
        if self.command == "fit":
            self.model = self.config_init.model
            given_args = (self.config.model.get("init_args") or Namespace()).as_dict()
            kept = {k: v for k, v in given_args.items() if isinstance(v, dict) and k not in self.model.hparams}
            if not self.model.hparams:  # which has kept none: they are what a checkpoint makes it again of
                asked = {name: ask(name, default, self.datamodule) for name, default in self._asked_of_data().items()}
                kept = given_args | asked
            self.model.save_hyperparameters(kept, logger=False)  # objects, such as a hypothesis, as the config has them
            if "_class_path" in self.model.hparams:  # a module that only imports the class is not imported for it again
                self.model.hparams["_class_path"] = class_path_of(self.model)
            config = self.config.clone()
            config.ckpt_path = None
            self.settings["config"] = self.parser.dump(config, skip_none=False)
            if self.arguments.begins:
                check_begun(self.arguments.begins, self.settings["config"])
        else:
            self.model = load_model(str(self.arguments.value("--ckpt_path")))
