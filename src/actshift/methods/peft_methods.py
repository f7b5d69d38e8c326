"""Any method of peft, by the name of its config class: ``config_class: VeraConfig`` with the class's own arguments."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import peft
import torch
from torch import nn

from actshift.errors import ActshiftError
from actshift.methods.base import Adaptation
from actshift.models.architectures import ARCHITECTURES, projection_names
from actshift.models.loading import Base
from actshift.schema.method import LoraOptions, PeftMethodConfig


class PeftMethod(Adaptation):
    """A method of peft over the frozen base, as peft computes it; what trains is what peft leaves trainable.

    The names of its tensors are peft's without the adapter's name. Initial values follow from the seed.
    """

    def __init__(self, base: Base, *, config: PeftMethodConfig | LoraOptions, seeds: Sequence[int]) -> None:
        (seed,) = seeds
        settings = self.settings(config)
        fused = ARCHITECTURES[base.sites.architecture].fused
        for key in ("target_modules", "feedforward_modules"):
            if names := getattr(settings, key, None):
                setattr(settings, key, set(projection_names(sorted(names), fused)))
        self._base = base
        before = set(dict(base.model.named_parameters()))
        with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
            # peft asks transformers for a name that transformers 5 deprecates.
            warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing.*", category=FutureWarning)
            torch.manual_seed(seed)
            self._peft = peft.get_peft_model(base.model, settings)
        base.model.eval()  # peft's modules start in training mode: dropout would act at evaluation
        self._draws = any(isinstance(module, nn.Dropout) and module.p > 0 for module in self._peft.modules())
        self._names = [
            name for name, tensor in base.model.named_parameters() if tensor.requires_grad and name not in before
        ]
        if not self._names:
            raise ActshiftError(f"{type(settings).__name__} trains nothing on this model: correct method.options")

    @staticmethod
    def settings(config: Any) -> Any:
        """peft's config object of a method's config."""
        return settings_of(config)

    def named_parameters(self, replica: int = 0) -> Iterator[tuple[str, nn.Parameter]]:
        tensors = dict(self._base.model.named_parameters())
        for name in self._names:
            yield name.replace(".default", ""), tensors[name]

    def shared_prefix_length(self, prompt_BT: torch.Tensor) -> int:
        """Dropout draws for every token of every row."""
        return 0 if self._draws else super().shared_prefix_length(prompt_BT)

    def fold(self) -> None:
        if not hasattr(self._peft, "merge_and_unload"):
            raise ActshiftError("peft cannot merge this method into weights: keep it as an adapter")
        self._peft.merge_and_unload(safe_merge=True)
        self._forget()

    def detach(self) -> None:
        self._peft.unload()
        self._forget()

    def _forget(self) -> None:
        # peft marks a model that it has been on, and warns when it comes again.
        if hasattr(self._base.model, "peft_config"):
            del self._base.model.peft_config
        self._base.model.requires_grad_(False)


def settings_of(config: PeftMethodConfig) -> Any:
    """peft's config object. Errors: no such class, an argument that the class does not take, or a wrong value."""
    name, given = config.config_class, dict(config.options)
    kind = getattr(peft, name, None)
    if not (isinstance(kind, type) and issubclass(kind, peft.PeftConfig)):
        there = sorted(each for each in dir(peft) if each.endswith("Config"))
        raise ActshiftError(f"method.config_class = {name}: peft {peft.__version__} has {', '.join(there)}")
    try:
        return kind(task_type="CAUSAL_LM", **given)
    except (TypeError, ValueError) as error:
        raise ActshiftError(f"method.options of {name}: peft refuses them: {error}") from error
