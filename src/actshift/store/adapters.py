"""Trained adapters as files: saved, loaded, and put on a model.

A folder holds `actshift.json` (see `actshift.store.adapter_card`), the tensors, and how the training went. That of a
LoRA is also a folder of peft's: `peft.PeftModel.from_pretrained(base, folder)` takes it as it is. Joint methods are not
saved in peft's form, although they have LoRA in them: peft would load half of them and say nothing.
"""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch.utils.hooks import RemovableHandle
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from actshift.errors import ActshiftError
from actshift.files import new_folder, write_file
from actshift.libraries.private import commit_of
from actshift.methods import KINDS, attach
from actshift.methods.base import Adaptation
from actshift.models.arguments import cache_argument, passed_cache
from actshift.models.loading import Base
from actshift.models.packing.forward_pass import ForwardPass
from actshift.models.sites import Sites
from actshift.schema.config import Config, ModelConfig
from actshift.schema.method import MethodConfig, steering_part
from actshift.store.adapter_card import ADAPTER_CARD, PEFT_CONFIG, TENSORS, AdapterCard, read_adapter_card

FACTS = "facts.json"
PEFT_NAMES = "base_model.model."
"""What stands before a base model's module names in peft's files."""


@dataclass(frozen=True)
class Adapter:
    """A saved adapter: what it says of itself, and its tensors by our names."""

    folder: Path
    description: AdapterCard
    state: dict[str, torch.Tensor]

    def attach(self, base: Base) -> Adaptation:
        """Put it on a base model. Errors: another model than it was trained over, tensors that do not fit it."""
        self._check(base)
        adaptation = attach(base, config=self.description.method, seeds=(self.description.seed,))
        try:
            adaptation.load_state_dict(self.state)
        except ActshiftError as error:
            adaptation.detach()
            raise ActshiftError(f"{self.folder}: {error}") from error
        return adaptation

    def _check(self, base: Base) -> None:
        """Refuse a model of another architecture, size, name or revision, by whatever it knows of itself."""
        described = self.description
        shape, sites, name = described.model.shape, base.sites, base.model.name_or_path
        commit = commit_of(base.model.config)
        # A folder's name says nothing: it may be a copy of the right model.
        named = described.model.source == "hub" and name and not Path(name).is_dir()
        pairs = {
            "type": (described.model_type, base.model.config.model_type),
            "name": (described.model.path, name if named else described.model.path),
            "revision": (described.commit, commit) if commit and described.commit else (None, None),
            "width": (shape.width, sites.model_width),
            "layers": (shape.layers, sites.layers),
            "heads": (shape.heads, sites.heads),
            "head size": (shape.head_size, sites.head_size),
        }
        if wrong := [f"its {what} is {got}, not {own}" for what, (own, got) in pairs.items() if own != got]:
            raise ActshiftError(
                f"the adapter in {self.folder} belongs to the base model '{described.model.name}' "
                f"({described.model.path}), and this is another one: {'; '.join(wrong)}."
            )


def save_adapter(
    folder: Path,
    adaptation: Adaptation,
    *,
    base: Base,
    config: Config,
    facts: Mapping[str, Any],
    replica: int = 0,
    **card_fields: Any,
) -> None:
    """Save what a run trained as one complete folder; `facts` go to facts.json, `said` to the description."""
    state = adaptation.state_dict(replica)
    with new_folder(folder) as partial:
        if KINDS[config.method.kind].peft_files:
            state = {f"{PEFT_NAMES}{name}": tensor for name, tensor in state.items()}
            write_file(partial / PEFT_CONFIG, _peft_config(base, config.model))
        whole = {name: tensor.contiguous() for name, tensor in state.items()}
        save_file(whole, partial / TENSORS, metadata={"format": "pt"})
        description = AdapterCard.of(
            config,
            model_type=base.model.config.model_type,
            commit=commit_of(base.model.config),
            trainable_parameters=adaptation.trainable_parameters(),
            sha256=_sha256(partial / TENSORS),
            **card_fields,
        )
        write_file(partial / ADAPTER_CARD, description.to_json())
        write_file(partial / FACTS, json.dumps(facts))


def load_adapter(folder: str | Path, *, config: Config | None = None) -> Adapter:
    """The adapter in a folder, refused where it is not the one of a resolved config's base model and method.

    Errors: what `read_adapter_card` refuses; the keys in which `config` differs; tensors that are missing or altered.
    """
    folder = Path(folder)
    description = read_adapter_card(folder)
    if config is not None:
        description.check(config, where=folder)
    path = folder / TENSORS
    if not path.is_file():
        raise ActshiftError(f"{path} is missing. Restore the file, or delete the folder and train again.")
    if _sha256(path) != description.sha256:
        raise ActshiftError(
            f"{path} is torn or altered: its checksum is not the one in {ADAPTER_CARD}. "
            "Restore the file, or delete the folder and train again."
        )
    try:
        state: dict[str, torch.Tensor] = load_file(path)
    except SafetensorError as error:
        raise ActshiftError(f"{path} is not a safetensors file: {error}") from error
    return Adapter(folder, description, {name.removeprefix(PEFT_NAMES): tensor for name, tensor in state.items()})


def bare_base(model: PreTrainedModel, *, architecture: str) -> Base:
    """A model as a base to attach to, without a tokenizer: no method looks at it."""
    size = sum(parameter.numel() for parameter in model.parameters())
    return Base(model, cast(PreTrainedTokenizerBase, None), Sites(model, architecture=architecture), size)


@contextmanager
def steer(model: PreTrainedModel, folder: str | Path) -> Iterator[Adaptation]:
    """`model` with the adapter in a folder on it, inside a ``with``; afterwards it is what it was.

    Works with ``model.generate`` and plain forward passes of transformers, padded on either side: every unmasked token
    of a pass that continues no key/value cache is a prompt token, every other one a generated token. An adapter of the
    scope `every_last` changes the last token of each pass, and is generated with by ``use_cache=False``.
    Errors: what `load_adapter` and `Adapter.attach` refuse; a pass that hides where its prompt ends.
    """
    adapter = load_adapter(folder)
    before = [(parameter, parameter.requires_grad) for parameter in model.parameters()], model.training
    adaptation = adapter.attach(bare_base(model, architecture=str(adapter.description.model.architecture)))
    model.eval()
    hook = _observing(model, adaptation) if _inside_prompt(adapter.description.method) else None
    try:
        yield adaptation
    finally:
        if hook is not None:
            hook.remove()
        adaptation.detach()
        model.train(before[1])
        for parameter, trains in before[0]:
            parameter.requires_grad_(trains)


def fold(model: PreTrainedModel, folder: str | Path) -> PreTrainedModel:
    """`model` with the adapter in a folder in its own weights, for good: no hook, no module more, no time more.

    In float32 it computes what `steer` computes within rounding; in bfloat16 its weights are rounded once more.
    Errors: what `load_adapter` and `Adapter.attach` refuse; an adapter that no weights can stand for, with the reason.
    """
    adapter = load_adapter(folder)
    base = bare_base(model, architecture=str(adapter.description.model.architecture))
    with torch.no_grad():
        adaptation = adapter.attach(base)
        try:
            adaptation.fold()
        except ActshiftError:
            adaptation.detach()
            raise
    model.eval()
    return model


def _inside_prompt(method: MethodConfig) -> bool:
    """Whether a method acts on some positions of the prompt and must be told where these are."""
    steering = steering_part(method)
    return steering is not None and steering.scope.kind != "all"


def _observing(model: PreTrainedModel, adaptation: Adaptation) -> RemovableHandle:
    """Tell a method before each forward pass of a model which of its positions are prompt tokens."""
    cache_argument(model)  # refuses a model whose cache would not be noticed
    signature = inspect.signature(model.forward)

    def before(_: torch.nn.Module, positional: tuple[Any, ...], named: dict[str, Any]) -> None:
        arguments = signature.bind_partial(*positional, **named).arguments
        prompt_BT = _whole(arguments) if adaptation.changes_copies else _prompt(arguments)
        adaptation.begin_pass(ForwardPass(prompt_BT))

    return model.register_forward_pre_hook(before, with_kwargs=True)


def _prompt(arguments: Mapping[str, Any]) -> torch.Tensor | None:
    """prompt_BT of a forward pass with these arguments; None where it continues a cache."""
    cache = passed_cache(arguments)
    if cache is not None and cache.get_seq_length() > 0:
        return None
    if arguments.get("use_cache") is False:
        raise ActshiftError(
            "without a key/value cache a pass holds both prompt and generated tokens, and this adapter must know where "
            "the prompt ends. Leave use_cache=False out."
        )
    return _tokens(arguments)


def _whole(arguments: Mapping[str, Any]) -> torch.Tensor:
    """The tokens of a forward pass that holds rows whole, each ending at the last position.

    Errors: a pass that has or makes a cache, in which later tokens would see a changed token; padding on the right.
    """
    if passed_cache(arguments) is not None or arguments.get("use_cache") is not False:
        raise ActshiftError(
            "an adapter of the scope every_last changes a token for its own prediction alone, which a key/value cache "
            "does not forget. Generate with use_cache=False, or attach it with the scope answer, which is what the "
            "released code does when it generates."
        )
    token_BT = _tokens(arguments)
    if not bool(token_BT[:, -1].all()):
        raise ActshiftError("an adapter of the scope every_last changes the last position: pad rows on the left.")
    return token_BT


def _tokens(arguments: Mapping[str, Any]) -> torch.Tensor:
    """Which positions of a forward pass are tokens."""
    mask_BT = arguments.get("attention_mask")
    if mask_BT is None:
        shown = arguments.get("input_ids")
        shown = arguments["inputs_embeds"] if shown is None else shown
        return torch.ones(shown.shape[:2], dtype=torch.bool, device=shown.device)
    if not isinstance(mask_BT, torch.Tensor) or mask_BT.dim() != 2:
        raise ActshiftError(
            "this adapter acts on positions of the prompt, which need an attention mask of rows x tokens; "
            "this pass has another kind (static caches make one). Generate with the default cache."
        )
    return mask_BT.bool()


def _peft_config(base: Base, model: ModelConfig) -> str:
    """peft's configuration of the LoRA that is on a base model, as peft writes it, but in one order of its lists."""
    config: Any = base.model.peft_config["default"]
    options = config.to_dict() | {
        "base_model_name_or_path": model.path,
        "revision": model.revision if model.source == "hub" else None,
        "inference_mode": True,
    }
    return json.dumps(options, default=sorted, indent=2, sort_keys=True) + "\n"


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
