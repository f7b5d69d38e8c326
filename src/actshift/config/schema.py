"""The structured configuration: every key that exists, its type, and the values that make sense.

Hydra refuses a key or a type that is not declared here when it composes; `validate` refuses values that a type
cannot rule out (rank 0, a layer the model lacks). Both happen before any model or data is loaded.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from omegaconf import MISSING

from actshift.config.analysis_schema import AnalysisConfig
from actshift.config.data_schema import DataConfig, DatasetConfig
from actshift.methods.options import MethodConfig

STAGES = {"grid": "validation", "final": "test"}
"""The stage decides which split may be scored: the grid sees validation, the final stage test."""
EVALUATE = "evaluate"
"""The stage that scores an adapter that exists on a test split. It leaves no record, so no table can show it."""
SCORINGS = ("generation", "likelihood")
EXECUTIONS = ("separate", "replicas")
SELECTIONS = ("grid", "halving")
SWEEP_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
"""What can name a sweep, and with it the sweep's files."""
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

    width: int = MISSING  # of the hidden state
    layers: int = MISSING  # decoder layers
    heads: int = MISSING  # of the queries
    kv_heads: int = MISSING  # of keys and values
    head_size: int = MISSING  # width of one head
    mlp_width: int = MISSING  # inner width of an MLP
    vocabulary: int = MISSING  # tokens
    tied: bool = MISSING  # whether the embeddings are the head too


@dataclass
class ModelConfig:
    name: str = MISSING  # the name of its file, or a name of your own for local weights
    source: str = "hub"  # hub | embedded | random | local | package
    architecture: str | None = None  # a key of actshift.models.architectures.ARCHITECTURES; local: as the files say
    path: str | None = None  # hub name, folder of an embedded model, local folder or GGUF file, file of a package
    package: str | None = None  # source=package: the Python distribution that carries the file
    sha256: str | None = None  # of local or packaged weights: which ones they are, wherever they lie
    revision: str | None = None  # a commit, tag or branch of the hub; null: the newest
    scale: str = MISSING  # the learning-rate grid's size class: tiny, 1b, 4b, 8b
    attention: str = "sdpa"  # sdpa | eager: transformers' implementation
    chat: bool = False  # whether its prompts stand in its tokenizer's chat template
    shape: ShapeConfig = field(default_factory=ShapeConfig)


@dataclass
class ScheduleConfig:
    kind: str = MISSING  # constant | linear | cosine
    warmup: float = 0.0  # share of the steps


@dataclass
class EvaluationConfig:
    """How a split is scored. Both count: a score by another way is another number, and no table mixes them."""

    max_new_tokens: int = MISSING  # that an answer may have
    rule: str = MISSING  # paper | released: what an output's label is (actshift.tasks.rules)
    scoring: str = "generation"  # generation | likelihood (of the answers that there are)


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
    chat: str | None = MISSING  # template | released | null: how prompts stand in a model's chat template
    chat_max_tokens: dict[str, int] = MISSING  # by data set, for prompts in a chat template
    max_new_tokens: dict[str, int] = MISSING  # by data set
    rule: str = MISSING  # paper | released


@dataclass
class TrainingConfig:
    batch_size: int = MISSING  # rows of a step
    epochs: int = MISSING  # passes over the training rows
    max_steps: int | None = None  # stop after so many steps; null: after the epochs
    schedule: ScheduleConfig = MISSING
    weight_decay: float = MISSING  # AdamW's
    clip: float = MISSING  # largest norm of a gradient; 0 clips nothing
    precision: str = MISSING  # float32 | tf32 | bfloat16, of the base model; adapters are float32
    optimizer: str = "adamw"  # a key of OPTIMIZERS
    max_tokens: int | None = None  # prompt and answer together
    overlong: str = MISSING  # cut | drop: what happens to a row with more tokens
    end_token: bool = MISSING  # whether an end token follows the answer
    validations: int = 4  # points of the validation curve
    validation_rows: int = 64  # rows of the validation curve


@dataclass
class SpeedConfig:
    """What the cost estimate takes a device for; finished records correct it."""

    flops: dict[str, float] = MISSING  # operations a second by precision, at best
    efficiency: float = MISSING  # the share of them that training reaches
    bytes_per_second: float = MISSING  # of memory
    layer_seconds: float = MISSING  # what a decoder layer costs in a step, however small
    memory_bytes: float = MISSING  # of the device


@dataclass
class HardwareConfig:
    """Where a run happens and how it is cut up; nothing here may change a result beyond rounding."""

    name: str = MISSING  # the name of its file
    device: str = "auto"  # auto | cpu | cuda
    threads: int = 1  # of torch, on a CPU
    workers: int | None = None  # processes of a local sweep; null: one a GPU, or one for `threads` cores
    micro_batch: int = MISSING  # rows that go through the model at once
    gradient_checkpointing: bool = False  # keep each layer's input alone and compute the rest again: less memory
    evaluation_tokens: int = MISSING  # prompt tokens of one evaluation batch, padding included
    checkpoint_every: int = 0  # steps; 0 writes no mid-run checkpoint
    speed: SpeedConfig = field(default_factory=SpeedConfig)


@dataclass
class LoggerConfig:
    name: str = MISSING  # none | wandb
    project: str | None = None  # wandb's project; null: WANDB_PROJECT, else actshift
    mode: str | None = None  # wandb's: online, offline, disabled; null: WANDB_MODE, else by whether there is a key
    sweep: str | None = None  # what runs are grouped by, above their cell: a sweep's workers set it


@dataclass
class ExclusionConfig:
    """Cells that a table leaves out, and why. A field that is null matches everything."""

    reason: str = MISSING  # stands below the table
    model: str | None = None  # null: every model
    method: str | None = None  # null: every method
    dataset: str | None = None  # null: every data set


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
    variants: dict[str, dict[str, list[str]]] = field(default_factory=dict)  # by method, overrides tuned with the rate
    exclude: list[ExclusionConfig] = field(default_factory=list)  # cells that are left out
    overrides: list[str] = field(default_factory=list)  # for every run


@dataclass
class Config:
    model: ModelConfig = MISSING
    method: MethodConfig = MISSING
    dataset: DatasetConfig = MISSING
    protocol: ProtocolConfig = MISSING
    hardware: HardwareConfig = MISSING
    logger: LoggerConfig = MISSING
    training: TrainingConfig = field(default_factory=TrainingConfig)
    data: DataConfig = field(default_factory=DataConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    sweep: SweepConfig | None = None  # the sweep that is planned; null for one run
    analysis: AnalysisConfig | None = None  # the analysis that is made; null for one run
    stage: str = "grid"  # grid | final | evaluate: which split may be scored
    profile: bool = False  # print where the time goes, and write a trace of the first steps
    execution: str = "separate"  # of a sweep: separate | replicas (a cell's rates, or seeds, at once where it pays)
    selection: str = "grid"  # of a sweep: grid (every rate to the end) | halving (rates that lag behind are dropped)
    adapter: str | None = None  # of stage=evaluate: the adapter's folder
    lr: float = MISSING  # the learning rate; the method names the one of a run that gives none
    seed: int = 42  # of initial values, the order of rows, and dropout
    results: str = "results"  # the folder that everything is written to
