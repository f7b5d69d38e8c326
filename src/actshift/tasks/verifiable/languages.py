"""Which language a text is written in, by its letters and its most frequent words.

The reference implementation of IFEval asks langdetect, a statistical model of letter triples. That package is no part
of this suite: its answer on short texts hangs on a random seed, and a text it cannot judge counts as followed there.
Here a language is judged in two steps that can be read off the tables below: the script that most letters belong to,
and, where several languages share it, the share of the words that are among the language's most frequent ones (and
letters that only it has). A text without letters has no language and follows nothing.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections import Counter
from collections.abc import Mapping
from functools import cache
from importlib.resources import files

SCRIPT_OF_ONE = {
    "HANGUL": "ko",
    "THAI": "th",
    "TAMIL": "ta",
    "TELUGU": "te",
    "KANNADA": "kn",
    "MALAYALAM": "ml",
    "GUJARATI": "gu",
    "GURMUKHI": "pa",
    "BENGALI": "bn",
    "HEBREW": "he",
    "GREEK": "el",
    "HIRAGANA": "ja",
    "KATAKANA": "ja",
    "CJK": "zh",
}
"""Scripts that stand for one language, by the first word of the Unicode names of their letters."""

FREQUENT: Mapping[str, Mapping[str, str]] = json.loads(
    files("actshift.tasks.verifiable").joinpath("frequent_words.json").read_text(encoding="utf-8")
)
"""Some of the most frequent words of languages that share a script, by script and language."""

OWN_LETTERS = {"ur": "ٹڈڑںےھ", "uk": "іїєґ", "vi": "ăđơưạảấầẩẫậắằẳẵặẹẻẽếềểễệỉịọỏốồổỗộớờởỡợụủứừửữựỳỵỷỹ", "mr": "ळ"}
"""Letters that only one of the languages that share a script has."""

_CODES = {"zh-cn": "zh", "zh-tw": "zh"}
LANGUAGES = frozenset(SCRIPT_OF_ONE.values()) | {name for group in FREQUENT.values() for name in group}
"""The languages that can be judged, as ISO 639-1 codes."""

_TOKEN = re.compile(r"[^\W\d_]+(?:[\u0300-\u036f\u0900-\u0903\u093a-\u094f]+[^\W\d_]*)*")


def language(text: str) -> str | None:
    """The most likely language (ISO 639-1), or None for a text without letters or of a script that is not known.

    score = (frequent words + words with a letter of its own) / words; the highest one wins, and where no word is known,
    the script's most common language: English, Russian, Arabic, Hindi.
    """
    scripts = Counter(script for letter in text if (script := _script(letter)))
    if not scripts:
        return None
    script = "HIRAGANA" if scripts["HIRAGANA"] + scripts["KATAKANA"] > 0.1 * sum(scripts.values()) else ""
    script = script or scripts.most_common(1)[0][0]
    if script in SCRIPT_OF_ONE:
        return SCRIPT_OF_ONE[script]
    if script not in FREQUENT:
        return None
    tokens = [token.lower() for token in _TOKEN.findall(unicodedata.normalize("NFC", text))]
    scores = {name: _score(name, script, tokens) for name in FREQUENT[script]}
    return max(scores, key=lambda name: scores[name])  # ties: the first of the table


def is_language(text: str, code: str) -> bool:
    """Whether a text is in the language of this code; "zh-cn" and "zh-tw" are both Chinese."""
    return language(text) == _CODES.get(code, code)


def _score(name: str, script: str, tokens: list[str]) -> int:
    known, own = _frequent(script, name), OWN_LETTERS.get(name, "")
    return sum((token in known) + any(letter in own for letter in token) for token in tokens)


@cache
def _frequent(script: str, name: str) -> frozenset[str]:
    return frozenset(unicodedata.normalize("NFC", FREQUENT[script][name]).split())


@cache
def _script(letter: str) -> str | None:
    """The script of a letter or vowel sign; None of everything else."""
    if unicodedata.category(letter)[0] not in "LM":
        return None
    return unicodedata.name(letter, "").split(" ")[0].split("-")[0] or None
