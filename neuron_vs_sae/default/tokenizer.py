"""The world's tokenizer: every word and every mark is a token."""

from functools import cache
from typing import Any

from neuron_vs_sae.default import words as w
from neuron_vs_sae.default.families import FAMILIES
from neuron_vs_sae.default.writing import pieces

BOS, EOS, PAD, UNK = "<bos>", "<eos>", "<pad>", "<unk>"


@cache
def vocabulary() -> tuple[str, ...]:
    """Special tokens, then every word of the world in a fixed order."""
    from_templates = [
        piece
        for family in FAMILIES.values()
        for template in family.templates
        for is_slot, piece in pieces(template)
        if not is_slot
    ]
    from_lists = [
        *(x for state in w.STATES for x in (state.name, state.capital, *state.cities)),
        *(x for country in w.COUNTRIES for x in country),
        *(x for noun in w.NOUNS for x in noun),
        *w.PREPOSITIONS,
        *(x for verb in (*w.VERBS, *w.TRANSITIVE) for x in (verb.singular, verb.plural, *" ".join(verb.rest).split())),
        *w.NAMES,
        *(x for role in w.ROLES for x in role),
        *w.PLACES, *w.OBJECTS, *w.EVENTS, *w.INVENTED,
        *(x for items in (w.DAYS, w.MONTHS, w.LETTERS, w.NUMBER_WORDS, w.ORDINALS, w.NUMERALS) for x in items),
        *w.YEARS,
        *(x for table in w.ANTONYMS.values() for words in table for x in words),
        *(x for forms in w.PRONOUNS for x in forms),
    ]  # fmt: skip
    return tuple(dict.fromkeys([BOS, EOS, PAD, UNK, *from_templates, "teacher", *from_lists]))


@cache
def ids() -> dict[str, int]:
    """Each word's token."""
    return {word: i for i, word in enumerate(vocabulary())}


def tokenizer() -> Any:
    """A Hugging Face fast tokenizer: a word or a mark is a token, BOS is put before a text.

    `tokenizer(prompt + " " + word)` is `tokenizer(prompt)` and one more token.
    """
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    raw = Tokenizer(models.WordLevel(ids(), unk_token=UNK))
    raw.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Split(Regex("[.,?]"), "isolated")]
    )
    raw.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A", pair=f"{BOS} $A $B", special_tokens=[(BOS, ids()[BOS])]
    )
    raw.decoder = decoders.WordPiece(prefix="##", cleanup=True)  # writes no space before a mark
    return PreTrainedTokenizerFast(
        tokenizer_object=raw, bos_token=BOS, eos_token=EOS, pad_token=PAD, unk_token=UNK, padding_side="right"
    )
