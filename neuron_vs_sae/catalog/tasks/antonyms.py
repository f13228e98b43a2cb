"""The opposite of a word, in nine languages of six words each (the task of Arora et al. 2026, with own wording)."""

from typing import Any, Literal

from neuron_vs_sae.catalog.tasks._chat import rendered
from neuron_vs_sae.catalog.tasks._generate import PARTS, Part, Row, Wanted, combinations, pick
from neuron_vs_sae.core.pairs import PromptPairs

Language = Literal["all", "en", "zh", "fr", "de", "es", "it", "ru", "hi", "ar"]

# Size, speed, temperature; the question, what begins its answer, and a sentence to complete. Chinese puts no spaces.
_LANGUAGES: dict[str, tuple[tuple[tuple[str, str], ...], str, str, str, str]] = {
    "en": ((("big", "small"), ("fast", "slow"), ("hot", "cold")),
           'What is the opposite of "{}"?', "Answer:", 'The opposite of "{}" is', " "),
    "zh": ((("大", "小"), ("快", "慢"), ("热", "冷")),
           "“{}”的反义词是什么？", "答案：", "“{}”的反义词是", ""),
    "fr": ((("grand", "petit"), ("rapide", "lent"), ("chaud", "froid")),
           "Quel est le contraire de « {} » ?", "Réponse :", "Le contraire de « {} » est", " "),
    "de": ((("groß", "klein"), ("schnell", "langsam"), ("heiß", "kalt")),
           "Was ist das Gegenteil von „{}“?", "Antwort:", "Das Gegenteil von „{}“ ist", " "),
    "es": ((("grande", "pequeño"), ("rápido", "lento"), ("caliente", "frío")),
           "¿Cuál es el opuesto de «{}»?", "Respuesta:", "Lo contrario de «{}» es", " "),
    "it": ((("grande", "piccolo"), ("veloce", "lento"), ("caldo", "freddo")),
           "Qual è il contrario di «{}»?", "Risposta:", "Il contrario di «{}» è", " "),
    "ru": ((("большой", "маленький"), ("быстрый", "медленный"), ("горячий", "холодный")),
           "Какое слово противоположно слову «{}»?", "Ответ:", "Слово, противоположное слову «{}», —", " "),
    "hi": ((("बड़ा", "छोटा"), ("तेज़", "धीमा"), ("गर्म", "ठंडा")),
           '"{}" का विलोम शब्द क्या है?', "उत्तर:", '"{}" का विलोम शब्द है', " "),
    "ar": ((("كبير", "صغير"), ("سريع", "بطيء"), ("حار", "بارد")),
           'ما هو عكس كلمة "{}"؟', "الجواب:", 'عكس كلمة "{}" هو', " "),
}  # fmt: skip


def antonyms(
    model: Any,
    *,
    language: Language = "all",
    form: Literal["base", "chat"] = "base",
    prepend_bos: bool = True,
    seed: int = 0,
    part: Part = "discovery",
    n: int = 300,
) -> PromptPairs:
    """`What is the opposite of "big"?` and `Answer:` -> ` small`; the corrupt prompt asks for another word, same language.

    Discovery has the words of size and speed, evaluation those of temperature. With one `language` all prompts have
    their words at the same tokens; with `all` their lengths differ, so circuits must be pooled over positions
    (`--positions pooled`). Nine languages of six words give at most 216 pairs for discovery and 36 for evaluation in
    base form (two wordings), half as many in chat form, fewer where words are not single tokens. Tags: `language`,
    `word`, `template`. Raises `InputError` where fewer than `n` pairs are left.
    """
    rows = [
        row
        for part in PARTS
        for key in _LANGUAGES
        if language in ("all", key)
        for row in _rows(model.tokenizer, key, form, part, seed)
    ]
    name = "antonyms" + ("" if language == "all" else f"_{language}") + ("_chat" if form == "chat" else "")
    return pick(name, model, rows, Wanted(part, n, seed, prepend_bos), balance="language", one_layout=language != "all")


def _rows(tokenizer: Any, language: str, form: str, part: Part, seed: int) -> list[Row]:
    opposites, question, cue, sentence, gap = _LANGUAGES[language]
    opposite = {a: b for two in (opposites[:2] if part == "discovery" else opposites[2:]) for a, b in (two, two[::-1])}

    def text(word: str, template: str) -> str:
        if form == "chat":
            return rendered(tokenizer, question.format(word), cue)
        return f"{question.format(word)}{gap}{cue}" if template == "question" else sentence.format(word)

    templates = ("question",) if form == "chat" else ("question", "sentence")
    return [
        {
            "clean": text(word, template), "corrupt": text(other, template), "answer": gap + opposite[word],
            "foil": gap + opposite[other], "part": part, "language": language, "word": word, "template": template,
        }
        for word, other, template in combinations(tuple(opposite), tuple(opposite), templates, seed=seed)
        if word != other
    ]  # fmt: skip
