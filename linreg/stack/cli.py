"""The command line: ``python train.py [fit | validate | test | predict]``."""

from __future__ import annotations

import os
from typing import Any

from lightning.pytorch import Trainer
from lightning.pytorch.cli import LightningCLI

from linreg.errors import InputError, given
from linreg.regression import report
from linreg.regression.console import describe_data, describe_resume
from linreg.regression.prediction import PredictionData
from linreg.regression.regressor import Regressor
from linreg.runs.allowed import restrict_imports
from linreg.runs.checkpoint_file import load_model, read_checkpoint
from linreg.runs.checkpoints import BestCheckpoint
from linreg.runs.folder import RunLogger, open_run
from linreg.runs.resume import check_recorded, check_resumable, check_same_columns, differences, recorded_config
from linreg.runs.safe_yaml import read_config
from linreg.screen import say
from linreg.stack.chunks import Chunks
from linreg.stack.parser import CONFIGS, FIT_FLAGS, Arguments, Parser
from linreg.stack.stopping import one_line_endings
from linreg.stack.trainer import make_fitter, make_predictor, make_trainer
from linreg.tables.data import RegressionData


class RegressionCLI(LightningCLI):
    """A LightningCLI whose default subcommand is fit, whose Trainer flags are bare, and whose runs end in a report.

    Args:
        typed: the command line without the program's name.
    """

    def __init__(self, typed: list[str]) -> None:
        restrict_imports()
        self.arguments = Arguments(typed)
        path = self.arguments.value("--ckpt_path")
        self.checkpoint = None if path is None else read_checkpoint(path)
        self.recorded: dict[str, Any] = {}  # the config of the checkpoint
        super().__init__(
            Regressor,
            RegressionData,
            subclass_mode_model=True,
            subclass_mode_data=True,
            save_config_callback=None,
            seed_everything_default=0,
            parser_class=Parser,
            parser_kwargs={self.arguments.subcommand: {"description": None}},
            auto_configure_optimizers=False,
            args=self.arguments.arrange(str(CONFIGS / "default.yaml"), *self._implied_config()),
        )

    def _implied_config(self) -> list[str]:
        """What goes without saying: what the checkpoint was trained with, or that a path is that of a CSV file."""
        typed, subcommand = self.arguments, self.arguments.subcommand
        if subcommand == "predict":
            return []
        if self.checkpoint is None:
            is_csv = typed.value("--data.path") is not None and not typed.value("--data")
            return ["data: {class_path: CSVData}"] * bool(is_csv)
        if subcommand == "fit":
            check_resumable(self.checkpoint)
        if not self.checkpoint.get("config"):
            if not (typed.configs or typed.value("--data") or typed.value("--data.path")):
                raise InputError("this checkpoint does not say what it was trained on; give --data or --data.path")
            return []
        where = f"the config in {typed.value('--ckpt_path')}"
        self.recorded = read_config(self.checkpoint["config"], where)
        check_recorded(
            self.recorded, where, subcommand, lambda flag: bool(typed.configs) or typed.value(flag) is not None
        )
        return [recorded_config(self.recorded, self.checkpoint, subcommand, typed.value("--data.path") is not None)]

    def subcommands(self) -> dict[str, set[str]]:
        """The one that was typed, since the parser of each takes 0.05 s to build; and what of it is not a flag."""
        name = self.arguments.subcommand
        return {name: LightningCLI.subcommands()[name] | {"weights_only"}}

    def _prepare_subcommand_parser(self, klass: type, subcommand: str, **kwargs: Any) -> Parser:
        self.preparing = subcommand
        parser = super()._prepare_subcommand_parser(klass, subcommand, **kwargs)
        parser.add_bare_flags()
        return parser

    def add_core_arguments_to_parser(self, parser: Parser) -> None:
        parser.add_lightning_class_args(Trainer, "trainer")
        if self.preparing == "predict":
            parser.add_lightning_class_args(PredictionData, "data")
            parser.add_argument("--output", type=str, default="predictions.csv", help="the CSV file to write")
            return
        parser.add_lightning_class_args(RegressionData, "data", subclass_mode=True)
        parser.set_defaults({"data": {"class_path": "linreg.SyntheticData"}})
        if self.preparing == "fit":
            parser.add_lightning_class_args(Regressor, "model", subclass_mode=True)
            parser.set_defaults({"model": {"class_path": "linreg.LinearRegression"}})
            for name in ("num_features", "num_targets"):
                parser.link_arguments(f"data.{name}", f"model.init_args.{name}", apply_on="instantiate")
            for name, kind, default, meaning in FIT_FLAGS:
                parser.add_argument(name, type=kind, default=default, help=meaning)

    def parse_arguments(self, parser: Parser, args: list[str]) -> None:
        with given("the config"):
            self.config = parser.parse_args(args)

    def _set_seed(self) -> None:
        try:
            super()._set_seed()
        except (ValueError, TypeError, OverflowError) as error:
            raise InputError(f"--seed_everything: {error}") from None

    def _parse_ckpt_path(self) -> None:
        """Lightning's own lets the checkpoint's hyperparameters beat the typed ones; here they come as a config."""

    def instantiate_classes(self) -> None:
        confidence, most = self._get(self.config, "confidence"), self._get(self.config, "check")
        if confidence is not None and not 0 < confidence < 1:
            raise InputError(f"--confidence {confidence:g}: a share between 0 and 1 is expected, such as 0.95")
        if most is not None and not most > 0:
            raise InputError(f"--check {most:g}: a share above 0 is expected, such as 0.01")
        if self._get(self.config, "trainer") is None:
            raise InputError("trainer: null; leave the section out to have its defaults")
        if self.subcommand != "fit" and self.checkpoint is None:
            raise InputError(f"{self.subcommand} needs --ckpt_path, a checkpoint of the run to look at")
        if self._get(self.config, "ckpt_path") != self.arguments.value("--ckpt_path"):
            raise InputError("ckpt_path: a checkpoint has to be typed, as --ckpt_path CKPT")
        with given("the config"):
            self.config_init = self.parser.instantiate(self.config)
        self.datamodule = self._get(self.config_init, "data")
        if self.subcommand == "fit":
            self.model = self._get(self.config_init, "model")
        else:
            self.model = load_model(self.arguments.value("--ckpt_path"))
        self.trainer = self.instantiate_trainer()

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        settings = {**self._get(self.config_init, "trainer")}
        if self.subcommand == "predict":
            return make_predictor(settings, self._get(self.config_init, "output"))
        if self.subcommand != "fit":
            return make_trainer(settings, logger=False, enable_checkpointing=False)
        chunk = self._get(self.config_init, "chunk")
        chunks = None if chunk is None else Chunks(chunk, self._get(self.config_init, "formula"))
        self.has_folder = settings["logger"] in (None, True, False) and not settings["fast_dev_run"]
        return make_fitter(settings, self.model, self._config_text(), chunks)

    def _say(self, text: str) -> None:
        if self.trainer.is_global_zero:
            say(text)

    def _config_text(self) -> str:
        config = self.config[self.subcommand].clone()
        config["ckpt_path"] = None
        return self._parser(self.subcommand).dump(config, skip_none=False)

    def fit(self, model: Regressor, datamodule: RegressionData, ckpt_path: str | None = None) -> None:
        """Trains, goes back to the best checkpoint, tests it, and reports."""
        with given("the data"):
            opening = describe_data(datamodule, self.trainer, self.config[self.subcommand]["seed_everything"])
        self._say(opening)
        if self.checkpoint:
            changed = differences(self.recorded, self._config_text())
            self._say(describe_resume(self.checkpoint["epoch"] + 1, changed, datamodule.train_dataloader()))
        if self.has_folder:
            path, curves = self.arguments.value("--ckpt_path"), self._get(self.config, "trainer")["logger"] is not False
            self.trainer.logger = open_run(self._get(self.config, "name"), path, self.checkpoint, curves)
        try:
            with one_line_endings(self.trainer):
                self.trainer.fit(model, datamodule=datamodule, ckpt_path=ckpt_path, weights_only=True)
                self._test_and_report(model, datamodule)
        finally:
            if isinstance(self.trainer.logger, RunLogger):
                self.trainer.logger.close()

    def _test_and_report(self, model: Regressor, datamodule: RegressionData) -> None:
        ours = next((c for c in self.trainer.checkpoint_callbacks if isinstance(c, BestCheckpoint)), None)
        if ours and os.path.exists(ours.best_model_path):
            model.load_state_dict(read_checkpoint(ours.best_model_path)["state_dict"])
        elif ours:
            self._say("        there is no best.ckpt of this run: what follows is of its last epoch")
        if datamodule.row_counts["test"]:
            self.trainer.test(model, datamodule=datamodule, verbose=False)
        if self.trainer.is_global_zero:
            excess = report.finish(model, datamodule, self.trainer.logger, self._get(self.config, "confidence"))
            report.check(excess, self._get(self.config, "check"), model.is_linear)

    def validate(self, model: Regressor, datamodule: RegressionData, **_: Any) -> None:
        """Measures a checkpoint on the validation rows."""
        self._measure(self.trainer.validate, "val")

    def test(self, model: Regressor, datamodule: RegressionData, **_: Any) -> None:
        """Measures a checkpoint on the test rows."""
        self._measure(self.trainer.test, "test")

    def _measure(self, measure: Any, split: str) -> None:
        with given("the data"):
            opening = describe_data(self.datamodule, self.trainer, self.config[self.subcommand]["seed_everything"])
        check_same_columns(self.model, self.datamodule)
        if not self.datamodule.row_counts[split]:
            raise InputError(f"there are no {split} rows: the run had {split}_fraction 0; set --data.{split}_fraction")
        self._say(opening)
        for name, value in measure(self.model, datamodule=self.datamodule, verbose=False)[0].items():
            self._say(f"{name:12} {value:.7g}")

    def predict(self, model: Regressor, datamodule: PredictionData, **_: Any) -> None:
        """Writes a prediction beside each row of a CSV file."""
        datamodule.feature_names = model.feature_names
        self.trainer.predict(model, datamodule=datamodule, return_predictions=False)
