"""Standardization is exact where it is hard, and stays so whatever the model's precision."""

import torch

from linreg import Standardizer


def fitted(x: torch.Tensor) -> Standardizer:
    standardizer = Standardizer(x.shape[1])
    standardizer.fit(x.mean(0), x.std(0, correction=0))
    return standardizer


def test_there_and_back() -> None:
    x = torch.randn(100, 3, dtype=torch.float64) * 5 + 7
    standardizer = fitted(x)
    z = standardizer(x)
    torch.testing.assert_close(z.mean(0), torch.zeros(3, dtype=torch.float64), atol=1e-14, rtol=0)
    torch.testing.assert_close(z.std(0, correction=0), torch.ones(3, dtype=torch.float64))
    torch.testing.assert_close(standardizer.inverse(z), x)


def test_unix_times_keep_their_digits_in_a_half_precision_model() -> None:
    seconds = 1.7e9 + torch.arange(100, dtype=torch.float64)[:, None]
    standardizer = fitted(seconds)
    expected = (seconds - seconds.mean()) / seconds.std(correction=0)
    for model in (standardizer, standardizer.half(), standardizer.to(torch.bfloat16)):
        assert model.mean.dtype == torch.float64
        torch.testing.assert_close(model(seconds), expected, rtol=1e-12, atol=1e-12)
