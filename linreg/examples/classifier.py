"""A classifier: the species of a penguin from its measures, with its accuracy and confusion matrix."""

import csv
from typing import Any

import numpy as np
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torchmetrics.classification import MulticlassAccuracy, MulticlassConfusionMatrix

from linreg import DataModule, Module

MEASURES = ["bill_length_mm", "bill_depth_mm", "flipper_length_mm", "body_mass_g"]


class Penguins(DataModule):
    """Measures (N, 4) and the species, a text, whose levels become the classes."""

    def __init__(self, path: str = "configs/penguins.csv", **loading: Any) -> None:
        super().__init__(**loading)
        self.path = path

    def load(self) -> Any:
        with open(self.path, newline="") as file:
            rows = [row for row in csv.DictReader(file) if row["bill_length_mm"] != "NA"]
        return np.array([[float(row[name]) for name in MEASURES] for row in rows]), [row["species"] for row in rows]


class Classifier(Module):
    """A hidden layer between the measures, standardized by what was seen in training, and the scores of the classes.

    Args:
        num_features: how many measures; asked of the data, as the next one is.
        num_classes: how many species.
        width: units of the hidden layer.
        **training: see Module.
    """

    def __init__(self, num_features: int, num_classes: int, width: int = 32, **training: Any) -> None:
        layers = [
            nn.BatchNorm1d(num_features),
            nn.Linear(num_features, width),
            nn.ReLU(),
            nn.Linear(width, num_classes),
        ]
        accuracy, confusion = MulticlassAccuracy(num_classes, average="micro"), MulticlassConfusionMatrix(num_classes)
        super().__init__(nn.Sequential(*layers), {"accuracy": accuracy, "confusion": confusion}, **training)

    def loss(self, y_hat: Tensor, y: Tensor) -> Tensor:
        return cross_entropy(y_hat, y)
