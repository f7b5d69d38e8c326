"""Chat templates: prompts as the turns of a conversation, in the words of the tokenizer's own template."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any

from jinja2 import TemplateError

from actshift.errors import ActshiftError
from actshift.libraries.private import day_in_templates
from actshift.schema.config import Config

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

SYSTEM = "You are a helpful assistant."
"""The system message of the released code (steerling @ 76b60f119a, utils/dataloaders.py)."""
PROBE = "answer"
TEMPLATE_DATE = datetime(2024, 7, 26)
"""The date in prompts of templates that say what day it is: the one that Llama 3's take where they are told none.

With the day of the run, the same run would have other prompts tomorrow.
"""


@dataclass(frozen=True)
class Chat:
    """A tokenizer's template around prompts and answers.

    Under `released`, as in the authors' code, text that begins with the begin token gets another one, and all that the
    template puts after an answer is trained; else the prompt begins once, and the end of the turn is trained.
    """

    tokenizer: PreTrainedTokenizerBase
    released: bool

    def prompt(self, text: str) -> str:
        """The conversation up to where the answer begins."""
        return self._rendered(text, generation=True)

    @property
    def begins_again(self) -> bool:
        """Whether the tokenizer adds its special tokens to a text that has the template's."""
        return self.released

    @cached_property
    def closing(self) -> tuple[int, ...]:
        """What is trained after an answer: the end of the turn, and under `released` what follows it."""
        ids = self._ids(self._after_answer)
        return ids if self.released else ids[:1]

    @cached_property
    def ends(self) -> frozenset[int]:
        """The tokens that end a generation: the end of the turn, and the tokenizer's end token."""
        ends = {self._ids(self._after_answer)[0], self.tokenizer.eos_token_id}
        return frozenset(int(token) for token in ends if token is not None)

    @cached_property
    def _after_answer(self) -> str:
        whole = self._rendered("question", generation=False, answer=PROBE)
        before, found, after = whole.rpartition(PROBE)
        if not found or before != self.prompt("question") or not after:
            raise ActshiftError(
                "the tokenizer's chat template does not put an answer where it asks for one, or does not close it: "
                "a model cannot be trained on it. Set protocol.chat=null, or use a tokenizer with another template."
            )
        return after

    def _rendered(self, text: str, *, generation: bool, answer: str | None = None) -> str:
        turns = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": text}]
        if answer is not None:
            turns.append({"role": "assistant", "content": answer})
        try:
            with day_in_templates(TEMPLATE_DATE):
                rendered = self.tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=generation)
        except (TemplateError, ValueError, TypeError, AttributeError) as error:
            raise ActshiftError(
                f"the tokenizer's chat template cannot be rendered ({type(error).__name__}: {error}). Correct the "
                "template in the tokenizer's files, or set model.chat=false."
            ) from error
        assert isinstance(rendered, str)
        return rendered

    def _ids(self, text: str) -> tuple[int, ...]:
        encoded: Any = self.tokenizer(text, add_special_tokens=False)
        return tuple(encoded["input_ids"])


def chat_of(config: Config, tokenizer: PreTrainedTokenizerBase) -> Chat | None:
    """The template of a resolved config's prompts; None where its model or its protocol takes prompts plain.

    Errors: a model that is said to chat, and whose tokenizer has no template.
    """
    form = config.protocol.chat
    if not config.model.chat or form is None:
        return None
    if not getattr(tokenizer, "chat_template", None):
        raise ActshiftError(
            f"model '{config.model.name}' has chat: true, and its tokenizer has no chat template. Use the "
            "instruction-tuned model's tokenizer, or set model.chat=false."
        )
    return Chat(tokenizer, released=form == "released")


def template_date(config: Config, tokenizer: PreTrainedTokenizerBase) -> str | None:
    """The date that prompts may contain, as in a record; None of plain prompts."""
    return None if chat_of(config, tokenizer) is None else TEMPLATE_DATE.date().isoformat()


def template_fingerprint(config: Config, tokenizer: PreTrainedTokenizerBase) -> str | None:
    """The first 16 hex digits of the SHA-256 of the template that prompts stood in; None of plain prompts."""
    chat = chat_of(config, tokenizer)
    return None if chat is None else hashlib.sha256(str(tokenizer.chat_template).encode()).hexdigest()[:16]
