"""A checkpoint as a program that needs no linreg: torch.export, and ONNX where onnxscript is installed.

``python -m linreg.examples.export runs/default/version_0/checkpoints/best.ckpt`` writes model.pt2, to be used as in
``torch.export.load("model.pt2").module()(x)``: x is (N, D) of float64 in the data's own units, its columns as in
columns.json, and so are the predictions (N, T).
"""

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from linreg import LinearRegression, script


class Predictor(nn.Module):
    """What a model computes, and nothing of how it is trained."""

    def __init__(self, model: LinearRegression) -> None:
        super().__init__()
        self.before, self.hypothesis, self.after = model.x_standardizer, model.hypothesis, model.y_standardizer

    def forward(self, x: Tensor) -> Tensor:
        return self.after.inverse(self.hypothesis(self.before(x).to(torch.float32)).double())


def main(path: str, folder: str = ".") -> None:
    """Writes what the checkpoint at a path computes to a folder."""
    model = LinearRegression.load_from_checkpoint(path)
    columns = {"features": model.feature_names, "targets": model.target_names, "levels": model.levels}
    Path(folder, "columns.json").write_text(json.dumps(columns, indent=1))
    x = (torch.zeros(2, len(model.feature_names), dtype=torch.float64),)
    rows = ({0: torch.export.Dim("rows")},)
    program = torch.export.export(Predictor(model).eval(), x, dynamic_shapes=rows)
    torch.export.save(program, Path(folder, "model.pt2"))
    if find_spec("onnxscript"):
        onnx: Any = torch.onnx.export(program, x, dynamic_shapes=rows, dynamo=True, verbose=False)
        onnx.save(str(Path(folder, "model.onnx")))
    print(f"model.pt2{' and model.onnx' * bool(find_spec('onnxscript'))}: {len(x[0][0])} columns, see columns.json")


if __name__ == "__main__":
    script(main)
