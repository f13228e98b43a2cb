"""The corpus and the bases of a study that reads text."""

from typing import Any

from neuron_vs_sae.catalog.corpora import Corpus, corpus
from neuron_vs_sae.core.basis import Basis
from neuron_vs_sae.studies.loaded import Loaded


def corpus_of(loaded: Loaded[Any]) -> Corpus:
    """The corpus that a study reads. Raises `InputError` as `catalog.corpora.corpus` does."""
    spec = loaded.spec
    return corpus(loaded.model, spec.corpus, length=spec.context_length, contexts=spec.contexts, seed=spec.seed[0])


def check_corpus(loaded: Loaded[Any]) -> None:
    """Raises `InputError` where there is no text, before anything long runs."""
    next(corpus_of(loaded).batches(1))


def basis_of(loaded: Loaded[Any], text: str) -> Basis:
    """The basis of that text; if it is fitted to prompts, fitted to the first task's."""
    return next(basis for (_, name), basis in loaded.bases.items() if name == text)
