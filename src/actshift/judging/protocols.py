"""The protocols in which judges are asked over HTTP: what is sent, and an answer as a completion.

A completion is one form for all: OpenAI's choice (message, logprobs, finish_reason) with the model that says it
answered and the tokens that it counts.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from actshift.judging.client import Attempts, Client
from actshift.judging.config import JudgeConfig
from actshift.judging.function_calls import calls_of, in_anthropics_words
from actshift.judging.ledger import Completion
from actshift.judging.prompts import Message

ANTHROPIC_VERSION = "2023-06-01"


@dataclass(frozen=True)
class Protocol:
    """A path, the headers that carry a key, a request's body, and an answer's completion."""

    path: str
    headers: Callable[[str], Mapping[str, str]]
    body: Callable[[JudgeConfig, Sequence[Message]], Mapping[str, Any]]
    completion: Callable[[Mapping[str, Any]], Completion]


def _openai_body(config: JudgeConfig, messages: Sequence[Message]) -> Mapping[str, Any]:
    return {"model": config.model, "messages": list(messages), **config.request}


def _openai_completion(answer: Mapping[str, Any]) -> Completion:
    choice = answer["choices"][0]
    kept = {name: choice.get(name) for name in ("message", "logprobs", "finish_reason")}
    return {**kept, "model": str(answer.get("model", "")), "usage": answer.get("usage") or {}}


def _anthropic_body(config: JudgeConfig, messages: Sequence[Message]) -> Mapping[str, Any]:
    system = "\n\n".join(each["content"] for each in messages if each["role"] == "system")
    turns = [dict(each) for each in messages if each["role"] != "system"]
    return {"model": config.model, "system": system, "messages": turns, **in_anthropics_words(config.request)}


def _anthropic_completion(answer: Mapping[str, Any]) -> Completion:
    text = "".join(part.get("text", "") for part in answer["content"] if part.get("type") == "text")
    message = {"role": "assistant", "content": text, "tool_calls": calls_of(answer["content"])}
    kept = {"message": message, "logprobs": None, "finish_reason": answer.get("stop_reason")}
    return {**kept, "model": str(answer.get("model", "")), "usage": answer.get("usage") or {}}


PROTOCOLS = {
    "openai": Protocol(
        "/chat/completions",
        lambda key: {"Authorization": f"Bearer {key}"} if key else {},
        _openai_body,
        _openai_completion,
    ),
    "anthropic": Protocol(
        "/v1/messages",
        lambda key: {"anthropic-version": ANTHROPIC_VERSION, **({"x-api-key": key} if key else {})},
        _anthropic_body,
        _anthropic_completion,
    ),
}


class HttpJudge:
    """A judge behind an endpoint of one of the protocols."""

    def __init__(self, config: JudgeConfig, *, stop: threading.Event, protocol: str | None = None) -> None:
        self._config, self._protocol = config, PROTOCOLS[protocol or config.kind]
        self._client = Client(config, headers=self._protocol.headers(config.key), stop=stop)

    def __call__(self, messages: Sequence[Message], attempts: Attempts) -> Completion:
        """The completion of a question; an answer of another form is one without anything in it."""
        answer = self._client.post(self._protocol.path, self._protocol.body(self._config, messages), attempts)
        try:
            return self._protocol.completion(answer)
        except (KeyError, IndexError, TypeError, AttributeError):
            return {"message": None, "logprobs": None, "finish_reason": None, "model": "", "usage": {}}

    def close(self) -> None:
        self._client.close()
