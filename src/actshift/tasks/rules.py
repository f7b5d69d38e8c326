"""What the scoring rules share: whose rules there are, and the text as they read it.

`released` scores as the authors' code does, character for character. `paper` is the same rule in every case that its
wording covers, and differs where that code slips:

* odd characters are read as what they stand for (`plain`);
* a letter or digit that is named as the answer ends there: the released `answer because` names B, and `answer 3.5` 3;
* a small letter or a digit in words is none: the released `answer: a magnet` names A, and `answer: 5 grams` option 5;
* a word that begins like a label is none: the released `answer: falsehood` is False;
* a lone letter is a capital: the released fallback takes the article "a" for the label A;
* of several answers AQuA takes the last, since rationales speak of answers before they give theirs;
* a number is read whole, with its sign: the released pattern takes 123 out of 1234, 5 out of .5 and -3 out of 10-3.
"""

from __future__ import annotations

import re

RULES = ("paper", "released")

_FULLWIDTH: dict[int, int | str | None] = {code: code - 0xFEE0 for code in range(0xFF01, 0xFF5F)}
_DASHES = dict.fromkeys((0x2010, 0x2011, 0x2012, 0x2013, 0x2014, 0x2015, 0x2212, 0xFE63), "-")
_INVISIBLE = dict.fromkeys((0x00AD, 0x200B, 0x200C, 0x200D, 0x2060, 0xFEFF))
_PLAIN = _FULLWIDTH | _DASHES | _INVISIBLE


def named_label(letters: str, digits: str = "") -> re.Pattern[str]:
    """The pattern of a label that is named as the answer, as in "Answer: (B)", by the paper's rule.

    A capital ends where no further letter follows. A small letter or a digit without a bracket before it ends the
    sentence or the line, or is followed by a mark: otherwise it is an article, or a number with its unit.
    """
    small, labels = letters.lower() + digits, letters + letters.lower() + digits
    return re.compile(
        rf"(?i:answer)\s*[:\-]?\s*(?:\(([{labels}])(?!\w)|([{letters}])(?!\w)"
        rf"|([{small}])(?=\s*(?:$|[):;,!?\n]|\.(?!\d))))"
    )


def label_of(named: re.Match[str]) -> str:
    """The label that a match of `named_label` names, as a capital or a digit."""
    return next(group for group in named.groups() if group).upper()


def label_is_final(named: re.Match[str], text: str) -> bool:
    """Whether no further text can make another label, or none, of a match of `named_label` in `text`."""
    after = text[named.end() :]
    if named.lastindex != 3:
        return bool(after)
    rest = after.lstrip(" \t")
    return len(rest) > 1 or rest == "\n" or (bool(rest) and rest != ".")


def plain(text: str) -> str:
    """The text with fullwidth ASCII as ASCII, dashes and minus signs as "-", and nothing invisible.

    Character by character, so that the plain form of a beginning is a beginning of the plain form. Odd spaces and
    foreign digits stay: regular expressions and `float` know them.
    """
    return text.translate(_PLAIN)
