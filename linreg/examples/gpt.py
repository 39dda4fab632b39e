"""A transformer that learns a text, by default this file, character by character, and goes on with a beginning."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from linreg import DataModule, Module


class Text(DataModule):
    """Rows (context + 1,) of characters by number; two rows of different splits have none in common."""

    def __init__(self, path: str = __file__, context: int = 32, **loading: Any) -> None:
        super().__init__(split="order", gap=context, **loading)
        self.text, self.context = Path(path).read_text(encoding="utf-8"), context
        self.vocabulary = sorted({*self.text})

    def load(self) -> Any:
        numbers = {character: i for i, character in enumerate(self.vocabulary)}
        return torch.tensor([numbers[character] for character in self.text]).unfold(0, self.context + 1, 1)


class GPT(Module):
    def __init__(self, vocabulary: list[str], context: int, width: int = 64, depth: int = 2, **training: Any) -> None:
        super().__init__(**training)
        self.vocabulary, self.context = vocabulary, context
        self.token, self.place = nn.Embedding(len(vocabulary), width), nn.Embedding(context, width)
        block = nn.TransformerEncoderLayer(width, 4, 4 * width, activation="gelu", batch_first=True, norm_first=True)
        self.blocks = nn.TransformerEncoder(block, depth, enable_nested_tensor=False)
        self.head = nn.Linear(width, len(vocabulary))

    def forward(self, x: Tensor) -> Tensor:
        x = x[:, -self.context :]
        mask = nn.Transformer.generate_square_subsequent_mask(x.shape[1], device=x.device)
        places = torch.arange(x.shape[1], device=x.device)
        return self.head(self.blocks(self.token(x) + self.place(places), mask, is_causal=True))

    def step(self, batch: Tensor) -> Tensor:
        return cross_entropy(self(batch[:, :-1]).flatten(0, 1), batch[:, 1:].flatten())  # flat: a GPU repeats it

    @torch.inference_mode()
    def generate(self, beginning: str, length: int) -> str:
        numbers = [self.vocabulary.index(character) for character in beginning]
        for _ in range(length):
            scores = self(torch.tensor([numbers], device=self.device))[0, -1]
            numbers.append(int(torch.multinomial(scores.softmax(0), 1)))
        return "".join(self.vocabulary[number] for number in numbers)
