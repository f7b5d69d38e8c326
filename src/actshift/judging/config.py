"""Judges by name (`conf/judge/`): what a judge is, what makes one the same judge, and what its questions cost."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any
from urllib.parse import urlsplit

import yaml

from actshift.config.groups import groups, option_file
from actshift.errors import ActshiftError, impossible, unknown
from actshift.judging.function_calls import forced_function, with_function
from actshift.judging.prompts import TEMPLATE, TEMPLATES, Message, template_sha256

KINDS = ("openai", "anthropic", "transformers", "replay", "files")
PARSERS = ("logprob", "likelier", "verdict", "tool")
BY_PROBABILITIES = ("logprob", "likelier")
"""The parsers that need the probabilities of the first token."""
ORDERS = ("coin", "both")
LOOPBACK = ("localhost", "127.0.0.1", "::1")

CHARACTERS_PER_TOKEN = {"mean": 4.8, "least": 1.8}
"""Of the recorded questions to GPT-4 Turbo: 3,210 of them, in characters of the messages for each billed token."""


WEIGHTED = {"max_tokens": 1, "temperature": 1, "top_p": 1, "logprobs": True, "top_logprobs": 5}
"""The request of `weighted_alpaca_eval_gpt4_turbo`: one token, with the probabilities of the five likeliest."""


@dataclass(frozen=True)
class Prices:
    """Dollars for a million tokens, as of a date."""

    input: float
    output: float
    date: str


@dataclass(frozen=True)
class JudgeConfig:
    """A file of conf/judge.

    `kind`: openai (any endpoint of that protocol), anthropic, transformers (a model of conf/model on this machine),
    replay (recorded answers), files (imported judgments, and nobody is asked). `parser`: logprob (probabilities of the
    first token), likelier (the likelier name of that token), verdict (the text, which must be a name) or tool (a
    function call that ranks the answers). `orders`: coin (an instruction's coin says whose answer is shown first) or
    both (each pair is asked twice).
    """

    name: str
    kind: str
    model: str
    annotator: str
    template: str = TEMPLATE
    parser: str = "logprob"
    request: Mapping[str, Any] = field(default_factory=lambda: dict(WEIGHTED))
    orders: str = "coin"
    base_url: str | None = None
    key_env: str | None = None
    concurrency: int = 1
    seconds_per_question: float = 1.0
    timeout_s: float = 60.0
    attempts: int = 6
    wait_s: float = 1.0
    prices: Prices = field(default_factory=lambda: Prices(0.0, 0.0, ""))
    retired: str | None = None

    def duration(self, questions: int) -> str:
        """How long so many questions take, as many at once as are allowed, in words."""
        hours = questions * self.seconds_per_question / self.concurrency / 3600
        return f"{hours:.2f} hours with {self.concurrency} questions at once of {self.seconds_per_question:g} s"

    @property
    def identity(self) -> str:
        """SHA-256 of what can change an answer: kind, model, the template's text, parser, request."""
        counted = [self.kind, self.model, template_sha256(self.template), self.parser, dict(self.request)]
        return hashlib.sha256(json.dumps(counted, sort_keys=True).encode()).hexdigest()

    @property
    def label(self) -> str:
        """What a file of judgments calls its judge: answers in one order and in both never share a table."""
        return self.annotator if self.orders == "coin" else f"{self.annotator} (both orders)"

    @property
    def key(self) -> str:
        """The key from the environment. Errors: a variable that is not set."""
        if self.key_env is None:
            return ""
        key = os.environ.get(self.key_env, "").strip()
        if not key:
            raise ActshiftError(
                f"judge {self.name} needs a key in the environment variable {self.key_env}, which is not set. A key is "
                "taken from the environment alone and is written nowhere."
            )
        if not (key.isascii() and key.isprintable()) or " " in key:
            raise ActshiftError(f"the environment variable {self.key_env} holds characters that no key has.")
        return key

    def dollars(self, messages: Sequence[Message], *, tokens: str = "least") -> float:
        """What a question costs: at most with the `least` characters for a token, as expected with the `mean`."""
        characters = sum(len(each["content"]) for each in messages)
        characters += len(json.dumps(self.request["tools"])) if "tools" in self.request else 0
        return self._dollars(characters / CHARACTERS_PER_TOKEN[tokens], self.most_tokens)

    def billed(self, usage: Mapping[str, Any], messages: Sequence[Message]) -> float:
        """What an answer cost by its count of tokens, in either protocol's words; at most, where it has none."""
        used = [usage.get(ours, usage.get(theirs)) for ours, theirs in COUNTS]
        if not all(isinstance(each, int | float) and not isinstance(each, bool) for each in used):
            return self.dollars(messages)
        return self._dollars(*used)

    @property
    def most_tokens(self) -> int:
        """How many tokens an answer can have."""
        return int(self.request.get("max_tokens", self.request.get("max_completion_tokens", 1)))

    def _dollars(self, read: float, written: float) -> float:
        return (read * self.prices.input + written * self.prices.output) / 1e6


COUNTS = (("prompt_tokens", "input_tokens"), ("completion_tokens", "output_tokens"))


def judge_config(name: str) -> JudgeConfig:
    """A judge of conf/judge, or of the folder of --config-dir. Errors: a name, a key or a value that cannot be."""
    names = groups()["judge"]
    if name not in names:
        raise unknown("judge", name, names, where="--judge (files in conf/judge/)")
    path = option_file("judge", name)
    given = yaml.safe_load(path.read_text(encoding="utf-8"))
    known = {each.name for each in fields(JudgeConfig)}
    needed = {"name", "kind", "model", "annotator"}
    if not isinstance(given, dict) or not needed <= set(given) <= known:
        odd = sorted((set(given or ()) - known) | (needed - set(given or ())))
        raise ActshiftError(f"{path}: a judge has the keys {', '.join(sorted(known))}; wrong or missing: {odd}")
    try:
        config = JudgeConfig(
            **{**given, "prices": Prices(**given.get("prices", {"input": 0, "output": 0, "date": ""}))}
        )
    except TypeError as error:
        raise ActshiftError(f"{path}: prices must have input, output and date ({error})") from error
    if not isinstance(config.request, Mapping):
        raise ActshiftError(f"{path}: request must hold names and values, got {config.request!r}")
    if config.parser == "tool":
        config = replace(config, request=with_function(config.request))
    _check(config, where=str(path))
    return config


def _check(config: JudgeConfig, *, where: str) -> None:
    choices = {"kind": KINDS, "parser": PARSERS, "template": TEMPLATES, "orders": ORDERS}
    for key, allowed in choices.items():
        if getattr(config, key) not in allowed:
            raise unknown(f"judge.{key}", getattr(config, key), allowed, where=where)
    least = {"concurrency": 1, "attempts": 1, "timeout_s": 1e-3, "wait_s": 0, "seconds_per_question": 0}
    for key, value in least.items():
        if not getattr(config, key) >= value:
            raise impossible(f"judge.{key}", getattr(config, key), f"{value:g} or more")
    for price in (config.prices.input, config.prices.output):
        if not price >= 0:
            raise impossible("judge.prices", price, "0 or more")
    if config.kind in ("openai", "anthropic"):
        check_url(config.base_url, where=where)
    _check_parser(config, where=where)


def _check_parser(config: JudgeConfig, *, where: str) -> None:
    """Refuse a parser that the kind's answers cannot serve, and a request that does not force the judge's function."""
    if config.kind == "anthropic" and config.parser in BY_PROBABILITIES:
        raise impossible("judge.parser", config.parser, "verdict or tool: that protocol gives no log probabilities")
    if config.kind == "transformers" and config.parser == "tool":
        raise impossible("judge.parser", config.parser, "logprob, likelier or verdict: no function is called here")
    if config.parser == "tool" and forced_function(config.request) is None:
        raise ActshiftError(
            f"{where}: judge.request must declare a function with the argument ordered_models under tools and force it "
            "by tool_choice, both in OpenAI's form for every protocol; leave out both for upstream's function."
        )


def check_url(url: str | None, *, where: str) -> None:
    """Refuse an endpoint that is not encrypted, unless it is on this machine."""
    parts = urlsplit(url or "")
    if parts.scheme == "https" and parts.hostname:
        return
    if parts.scheme == "http" and parts.hostname in LOOPBACK:
        return
    allowed = f"https://..., or http:// on this machine ({', '.join(LOOPBACK)}), in {where}"
    raise impossible("judge.base_url", url, allowed)


def is_loopback(url: str) -> bool:
    """Whether an endpoint is on this machine."""
    return urlsplit(url).hostname in LOOPBACK
