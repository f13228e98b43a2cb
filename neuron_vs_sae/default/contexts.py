"""The world's text as the models read it: whole sentences, packed into contexts."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from neuron_vs_sae.default import language
from neuron_vs_sae.default.tokenizer import BOS, EOS, PAD, ids
from neuron_vs_sae.default.writing import Sentence

LENGTH = 64


def contexts(seed: str, n: int) -> tuple[Int[Tensor, "n pos"], Float[Tensor, "n pos"]]:
    """`n` contexts, and 1 for each token that the words before it determine (a sentence's answer): whole sentences
    between BOS and EOS, padded.

    A context takes the first of the next few sentences that still fits, so that little of it is padding.
    """
    number = ids()
    text = language.sentences(seed)
    waiting = [next(text)[1] for _ in range(8)]
    tokens, answers = [], []
    for _ in range(n):
        row, answer = [number[BOS]], [0.0]
        while (place := _first_that_fits(waiting, LENGTH - 1 - len(row))) is not None:
            sentence = waiting.pop(place)
            waiting.append(next(text)[1])
            row += [number[word] for word in sentence.words]
            answer += [float(i == sentence.answer) for i in range(len(sentence.words))]
        padding = LENGTH - 1 - len(row)
        tokens.append([*row, number[EOS], *[number[PAD]] * padding])
        answers.append([*answer, *[0.0] * (1 + padding)])
    return torch.tensor(tokens), torch.tensor(answers)


def _first_that_fits(sentences: list[Sentence], room: int) -> int | None:
    return next((i for i, sentence in enumerate(sentences) if len(sentence.words) <= room), None)
