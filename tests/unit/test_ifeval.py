"""IFEval: every checker has a response that passes and one that fails; variants, files, and the command."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actshift.cli import main
from actshift.errors import ActshiftError
from actshift.judging import ifeval
from actshift.tasks.verifiable import verdicts
from actshift.tasks.verifiable.instructions import CHECKERS, Instruction, instruction
from actshift.tasks.verifiable.languages import language
from actshift.tasks.verifiable.words import capital_words, sentences, words

CASES: list[tuple[str, dict[str, Any], list[str], list[str]]] = [
    (
        "change_case:capital_word_frequency",
        {"capital_frequency": 2, "capital_relation": "at least"},
        ["A GPT-4 model", "DON'T stop", "I'm OK"],
        ["Only ONE word", "I'm not"],
    ),
    ("change_case:english_capital", {}, ["THIS IS THE END OF IT."], ["This IS THE END.", "DAS IST DER HUND.", "123"]),
    ("change_case:english_lowercase", {}, ["this is the end of it."], ["this is The end.", "das ist der hund.", "1"]),
    (
        "combination:repeat_prompt",
        {"prompt_to_repeat": "Say  it. "},
        ["say  it. Then more", " SAY  IT."],
        ["say it.", "I say  it."],
    ),
    (
        "combination:two_responses",
        {},
        ["a ****** b", "******\na\n******b******"],
        ["a ****** a", "a", "a******b******c"],
    ),
    ("combination:two_responses", {}, ["a******b"], ["a************b"]),
    ("detectable_content:number_placeholders", {"num_placeholders": 2}, ["[a] and [b]", "[][]"], ["[a]", "[a\nb] [c]"]),
    ("detectable_content:postscript", {"postscript_marker": "P.S."}, ["Bye.\nP.S. more", "p. s. x"], ["Bye.", "PS x"]),
    ("detectable_content:postscript", {"postscript_marker": "P.P.S"}, ["P.P.S x", "p. p. s"], ["P.S. x"]),
    ("detectable_format:constrained_response", {}, ["Well. My answer is maybe."], ["My answer is Yes.", "yes"]),
    ("detectable_format:json_format", {}, ['```json\n{"a": [1]}\n```', "[1]", "```\n3\n```"], ["{a: 1}", "Here: {}"]),
    (
        "detectable_format:multiple_sections",
        {"num_sections": 2, "section_spliter": "SECTION"},
        ["SECTION 1\na\nSECTION 2\nb", "SECTION1 SECTION2 SECTION 3"],
        ["Section 1\nSection 2", "SECTION 1", "SECTION A SECTION B"],
    ),
    (
        "detectable_format:number_bullet_lists",
        {"num_bullets": 2},
        ["* a\n* b", "- a\n  - b", "* a\n**bold** line\n- b"],
        ["* a", "* a\n* b\n---", "a * b - c"],
    ),
    (
        "detectable_format:number_highlighted_sections",
        {"num_highlights": 2},
        ["*a* and *b*", "**a** and **b c**", "*a* **b**"],
        ["*a*", "** **, **", "*a\nb* *c*"],
    ),
    ("detectable_format:title", {}, ["<<Joy>>", "x <<a b>> y"], ["<Joy>", "<< >>", "<<a\nb>>"]),
    ("keywords:existence", {"keywords": ["art", "one"]}, ["START none"], ["start", ""]),
    ("keywords:forbidden_words", {"forbidden_words": ["rock", "a.b"]}, ["rocks", "aXb"], ["No ROCK.", "a.b"]),
    (
        "keywords:frequency",
        {"frequency": 2, "keyword": "war", "relation": "at least"},
        ["War, wars", "WARWAR"],
        ["war"],
    ),
    ("keywords:frequency", {"frequency": 2, "keyword": "war", "relation": "less than"}, ["war", "x"], ["war WAR"]),
    (
        "keywords:letter_frequency",
        {"let_frequency": 3, "let_relation": "at least", "letter": "E"},
        ["eEe"],
        ["ee", "x"],
    ),
    ("keywords:letter_frequency", {"let_frequency": 1, "let_relation": "at least", "letter": "#"}, ["# a"], ["a"]),
    ("keywords:letter_frequency", {"let_frequency": 2, "let_relation": "less than", "letter": "!"}, ["a!"], ["a!!"]),
    ("language:response_language", {"language": "sw"}, ["Hii ni nyumba yangu ya zamani"], ["This is my old house"]),
    ("language:response_language", {"language": "ko"}, ["이것은 집입니다"], ["這是房子", "...", "123"]),
    (
        "length_constraints:nth_paragraph_first_word",
        {"first_word": "It", "nth_paragraph": 2, "num_paragraphs": 2},
        ["One.\n\nit's two", 'One.\n\n"It, two"'],
        ["One.\n\nIts two", "it\n\none", "One.\n\nIt\n\nthree", "It"],
    ),
    (
        "length_constraints:number_paragraphs",
        {"num_paragraphs": 2},
        ["a\n***\nb", "***a***b***"],
        ["a", "a***b***c", "a***  ***b"],
    ),
    (
        "length_constraints:number_sentences",
        {"num_sentences": 2, "relation": "at least"},
        ["One. Two!", "Is it? It is"],
        ["Dr. Smith e.g. me", "One"],
    ),
    ("length_constraints:number_sentences", {"num_sentences": 2, "relation": "less than"}, ["One."], ["One. Two."]),
    ("length_constraints:number_words", {"num_words": 3, "relation": "less than"}, ["one two"], ["don't go"]),
    ("length_constraints:number_words", {"num_words": 3, "relation": "at least"}, ["don't go"], ["one two"]),
    ("punctuation:no_comma", {}, ["a; b", "一，二"], ["a, b"]),
    ("startend:end_checker", {"end_phrase": "The End. "}, ["So: the end.", 'x THE END."'], ["the end", "The End. Bye"]),
    ("startend:quotation", {}, ['"a"', ' "" '], ['"', '"a', "'a'"]),
]


@pytest.mark.parametrize(("kind", "arguments", "passing", "failing"), CASES)
def test_a_checker_passes_and_fails(
    kind: str, arguments: dict[str, Any], passing: list[str], failing: list[str]
) -> None:
    one = instruction(kind, arguments, where="here")
    assert [text for text in passing if not one.followed(text)] == []
    assert [text for text in failing if one.followed(text)] == []


def test_every_kind_has_a_case() -> None:
    assert {case[0] for case in CASES} == set(CHECKERS) and len(CHECKERS) == 25


TEXTS = st.text(st.sampled_from('aEi *-.\n,!#"[]<>P.S你'), max_size=60) | st.text(max_size=60)
COUNTS = st.integers(0, 5)


@given(TEXTS)
def test_no_response_raises_and_a_blank_one_follows_nothing(text: str) -> None:
    for kind, arguments, *_ in CASES:
        assert Instruction(kind, arguments).followed(text) in (True, False)
        assert not Instruction(kind, arguments).followed(" \n")


@given(TEXTS, COUNTS)
def test_less_than_is_the_opposite_of_at_least(text: str, count: int) -> None:
    for kind, threshold, relation, other in (
        ("keywords:frequency", "frequency", "relation", {"keyword": "a"}),
        ("keywords:letter_frequency", "let_frequency", "let_relation", {"letter": "e"}),
        ("length_constraints:number_words", "num_words", "relation", {}),
        ("length_constraints:number_sentences", "num_sentences", "relation", {}),
        ("change_case:capital_word_frequency", "capital_frequency", "capital_relation", {}),
    ):
        check = CHECKERS[kind].check
        low, high = (check(text, **{threshold: count, relation: name}, **other) for name in ("less than", "at least"))
        assert low != high


@given(st.lists(st.sampled_from(["alpha", "Beta", "don", "x9"]), max_size=8))
def test_counts_are_those_of_a_text_built_of_known_parts(parts: list[str]) -> None:
    count = len(parts)
    assert len(words(", ".join(parts))) == count
    assert len(sentences(" ".join(f"The {part} is here." for part in parts))) == count
    assert len(capital_words(" ".join(["small", *(part.upper() for part in parts)]))) == count
    bulleted = "\n".join(["start", *(f"* {part}" for part in parts)])
    assert CHECKERS["detectable_format:number_bullet_lists"].check(bulleted, num_bullets=count)
    starred = " ".join(f"*{part}*" for part in parts)
    assert CHECKERS["detectable_format:number_highlighted_sections"].check(starred, num_highlights=count)
    assert not CHECKERS["detectable_format:number_highlighted_sections"].check(starred, num_highlights=count + 1)
    divided = "***".join(parts)
    assert CHECKERS["length_constraints:number_paragraphs"].check(divided, num_paragraphs=count)


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(), st.lists, max_leaves=6))
def test_whatever_json_writes_is_json(value: object) -> None:
    check = CHECKERS["detectable_format:json_format"].check
    assert check(json.dumps(value)) and check(f"```json\n{json.dumps(value)}\n```")
    assert not check(f"Sure: {json.dumps(value)}")


@given(TEXTS)
def test_loose_forgives_and_never_punishes(text: str) -> None:
    prompt = verdicts.Prompt("1", "", tuple(Instruction(kind, arguments) for kind, arguments, *_ in CASES))
    found = verdicts.verdict(prompt, text)
    assert all(loose or not strict for strict, loose in zip(found.strict, found.loose, strict=True))
    assert 1 <= len(verdicts.variants(text)) <= 8


def test_the_eight_variants() -> None:
    assert verdicts.variants("*a*\nb\nc*") == [
        "*a*\nb\nc*", "b\nc*", "*a*\nb", "b", "a\nb\nc", "b\nc", "a\nb",
    ]  # fmt: skip
    prompt = verdicts.Prompt("1", "", (Instruction("startend:quotation", {}), Instruction("punctuation:no_comma", {})))
    found = verdicts.verdict(prompt, 'Sure, here it is:\n"yes"')
    assert (found.strict, found.loose) == ((False, False), (True, True))


@pytest.mark.parametrize(
    ("code", "text"),
    [
        ("en", "hello"),
        ("de", "Die Katze sitzt auf dem Dach und schläft nicht"),
        ("fr", "Le chat est sur la table et il ne dort pas"),
        ("es", "El gato no está en la casa, pero sí en el jardín"),
        ("it", "Questa casa è molto bella e non la vendo"),
        ("pt", "Esta casa não é minha, mas eu gosto muito"),
        ("fi", "Tämä on minun taloni ja se on vanha"),
        ("vi", "Đây là nhà của tôi"),
        ("hi", "यह मेरा घर है और बहुत अच्छा है"),
        ("mr", "हे माझे घर आहे आणि ते मोठे आहे"),
        ("ne", "यो मेरो घर हो र म यहाँ बस्छु"),
        ("fa", "این خانه من است"),
        ("ur", "یہ میرا گھر ہے"),
        ("ar", "هذا بيتي في المدينة"),
        ("ru", "Это дом моего брата, и он очень большой"),
        ("bg", "Това е къщата на моя брат и тя е голяма"),
        ("ja", "これは私の家です"),
        ("zh", "这是我的房子"),
        ("kn", "ಇದು ನನ್ನ ಮನೆ"),
        ("pa", "ਇਹ ਮੇਰਾ ਘਰ ਹੈ"),
        ("th", "นี่คือบ้านของฉัน"),
        (None, "123 ..."),
    ],
)
def test_languages(code: str | None, text: str) -> None:
    assert language(text) == code
    assert language(text.upper()) == code


# --- files and the command ----------------------------------------------------------------------------------------

TWO = [
    {"key": 1, "prompt": "Say.", "instruction_id_list": ["punctuation:no_comma"], "kwargs": [{"relation": None}]},
    {
        "key": 2,
        "prompt": "Write.",
        "instruction_id_list": ["startend:quotation", "keywords:existence"],
        "kwargs": [{}, {"keywords": ["sun"]}],
    },
]


def folder_of(tmp_path: Path, rows: list[dict[str, Any]]) -> Path:
    (tmp_path / "ifeval").mkdir(exist_ok=True)
    (tmp_path / "ifeval" / "input_data.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return tmp_path


def responses_of(tmp_path: Path, rows: Any) -> str:
    (tmp_path / "responses.json").write_text(json.dumps(rows), encoding="utf-8")
    return str(tmp_path / "responses.json")


def test_the_command_scores_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = folder_of(tmp_path, TWO)
    file = responses_of(tmp_path, [{"prompt": "Say.", "response": "a b"}, {"key": 2, "output": 'ok:\n"the moon"'}])
    copies = ["--csv", str(tmp_path / "t.csv"), "--markdown", str(tmp_path / "t.md")]
    assert main(["ifeval", file, "--data", str(data), *copies]) == 0
    out = capsys.readouterr().out
    assert re.search(r"prompts +2 +50\.00 +50\.00", out) and re.search(r"instructions +3 +33\.33 +66\.67", out)
    lines = (tmp_path / "t.csv").read_text().splitlines()
    assert lines[:2] == ["name,count,strict,loose,strict_pct,loose_pct", "prompts,2,1,1,50.0,50.0"]
    assert lines[-1] == "startend:quotation,1,0,1,0.0,100.0" and len(lines) == 6
    assert "| prompts | 2 | 50.00 | 50.00 |" in (tmp_path / "t.md").read_text()
    assert "not by the reference implementation's langdetect" in out.replace("\n", " ")


def test_some_prompts_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data, file = folder_of(tmp_path, TWO), responses_of(tmp_path, [{"key": "1", "response": "a, b"}])
    assert main(["ifeval", file, "--data", str(data)]) == 2
    assert "1 of 2 prompts have no response, 2 the first" in capsys.readouterr().err
    assert main(["ifeval", file, "--data", str(data), "--partial"]) == 0
    assert "1 of 2 prompts: this is no accuracy on IFEval" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"instruction_id_list": ["punctuation:no_coma"]}, "Did you mean 'punctuation:no_comma'?"),
        ({"kwargs": []}, "1 instructions, but arguments for 0"),
        ({"kwargs": [{"language": "de"}]}, "punctuation:no_comma takes no argument, got language"),
        ({"key": 2}, "the key '2' occurs more than once"),
        ({"prompt": "Write."}, "the prompt 'Write.' occurs more than once"),
        (
            {"instruction_id_list": ["length_constraints:number_words"], "kwargs": [{"num_words": 1, "relation": "<"}]},
            "unknown relation",
        ),
        (
            {"instruction_id_list": ["language:response_language"], "kwargs": [{"language": "xx"}]},
            "unknown language of language:response_language 'xx'",
        ),
        (
            {"instruction_id_list": ["keywords:existence"], "kwargs": [{"keywords": "sun"}]},
            "must be a list of texts, got 'sun'",
        ),
        (
            {"instruction_id_list": ["detectable_format:number_bullet_lists"], "kwargs": [{"num_bullets": 1.5}]},
            "must be a whole number from 0 on, got 1.5",
        ),
    ],
)
def test_wrong_data_is_refused(change: dict[str, Any], said: str, tmp_path: Path) -> None:
    path = folder_of(tmp_path, [TWO[0] | change, TWO[1]]) / "ifeval" / "input_data.jsonl"
    with pytest.raises(ActshiftError) as caught:
        ifeval.read_prompts(path)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([{"key": 3, "response": "a"}], "no prompt of the data has its `key`"),
        ([{"prompt": "Sing.", "response": "a"}], "no prompt of the data"),
        ([{"key": 1, "response": "a"}, {"prompt": "Say.", "response": "b"}], "a second response to the prompt 1"),
        ([{"key": 1, "answer": "a"}], "has no text under response or output, got None"),
        ([{"key": 1, "response": 3}], "got 3"),
        ([3], "holds no rows that are JSON objects"),
        ([], "holds no rows that are JSON objects"),
    ],
)
def test_wrong_responses_are_refused(rows: Any, said: str, tmp_path: Path) -> None:
    prompts = ifeval.read_prompts(folder_of(tmp_path, TWO) / "ifeval" / "input_data.jsonl")
    with pytest.raises(ActshiftError, match=re.escape(said)):
        ifeval.read_responses(Path(responses_of(tmp_path, rows)), prompts)


def test_a_file_that_is_no_json(tmp_path: Path) -> None:
    for content in (b"{", b"\xff\xfe", b"not json"):
        (tmp_path / "x.jsonl").write_bytes(content)
        with pytest.raises(ActshiftError, match="Give JSON lines or a JSON list"):
            ifeval.read_prompts(tmp_path / "x.jsonl")


@settings(deadline=None)
@given(st.data())
def test_what_is_true_of_the_real_prompts(shared: Path, data: st.DataObject) -> None:
    """541 prompts with 834 instructions of 25 kinds, and any text can be scored against any of them."""
    prompts = real_prompts(shared)
    assert (len(prompts), sum(len(each.instructions) for each in prompts)) == (541, 834)
    assert {one.kind for each in prompts for one in each.instructions} == set(CHECKERS)
    prompt = data.draw(st.sampled_from(prompts))
    found = verdicts.verdict(prompt, data.draw(TEXTS))
    assert len(found.strict) == len(found.loose) == len(prompt.instructions)


def real_prompts(shared: Path, cache: dict[Path, list[verdicts.Prompt]] = {}) -> list[verdicts.Prompt]:  # noqa: B006
    path = shared / "data" / ifeval.PROMPTS
    if path not in cache:
        if not path.exists():
            pytest.skip(f"needs {path}")
        cache[path] = ifeval.read_prompts(path)
    return cache[path]
