"""The structured configuration of a run: model, protocol, training, hardware, sweep, and `Config` that has all."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TypeVar

from omegaconf import MISSING

from actshift.schema.analysis import AnalysisConfig
from actshift.schema.data import DataConfig, DatasetConfig
from actshift.schema.fields import choice, number
from actshift.schema.method import MethodConfig
from actshift.schema.objective import ObjectiveConfig

STAGES = {"grid": "validation", "final": "test"}
"""The stage decides which split may be scored: the grid sees validation, the final stage test."""
EVALUATE = "evaluate"
"""The stage that scores an adapter that exists on a test split. It leaves no record, so no table can show it."""
SOURCES = ("hub", "embedded", "random", "local", "package")
SCORINGS = ("generation", "likelihood")
CHAT_FORMS = ("template", "released")
EXECUTIONS = ("separate", "replicas")
SELECTIONS = ("grid", "halving")
SWEEP_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
"""What can name a sweep, and with it the sweep's files."""
BYTES = {"float32": 4, "tf32": 4, "bfloat16": 2}
"""Bytes of a number, by `training.precision`."""
OPTIMIZERS = {"adamw": None, "adamw_8bit": "torchao", "adamw_bf16_stochastic": "torchao"}
"""AdamW's variants, and the package that each needs beside torch.

`adamw`: torch's, fused, its two states of the type of what trains. `adamw_8bit`: states of 8 bits in blocks of 256
(arXiv 2110.02861). `adamw_bf16_stochastic`: states and weights of bfloat16. Both of the latter compute a step in
float32 and round a bfloat16 weight up or down by chance, in proportion to what is left, so that updates smaller than
its last digit are not lost; `adamw` rounds to the nearest.
"""


@dataclass
class ShapeConfig:
    """The sizes of a decoder. Of a hub model they are asserted when it is loaded; of a random one they build it."""

    width: int = number(least=1)  # of the hidden state
    layers: int = number(least=1)  # decoder layers
    heads: int = number(least=1)  # of the queries
    kv_heads: int = number(least=1)  # of keys and values
    head_size: int = number(least=1)  # width of one head
    mlp_width: int = number(least=1)  # inner width of an MLP
    vocabulary: int = number(least=1)  # tokens
    tied: bool = MISSING  # whether the embeddings are the head too


@dataclass
class ModelConfig:
    name: str = MISSING  # the name of its file, or a name of your own for local weights
    source: str = choice(*SOURCES, default="hub")  # where its weights come from
    architecture: str | None = None  # a key of actshift.models.architectures.ARCHITECTURES; local: as the files say
    path: str | None = None  # hub name, folder of an embedded model, local folder or GGUF file, file of a package
    package: str | None = None  # source=package: the Python distribution that carries the file
    sha256: str | None = None  # of local or packaged weights: which ones they are, wherever they lie
    revision: str | None = None  # a commit, tag or branch of the hub; null: the newest
    scale: str = MISSING  # whose learning rates: a key of sweep.rates, such as tiny, 135m, 1b, 4b or 8b
    attention: str = choice("sdpa", "eager", default="sdpa")  # transformers' implementation
    chat: bool = False  # whether its prompts stand in its tokenizer's chat template
    shape: ShapeConfig = field(default_factory=ShapeConfig)


@dataclass
class ScheduleConfig:
    kind: str = choice("constant", "linear", "cosine")  # what follows the warmup
    warmup: float = number(0.0, least=0, below=1)  # share of the steps


@dataclass
class EvaluationConfig:
    """How a split is scored. Both count: a score by another way is another number, and no table mixes them."""

    max_new_tokens: int = number(least=1)  # that an answer may have
    rule: str = MISSING  # paper | released: what an output's label is (actshift.tasks.rules)
    scoring: str = choice(*SCORINGS, default="generation")  # likelihood: of the answers that there are


@dataclass
class SchedulesConfig:
    """The schedule of each method family."""

    sft: ScheduleConfig = field(default_factory=ScheduleConfig)  # of the family sft
    lora: ScheduleConfig = field(default_factory=ScheduleConfig)  # of the family lora
    steering: ScheduleConfig = field(default_factory=ScheduleConfig)  # of the family steering
    joint: ScheduleConfig = field(default_factory=ScheduleConfig)  # of the family joint


@dataclass
class ProtocolConfig:
    """What a protocol prescribes by method family, by data set and by the data set's kind.

    `training`, `data` and `evaluation` hold what a run takes.
    """

    name: str = MISSING  # the name of its file
    batch_size: dict[str, int] = MISSING  # by kind of data set
    schedules: dict[str, SchedulesConfig] = MISSING  # by kind of data set
    epochs: dict[str, int] = MISSING  # by data set
    max_tokens: dict[str, int | None] = MISSING  # by data set
    overlong: str = MISSING  # cut | drop
    overlap: str = MISSING  # drop | count | ignore
    end_token: dict[str, bool] = MISSING  # by kind of data set
    weight_decay: float = MISSING  # AdamW's
    clip: float = MISSING  # largest norm of a gradient
    precision: dict[str, str] = MISSING  # by kind of data set
    chat: str | None = choice(*CHAT_FORMS, None)  # how prompts stand in a model's chat template
    chat_max_tokens: dict[str, int] = MISSING  # by data set, for prompts in a chat template
    max_new_tokens: dict[str, int] = MISSING  # by data set
    rule: str = MISSING  # paper | released


@dataclass
class TrainingConfig:
    batch_size: int = number(least=1)  # rows of a step
    epochs: int = number(least=1)  # passes over the training rows
    max_steps: int | None = number(None, least=1)  # stop after so many steps; null: after the epochs
    schedule: ScheduleConfig = MISSING
    weight_decay: float = number(least=0)  # AdamW's
    clip: float = number(least=0)  # largest norm of a gradient; 0 clips nothing
    precision: str = choice(*BYTES)  # of the base model; adapters are float32
    optimizer: str = choice(*OPTIMIZERS, default="adamw")  # a kind of AdamW
    max_tokens: int | None = number(None, least=1)  # prompt and answer together
    overlong: str = choice("cut", "drop")  # what happens to a row with more tokens
    end_token: bool = MISSING  # whether an end token follows the answer
    validations: int = number(4, least=0)  # points of the validation curve
    validation_rows: int = number(64, least=0)  # rows of the validation curve


@dataclass
class SpeedConfig:
    """What the cost estimate takes a device for; finished records correct it."""

    flops: dict[str, float] = MISSING  # operations a second by precision, at best
    efficiency: float = number(least=1e-6)  # the share of them that training reaches
    attention_efficiency: float = number(1.0, least=1e-6)  # attention's rate beside the products'
    bytes_per_second: float = number(least=1)  # of memory
    layer_seconds: float = number(least=0)  # what a decoder layer costs in a step, however small
    memory_passes: float = number(
        0.0, least=0
    )  # how often a token's width and MLP width go through memory beside a layer's products
    memory_bytes: float = number(least=1)  # of the device


@dataclass
class HardwareConfig:
    """Where a run happens and how it is cut up; nothing here may change a result beyond rounding."""

    name: str = MISSING  # the name of its file
    device: str = choice("auto", "cpu", "cuda", default="auto")  # auto: cuda where there is one
    threads: int = number(1, least=1)  # of torch, on a CPU
    workers: int | None = number(
        None, least=1
    )  # processes of a local sweep; null: one a GPU, or one for `threads` cores
    micro_batch: int = number(least=1)  # rows that go through the model at once
    gradient_checkpointing: bool = False  # keep each layer's input alone and compute the rest again: less memory
    evaluation_tokens: int = number(least=1)  # prompt tokens of one evaluation batch, and their padding
    evaluation_bytes: float | None = number(None, least=1)  # of their keys and values, at most; null: any
    checkpoint_every: int = number(0, least=0)  # steps; 0 writes no mid-run checkpoint
    speed: SpeedConfig = field(default_factory=SpeedConfig)


@dataclass
class LoggerConfig:
    name: str = MISSING  # none | wandb
    project: str | None = None  # wandb's project; null: WANDB_PROJECT, else actshift
    mode: str | None = choice(
        "online", "offline", None, default=None
    )  # wandb's; null: WANDB_MODE, else by whether there is a key
    sweep: str | None = None  # what runs are grouped by, above their cell: a sweep's workers set it


@dataclass
class ExclusionConfig:
    """Cells that a table leaves out, and why. A field that is null matches everything."""

    reason: str = MISSING  # stands below the table
    model: str | None = None  # null: every model
    method: str | None = None  # null: every method
    dataset: str | None = None  # null: every data set


@dataclass
class ContrastConfig:
    """A difference that is named before any run: between the levels of a factor, all else equal, averaged."""

    about: str = MISSING  # the question that it answers
    compares: dict[str, list[str]] = MISSING  # by factor, two levels: the first less the second
    within: dict[str, list[str]] = field(default_factory=dict)  # levels of other factors; none: all there are
    claim: str = ""  # what of the paper it bears on: takeaway_1, takeaway_2, takeaway_3, listops, limitations
    together: bool = False  # several factors move at once; false: the difference of one factor's differences


@dataclass
class FractionConfig:
    """Methods that are combinations of levels: the part of their product that a study runs."""

    factors: dict[str, dict[str, list[str]]] = field(default_factory=dict)  # by factor and level, overrides
    blocks: list[dict[str, list[str]]] = field(default_factory=list)  # by factor, levels: each block is their product
    contrasts: dict[str, ContrastConfig] = field(default_factory=dict)  # by name, what is compared


@dataclass
class SweepConfig:
    """A table as axes. The grid stage runs every rate at the first seed, the final stage the best at every seed."""

    name: str = MISSING  # of its files below results/
    title: str = MISSING  # above the table
    table: str | None = None  # the paper's table that this one is laid out as
    models: list[str] = MISSING  # rows of the table, in blocks
    methods: list[str] = MISSING  # rows of the table
    datasets: list[str] = MISSING  # columns of the table
    reference: str = "sft"  # the method that differences are taken from
    rates: dict[str, dict[str, list[float]]] = MISSING  # by model scale and the method's `rates`
    seeds: list[int] = field(default_factory=lambda: [42, 43, 44, 45, 46])  # of the final stage; the grid has the first
    seeds_by_method: dict[str, list[int]] = field(default_factory=dict)  # other seeds for some methods
    fraction: FractionConfig = field(default_factory=FractionConfig)  # more methods, as combinations of levels
    variants: dict[str, dict[str, list[str]]] = field(default_factory=dict)  # by method, overrides tuned with the rate
    exclude: list[ExclusionConfig] = field(default_factory=list)  # cells that are left out
    overrides: list[str] = field(default_factory=list)  # for every run


Analysis = TypeVar("Analysis", bound=AnalysisConfig)


@dataclass
class Config:
    model: ModelConfig = MISSING
    method: MethodConfig = MISSING
    dataset: DatasetConfig = MISSING
    protocol: ProtocolConfig = MISSING
    objective: ObjectiveConfig = MISSING
    hardware: HardwareConfig = MISSING
    logger: LoggerConfig = MISSING
    training: TrainingConfig = field(default_factory=TrainingConfig)
    data: DataConfig = field(default_factory=DataConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    sweep: SweepConfig | None = None  # the sweep that is planned; null for one run
    analysis: AnalysisConfig | None = None  # the analysis that is made; null for one run
    stage: str = choice(*STAGES, EVALUATE, default="grid")  # which split may be scored
    profile: bool = False  # print where the time goes, and write a trace of the first steps
    execution: str = choice(
        *EXECUTIONS, default="separate"
    )  # replicas: a cell's rates, or seeds, at once where it pays
    selection: str = choice(
        *SELECTIONS, default="grid"
    )  # grid: every rate to the end; halving: rates that lag are dropped
    adapter: str | None = None  # of stage=evaluate: the adapter's folder
    lr: float = number(above=0)  # the learning rate; the method names the one of a run that gives none
    seed: int = number(42, least=0, below=2**32)  # of initial values, the order of rows, and dropout
    results: str = "results"  # the folder that everything is written to

    def analysis_as(self, kind: type[Analysis]) -> Analysis:
        """The analysis, which is of this kind: a function of an analysis is called for no other."""
        if not isinstance(self.analysis, kind):
            raise TypeError(f"the configuration's analysis is {type(self.analysis).__name__}, not {kind.__name__}")
        return self.analysis
