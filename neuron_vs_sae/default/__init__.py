"""The embedded default: two small trained models of a small written world, their dictionaries, and the world itself.

`words` and `families` say what is true and how it is written, `language` writes text and pairs of it, `tokenizer` reads
it. `models/` holds the trained models and dictionaries, `MODEL_CARD.md` and `SAE_CARD.md` what was measured of them.
"""

from pathlib import Path

NAMES = ("default", "default-gpt2")
MODELS = Path(__file__).parent / "models"
STUDY = Path(__file__).parent / "study.toml"
