"""The probabilities that a model gives to the first token of an answer: how a local model is asked for a choice."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from actshift.errors import ActshiftError
from actshift.models.loading import Base


class FirstToken:
    """Asks a model which of some one-token answers follows a conversation."""

    def __init__(self, base: Base, *, options: Sequence[str]) -> None:
        """Errors: an option that the tokenizer does not spell as one token of its own; no chat template."""
        tokenizer = base.tokenizer
        ids = {text: tokenizer(text, add_special_tokens=False)["input_ids"] for text in options}
        first = {text: each[0] for text, each in ids.items() if len(each) == 1}
        if len(set(first.values())) < len(options) or tokenizer.unk_token_id in first.values():
            raise ActshiftError(
                f"the tokenizer does not spell {' and '.join(options)} as one token each, so this model cannot name an "
                "answer: choose another model."
            )
        if not getattr(tokenizer, "chat_template", None):
            raise ActshiftError("a local judge needs a chat template, and this model's tokenizer has none.")
        self._base, self._first = base, first

    @torch.inference_mode()
    def logprobs(self, messages: Sequence[Mapping[str, str]]) -> dict[str, float]:
        """log p(option) of each option after the conversation, in nats.

        Errors: a conversation that is longer than the model's context.
        """
        text = self._base.tokenizer.apply_chat_template(
            [dict(each) for each in messages], tokenize=False, add_generation_prompt=True
        )
        ids: list[int] = self._base.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
        most = getattr(self._base.model.config, "max_position_embeddings", len(ids))
        if len(ids) > most:
            raise ActshiftError(f"a question of {len(ids):,} tokens does not fit the judge's context of {most:,}.")
        ids_BT = torch.tensor([ids], device=self._base.device)
        logits_V = self._base.model(input_ids=ids_BT, use_cache=False, logits_to_keep=1).logits[0, -1].float()
        logprob_V = torch.log_softmax(logits_V, dim=-1)
        return {option: float(logprob_V[token]) for option, token in self._first.items()}
