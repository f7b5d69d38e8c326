"""Words, sentences and words in capitals of a text, counted without a language package.

The reference implementation of IFEval takes nltk's tokenizers for sentences and for words in capitals. The rules here
are short and fixed instead, so that a count is the same on every machine; where they differ is said at each function.
"""

from __future__ import annotations

import re

ABBREVIATIONS = frozenset(
    "mr mrs ms dr prof sr jr st mt rev gen col capt lt sgt hon gov sen rep vs etc approx dept est fig inc ltd co corp "
    "no vol pp ed eds jan feb mar apr jun jul aug sep sept oct nov dec e.g i.e a.m p.m u.s u.k cf al".split()
)
"""Words, lower case and without their last stop, after which a stop ends no sentence."""

_WORD = re.compile(r"\w+")
_END = re.compile(r"""[.!?…]+["'”’)\]*_]*(?=\s|$)|[。！？।॥؟۔]+""")
_LAST_WORD = re.compile(r"[^\s(\[\"'“‘*_]+$")
_CAPITALS = re.compile(r"[^\W_]+(?:[-.&/][^\W_]+)*")


def words(text: str) -> list[str]:
    """Runs of letters, digits and underscores: "don't" is two words, "well-known" too; so in the reference."""
    return _WORD.findall(text)


def sentences(text: str) -> list[str]:
    """Sentences: up to a stop, an exclamation or a question mark before white space, quotes and brackets closed.

    A stop ends none after an abbreviation or a single letter (an initial), nor do dots before a small letter. A line
    break ends none, so that list items without a stop are one sentence with what follows; the number of a list item
    ("1.") is one of its own. The reference (nltk's punkt) treats these so too; it knows more abbreviations, learnt from
    newspapers, and no sentence ends but those of Latin script.
    """
    found, start = [], 0
    for end in _END.finditer(text):
        if _closes(text, end):
            found.append(text[start : end.end()].strip())
            start = end.end()
    found.append(text[start:].strip())
    return [sentence for sentence in found if sentence]


def _closes(text: str, end: re.Match[str]) -> bool:
    """Whether a sentence ends here. What follows the last mark of a text is no other sentence."""
    after = text[end.end() :].lstrip()
    if not after or not end[0].startswith((".", "…")):
        return True
    if end[0].startswith(("..", "…")):
        return not after[0].islower()
    before = _LAST_WORD.search(text[max(0, end.start() - 40) : end.start()])
    word = before[0].lower() if before else ""
    initial = len(word) == 1 and word.isalpha() and word != "i"
    return end[0] != "." or not (initial or word in ABBREVIATIONS)


def capital_words(text: str) -> list[str]:
    """Words whose letters are all capitals ("A", "GPT-4", "U.S"): parts joined by - . & / are one word.

    Contractions are taken apart, so that "DON'T" is two words in capitals and "I'm" has one, as in the reference
    (nltk's word tokenizer), which leaves names such as "O'NEIL" whole.
    """
    return [word for word in _CAPITALS.findall(text) if word.isupper()]
