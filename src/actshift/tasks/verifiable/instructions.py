"""IFEval's 25 kinds of verifiable instructions (arXiv 2311.07911), each as a function that reads a response.

`CHECKERS[id]` names the function of a kind and the arguments that a prompt gives it (its `kwargs`). What each kind
accepts follows the reference implementation's behaviour, oddities included, because published accuracies are measured
with it. Where ours differs, the function says so.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from actshift.errors import ActshiftError, unknown
from actshift.tasks.verifiable.languages import LANGUAGES, is_language
from actshift.tasks.verifiable.words import capital_words, sentences, words

RELATIONS = ("less than", "at least")
ANSWERS = ("My answer is yes.", "My answer is no.", "My answer is maybe.")


@dataclass(frozen=True)
class Checker:
    """How one kind of instruction is checked: `check(response, **arguments)`, and which arguments it takes."""

    check: Callable[..., bool]
    arguments: tuple[str, ...] = ()


def _compared(count: int, relation: str, threshold: int) -> bool:
    return count < threshold if relation == "less than" else count >= threshold


# --- keywords -----------------------------------------------------------------------------------------------------


def keywords_exist(response: str, *, keywords: Sequence[str]) -> bool:
    """Every keyword occurs, in any case and within other words too ("art" in "start")."""
    return all(keyword.strip().lower() in response.lower() for keyword in keywords)


def keyword_frequency(response: str, *, keyword: str, frequency: int, relation: str) -> bool:
    """A keyword occurs less than, or at least, so often, in any case, within other words too."""
    return _compared(response.lower().count(keyword.strip().lower()), relation, frequency)


def no_forbidden_words(response: str, *, forbidden_words: Sequence[str]) -> bool:
    """None of these words occurs as a whole word, in any case."""
    return not any(re.search(rf"\b{re.escape(word)}\b", response, re.IGNORECASE) for word in forbidden_words)


def letter_frequency(response: str, *, letter: str, let_frequency: int, let_relation: str) -> bool:
    """A character occurs less than, or at least, so often, in any case.

    Two prompts name "#" and "!"; the reference draws a random letter for these, ours counts the character.
    """
    return _compared(response.lower().count(letter.strip().lower()), let_relation, let_frequency)


# --- lengths ------------------------------------------------------------------------------------------------------


def number_of_words(response: str, *, num_words: int, relation: str) -> bool:
    """Less than, or at least, so many words."""
    return _compared(len(words(response)), relation, num_words)


def number_of_sentences(response: str, *, num_sentences: int, relation: str) -> bool:
    """Less than, or at least, so many sentences (`verifiable.words` says what one is)."""
    return _compared(len(sentences(response)), relation, num_sentences)


def number_of_paragraphs(response: str, *, num_paragraphs: int) -> bool:
    """Exactly so many parts between dividers ``***``; a blank one is allowed at the ends alone, and does not count."""
    parts = [part.strip() for part in response.split("***")]
    return all(parts[1:-1]) and sum(map(bool, parts)) == num_paragraphs


def paragraph_first_word(response: str, *, num_paragraphs: int, nth_paragraph: int, first_word: str) -> bool:
    """Exactly so many paragraphs between blank lines, and the nth begins with this word, in any case.

    Quotation marks before the word and what follows a punctuation mark within it do not count.
    """
    paragraphs = [part.strip() for part in response.split("\n\n")]
    count = sum(map(bool, paragraphs))
    # As in the reference, blank parts are counted in the position but not in the number.
    if count != num_paragraphs or not 1 <= nth_paragraph <= count or not paragraphs[nth_paragraph - 1]:
        return False
    word = paragraphs[nth_paragraph - 1].split()[0].lstrip("'").lstrip('"')
    return re.split(r"[.,?!'\"]", word, maxsplit=1)[0].lower() == first_word.lower()


# --- content and format -------------------------------------------------------------------------------------------


def placeholders(response: str, *, num_placeholders: int) -> bool:
    """At least so many placeholders in square brackets, within a line."""
    return len(re.findall(r"\[[^\n]*?\]", response)) >= num_placeholders


def postscript(response: str, *, postscript_marker: str) -> bool:
    """A postscript marker anywhere, in any case; "P.S." and "P.P.S" may have a space between their letters."""
    spaced = {"P.P.S": r"p\.\s?p\.\s?s", "P.S.": r"p\.\s?s\."}
    pattern = spaced.get(postscript_marker.strip(), re.escape(postscript_marker.strip().lower()))
    return re.search(pattern, response.lower()) is not None


def bullets(response: str, *, num_bullets: int) -> bool:
    """Exactly so many lines that begin with one ``*`` or with ``-``; a rule of dashes is one of them."""
    stars = re.findall(r"^\s*\*[^*].*$", response, re.MULTILINE)
    dashes = re.findall(r"^\s*-.*$", response, re.MULTILINE)
    return len(stars) + len(dashes) == num_bullets


def constrained_answer(response: str) -> bool:
    """One of the three allowed answers occurs."""
    return any(answer in response for answer in ANSWERS)


def highlights(response: str, *, num_highlights: int) -> bool:
    """At least so many parts of a line that are between asterisks, single or double, and not blank."""
    single = [part.strip("*") for part in re.findall(r"\*[^\n*]*\*", response)]
    double = re.findall(r"\*\*([^\n*]*)\*\*", response)
    return sum(bool(part.strip()) for part in (*single, *double)) >= num_highlights


def multiple_sections(response: str, *, section_spliter: str, num_sections: int) -> bool:
    """At least so many headings: the word that marks a section, and a number."""
    return len(re.findall(rf"{re.escape(section_spliter.strip())}\s?\d+", response)) >= num_sections


def json_format(response: str) -> bool:
    """The whole response is JSON, in a fence of three backticks (with or without "json" after it) or without."""
    text = response.strip()
    for opening in ("```json", "```Json", "```JSON", "```"):
        text = text.removeprefix(opening)
    try:
        json.loads(text.removesuffix("```").strip())
    except (ValueError, RecursionError):
        return False
    return True


def title(response: str) -> bool:
    """A title that is not blank, within a line, between ``<<`` and ``>>``."""
    return any(found.lstrip("<").rstrip(">").strip() for found in re.findall(r"<<[^\n]+>>", response))


# --- combinations, case, ends, punctuation, language --------------------------------------------------------------


def two_responses(response: str) -> bool:
    """Two different parts with ``******`` between them; a blank one is allowed at the ends alone."""
    parts = [part.strip() for part in response.split("******")]
    given = [part for part in parts if part]
    return all(parts[1:-1]) and len(given) == 2 and given[0] != given[1]


def repeats_prompt(response: str, *, prompt_to_repeat: str) -> bool:
    """The response begins with this text, in any case."""
    return response.strip().lower().startswith(prompt_to_repeat.strip().lower())


def english_capitals(response: str) -> bool:
    """English without a small letter."""
    return response.isupper() and is_language(response, "en")


def english_lowercase(response: str) -> bool:
    """English without a capital letter."""
    return response.islower() and is_language(response, "en")


def capital_word_frequency(response: str, *, capital_frequency: int, capital_relation: str) -> bool:
    """Less than, or at least, so many words in capitals (`verifiable.words` says what one is)."""
    return _compared(len(capital_words(response)), capital_relation, capital_frequency)


def ends_with(response: str, *, end_phrase: str) -> bool:
    """The response ends with this phrase, in any case, quotation marks around the whole allowed."""
    return response.strip().strip('"').lower().endswith(end_phrase.strip().lower())


def quotation(response: str) -> bool:
    """Double quotation marks around the whole."""
    text = response.strip()
    return len(text) > 1 and text[0] == text[-1] == '"'


def no_comma(response: str) -> bool:
    """No comma of ASCII; those of other scripts are allowed, as in the reference."""
    return "," not in response


def response_language(response: str, *, language: str) -> bool:
    """The response is in a language (ISO 639-1), judged by script and frequent words (`verifiable.languages`).

    The reference asks langdetect, and counts a text that it cannot judge as followed; ours does not.
    """
    return is_language(response, language)


CHECKERS: Mapping[str, Checker] = {
    "change_case:capital_word_frequency": Checker(capital_word_frequency, ("capital_frequency", "capital_relation")),
    "change_case:english_capital": Checker(english_capitals),
    "change_case:english_lowercase": Checker(english_lowercase),
    "combination:repeat_prompt": Checker(repeats_prompt, ("prompt_to_repeat",)),
    "combination:two_responses": Checker(two_responses),
    "detectable_content:number_placeholders": Checker(placeholders, ("num_placeholders",)),
    "detectable_content:postscript": Checker(postscript, ("postscript_marker",)),
    "detectable_format:constrained_response": Checker(constrained_answer),
    "detectable_format:json_format": Checker(json_format),
    "detectable_format:multiple_sections": Checker(multiple_sections, ("num_sections", "section_spliter")),
    "detectable_format:number_bullet_lists": Checker(bullets, ("num_bullets",)),
    "detectable_format:number_highlighted_sections": Checker(highlights, ("num_highlights",)),
    "detectable_format:title": Checker(title),
    "keywords:existence": Checker(keywords_exist, ("keywords",)),
    "keywords:forbidden_words": Checker(no_forbidden_words, ("forbidden_words",)),
    "keywords:frequency": Checker(keyword_frequency, ("frequency", "keyword", "relation")),
    "keywords:letter_frequency": Checker(letter_frequency, ("let_frequency", "let_relation", "letter")),
    "language:response_language": Checker(response_language, ("language",)),
    "length_constraints:nth_paragraph_first_word": Checker(
        paragraph_first_word, ("first_word", "nth_paragraph", "num_paragraphs")
    ),
    "length_constraints:number_paragraphs": Checker(number_of_paragraphs, ("num_paragraphs",)),
    "length_constraints:number_sentences": Checker(number_of_sentences, ("num_sentences", "relation")),
    "length_constraints:number_words": Checker(number_of_words, ("num_words", "relation")),
    "punctuation:no_comma": Checker(no_comma),
    "startend:end_checker": Checker(ends_with, ("end_phrase",)),
    "startend:quotation": Checker(quotation),
}
"""The 25 kinds by their ids in the data."""

_CHOICES: Mapping[str, Collection[str]] = {
    **dict.fromkeys(("relation", "let_relation", "capital_relation"), RELATIONS),
    "language": LANGUAGES,
}
_TEXTS = frozenset(
    "prompt_to_repeat postscript_marker section_spliter keyword letter first_word end_phrase".split()
) | frozenset(_CHOICES)
_LISTS = frozenset({"keywords", "forbidden_words"})


@dataclass(frozen=True)
class Instruction:
    """One instruction of a prompt: its kind and the arguments of its checker."""

    kind: str
    arguments: Mapping[str, Any]

    def followed(self, response: str) -> bool:
        """Whether a response follows it; a blank one never does."""
        return bool(response.strip()) and CHECKERS[self.kind].check(response, **self.arguments)


def instruction(kind: str, arguments: Mapping[str, Any], *, where: str) -> Instruction:
    """A checked instruction; arguments that are null are left out, as the hub's copy of the data has them.

    Errors: a kind, an argument or a value of one that does not exist, one that is missing, one of another type.
    """
    if kind not in CHECKERS:
        raise unknown("kind of instruction", kind, CHECKERS, where=where)
    given = {name: value for name, value in arguments.items() if value is not None}
    wanted = CHECKERS[kind].arguments
    if set(given) != set(wanted):
        got = ", ".join(sorted(given)) or "none"
        raise ActshiftError(f"{where}: {kind} takes {', '.join(wanted) or 'no argument'}, got {got}.")
    for name, value in given.items():
        _check_value(kind, name, value, where=where)
    return Instruction(kind, given)


def _check_value(kind: str, name: str, value: object, *, where: str) -> None:
    if name in _LISTS:
        good = isinstance(value, list) and all(isinstance(each, str) for each in value)
    elif name in _TEXTS:
        good = isinstance(value, str) and bool(value.strip())
    else:
        good = isinstance(value, int | float) and not isinstance(value, bool) and value == int(value) >= 0
    if not good:
        needed = "a list of texts" if name in _LISTS else "a text" if name in _TEXTS else "a whole number from 0 on"
        raise ActshiftError(f"{where}: {name} of {kind} must be {needed}, got {value!r}.")
    if name in _CHOICES and value not in _CHOICES[name]:
        raise unknown(f"{name} of {kind}", value, _CHOICES[name], where=where)
