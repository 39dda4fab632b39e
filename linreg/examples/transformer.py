"""A transformer on the columns of a table: each number and each text is a token, and attention is between them."""

from typing import Any

import torch
from torch import Tensor, nn

from linreg import Regressor


class Tokens(nn.Module):
    """A token for each column: its own vector times its number, or the vector of its level (Gorishniy et al. 2021)."""

    groups: Tensor

    def __init__(self, groups: list[int], num_targets: int, width: int) -> None:
        super().__init__()
        self.register_buffer("groups", torch.tensor(groups), persistent=False)
        self.vectors = nn.Parameter(torch.randn(len(groups), width) / width**0.5)
        self.bias = nn.Parameter(torch.randn(max(groups) + 1, width) / width**0.5)
        layer = nn.TransformerEncoderLayer(width, 2, 2 * width, batch_first=True)
        self.encoder, self.head = nn.TransformerEncoder(layer, 2), nn.Linear(width, num_targets)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.bias.expand(len(x), -1, -1).index_add(1, self.groups, x[:, :, None] * self.vectors)
        return self.head(self.encoder(tokens).mean(dim=1))


class Transformer(Regressor):
    """Its columns are asked of the data: a text has one for each of its levels but the first, called "text=level".

    Args:
        feature_names: D names.
        levels: of each column of text.
        num_targets: T.
        width: of a token.
        **training: see Module.
    """

    def __init__(
        self, feature_names: list[str], levels: dict[str, list[str]], num_targets: int, width: int = 16, **training: Any
    ) -> None:
        columns = [text if (text := name.partition("=")[0]) in levels else name for name in feature_names]
        groups = [[*dict.fromkeys(columns)].index(column) for column in columns]
        super().__init__(Tokens(groups, num_targets, width), len(columns), num_targets, **training)
