"""Corpora of random tokens for the toy models."""

import torch
import toys

from neuron_vs_sae.catalog.corpora import Corpus, from_tokens

BOS = 0


def text(n: int = 23, seed: int = 0) -> Corpus:
    """Random tokens after a BOS, contexts of five to eleven tokens."""
    generator = torch.Generator().manual_seed(seed)
    rows = [
        [BOS, *torch.randint(1, toys.VOCAB, (int(torch.randint(4, 11, (1,), generator=generator)),), generator=generator).tolist()]
        for _ in range(n)
    ]  # fmt: skip
    return from_tokens("random", rows, special=[BOS], pad=BOS)
