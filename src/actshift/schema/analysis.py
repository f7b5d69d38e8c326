"""The structured configuration of analyses: each kind has keys of its own."""

from __future__ import annotations

from dataclasses import dataclass, field

from omegaconf import MISSING

from actshift.schema.fields import number


@dataclass
class AnalysisConfig:
    """What every analysis has."""

    name: str = MISSING  # the name of its file


@dataclass
class OracleConfig(AnalysisConfig):
    """Base and tuned model side by side: what an overwritten site gives, and the best linear maps of the shift."""

    seed: int = number(least=0)  # of the random change
    rows: int = number(least=2)  # of the training split
    adapter: str | None = None  # a run's folder; null: every weight of the layers changed at random
    change: float = number(least=0)  # its relative size, where there is no adapter
    ranks: list[int] = MISSING  # of the maps
    ridge: float = number(least=0)  # of the linear ones, over the mean squared norm of the inputs
    steps: int = number(least=0)  # of the fit of those with a hidden layer; 0 leaves these out


@dataclass
class SweepAnalysisConfig(AnalysisConfig):
    """Analyses of trained adapters: those of a sweep's final runs on the configuration's model and data set."""

    sweep: str = "shifts"  # planned or done in the results folder
    methods: list[str] = MISSING  # of the sweep: those whose adapters are looked at

    def adapters(self) -> dict[str, list[str]]:
        """The methods whose adapters are looked at, by sweep."""
        return {self.sweep: [*self.methods]} if self.methods else {}


@dataclass
class OverlapConfig(SweepAnalysisConfig):
    """Figure 3: the directions in which a full adapter and down_proj learn first; methods: of fine-tuned models."""

    rows: int = number(least=2)
    directions: int = number(least=1)  # leading left singular vectors that are compared
    early: list[str] = MISSING  # sweeps whose joint training was stopped after few steps
    joint: str = MISSING  # the method of these sweeps

    def adapters(self) -> dict[str, list[str]]:
        found = super().adapters()
        for sweep in self.early:
            found[sweep] = [*found.get(sweep, []), self.joint]
        return found


@dataclass
class SharesConfig(SweepAnalysisConfig):
    """Figure 2: the MLP's share of a block's output, and of what training changes; without methods the first alone."""

    rows: int = number(least=2)  # of the validation split; prompts alone count


@dataclass
class CosinesConfig(SweepAnalysisConfig):
    """Figure 5: the adapter's shift and LoRA's, token by token."""

    rows: int = number(least=2)  # of the validation split; prompts alone count


@dataclass
class NormsConfig(SweepAnalysisConfig):
    """Figure 6: the size of the adapter's matrices."""


@dataclass
class ContinuationsConfig(SweepAnalysisConfig):
    """How far models are from the fine-tuned one along its own greedy continuations."""

    reference: str = MISSING  # the method of the fine-tuned model
    seed: int = number(least=0)  # of the fit of maps
    rows: int = number(least=2)  # of the validation split
    new_tokens: int = number(least=1)  # at most, of a continuation
    ranks: list[int] = MISSING  # of the maps, which are fitted to as many training rows
    ridge: float = number(least=0)  # of the linear ones, over the mean squared norm of the inputs
    steps: int = number(least=0)  # of the fit of those with a hidden layer; 0 leaves these out

    def adapters(self) -> dict[str, list[str]]:
        return {self.sweep: [self.reference, *self.methods]}


@dataclass
class RetentionConfig(SweepAnalysisConfig):
    """What adaptation costs elsewhere."""

    text: str | None = None  # a file of plain text that no task contains; null: the one of the package
    window: int = number(least=2)  # tokens of the text at a time
    datasets: list[str] = MISSING  # other data sets that each adapted model answers
    rows: int = number(least=2)  # of their test splits, at most


@dataclass
class LatencyConfig(AnalysisConfig):
    """What adapters cost when they answer, beside the base model, taking turns."""

    methods: list[str] = MISSING  # with random values: time does not depend on them
    batches: list[int] = MISSING  # rows that are answered at once
    prompt: int = number(least=1)  # tokens of a prompt
    new_tokens: int = number(least=1)  # generated after it
    turns: int = number(least=1)  # of every contestant, each turn beginning with another one
    rounds: int = number(least=1)  # of a turn, the fastest of which counts


@dataclass
class SizesConfig:
    """Sizes of the examples of a statement."""

    width: int = number(least=2)  # of a hidden state
    inner: int = number(least=1)  # of an MLP
    inputs: int = number(least=2)  # or tokens


@dataclass
class SearchConfig:
    """The search for worst cases: climbs from so many draws of each family, each of so many steps."""

    restarts: int = number(least=1)  # draws of each family that a climb begins from
    steps: int = number(least=1)  # of each climb
    sizes: SizesConfig = field(default_factory=SizesConfig)


@dataclass
class TheoryConfig(AnalysisConfig):
    """The theory ledger."""

    seed: int = number(least=0)  # of the draws
    draws: int = number(least=1)  # of each family of examples
    activations: bool = MISSING  # whether the model's own weights and hidden states are one of the families
    rows: int = number(least=2)  # of the training split, for these
    sizes: SizesConfig = field(default_factory=SizesConfig)
    search: SearchConfig = field(default_factory=SearchConfig)
