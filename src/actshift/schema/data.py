"""The structured configuration of data: what a data set is, and what a run takes of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from omegaconf import MISSING

from actshift.schema.fields import choice, number

OVERLAPS = ("drop", "count", "ignore")
"""What may happen to rows whose question a later split asks too."""
SPLITS = ("train", "validation", "test")


@dataclass
class HubConfig:
    path: str | None = None  # null: it is not on the hub
    config: str | None = None  # which of the repository's configurations
    revision: str | None = None  # a commit, tag or branch; null: the newest
    rows: dict[str, int] = field(default_factory=dict)  # asserted on every split that is read


@dataclass
class LocalConfig:
    """A folder below ``data.dir`` that holds ``<split>.jsonl[.gz]`` files with the hub's columns.

    It is named as the data set is, unless `folder` says otherwise. `files` names the files of splits that a folder can
    only have in part, `rows` their asserted row counts.
    """

    folder: str = "${dataset.name}"  # below data.dir
    files: dict[str, str] = field(default_factory=dict)  # file names without .jsonl, by split
    rows: dict[str, int] = field(default_factory=dict)  # asserted numbers of rows, by split


@dataclass
class ProceduralConfig:
    """The procedural sibling: rows by hub split, the seed they are drawn from, and the task's difficulty."""

    rows: dict[str, int] = field(default_factory=dict)  # empty: it has no generator
    seed: int = 0  # rows follow from it
    difficulty: dict[str, int] = field(default_factory=dict)  # what the task's generator takes


@dataclass
class SplitConfig:
    """One split as a part of a hub split, by the calls of the datasets library with a seed.

    ``keep: whole`` is the hub split itself; ``held_out`` and ``rest`` are the two parts of
    ``train_test_split(test_size=hold_out, seed=seed)``, after ``shuffle(seed=seed)`` where `shuffle` is set.
    """

    source: str = MISSING  # the file or split of the hub that it is a part of
    keep: str = choice("whole", "rest", "held_out", default="whole")  # which part of the split
    hold_out: float = 0.0  # share of the rows that is held out
    shuffle: bool = False  # whether rows are shuffled before the cut
    seed: int = 42  # of shuffling and cutting


@dataclass
class SplitsConfig:
    train: SplitConfig = field(default_factory=SplitConfig)  # the rows that are trained on
    validation: SplitConfig = field(default_factory=SplitConfig)  # the rows that choose a learning rate
    test: SplitConfig | None = field(default_factory=SplitConfig)  # null: there is none, or it is judged elsewhere

    def by_name(self) -> dict[str, SplitConfig | None]:
        """Each split's rule."""
        return {"train": self.train, "validation": self.validation, "test": self.test}


@dataclass
class LengthsConfig:
    """Lengths in tokens for the cost estimate: means of prompt and answer, and the longest row."""

    prompt: int = number(100, least=1)  # mean tokens of a prompt
    answer: int = number(20, least=1)  # mean tokens of an answer
    longest: int = number(300, least=1)  # tokens of the longest row
    shared: int = 0  # first tokens that all prompts have in common: computed once for the rows of a micro-batch


@dataclass
class TokensConfig(LengthsConfig):
    """Lengths of the data set's own rows, and of generated ones in the embedded model's tokens."""

    procedural: LengthsConfig | None = None  # lengths of generated rows; null: as long as the data set's own


@dataclass
class TemplateConfig:
    """A task as texts: what the model sees and is trained to answer, with the columns of a row as {column}."""

    prompt: str | None = None  # what the model sees
    answer: str | None = None  # may name {label}
    label: str | None = None  # the column with the gold label
    labels: dict[str, str] | None = None  # by value of that column; null: the value itself
    rule: str | None = None  # how an answer is found in an output and compared with the label
    question: str | None = None  # by which two rows are one question; null: the prompt


@dataclass
class ProtocolDefaults:
    """What a run takes where its protocol has no entry for the data set."""

    epochs: int = 1  # passes over the training rows
    max_tokens: int | None = None  # of prompt and answer together; null: no limit
    max_new_tokens: int = 10  # that an answer may have


@dataclass
class DatasetConfig:
    name: str = MISSING  # the name of its file
    version: int = number(1, least=1)  # raised whenever prompt or scoring changes
    task: str = MISSING  # a key of actshift.tasks.TASKS, templated, or custom
    target: str | None = None  # of task: custom, module:Class, a subclass of actshift.tasks.base.Task
    code: str | None = None  # the SHA-256 of the file that the class stands in; composition fills it
    template: TemplateConfig = field(default_factory=TemplateConfig)  # of a templated task
    default: ProtocolDefaults = field(default_factory=ProtocolDefaults)
    hub: HubConfig = field(default_factory=HubConfig)
    local: LocalConfig = field(default_factory=LocalConfig)
    procedural: ProceduralConfig = field(default_factory=ProceduralConfig)
    kind: str = choice("benchmark", "instruction", default="benchmark")  # what a protocol prescribes by
    splits: dict[str, SplitsConfig] = MISSING  # by protocol
    tokens: TokensConfig = field(default_factory=TokensConfig)

    def origin(self, source: str) -> Any:
        """The settings of a source of rows."""
        return {"hub": self.hub, "local": self.local, "procedural": self.procedural}[source]


@dataclass
class LimitConfig:
    """At most so many rows of a split; null is all of them."""

    train: int | None = number(None, least=1)  # the first so many rows
    validation: int | None = number(None, least=1)  # the first so many rows
    test: int | None = number(None, least=1)  # the first so many rows

    def of(self, split: str) -> int | None:
        """The limit of a split."""
        return {"train": self.train, "validation": self.validation, "test": self.test}[split]


@dataclass
class DataConfig:
    source: str = choice("hub", "local", "procedural")  # where rows come from
    origin: Any = MISSING  # the data set's settings for that source: these count, those of the others do not
    dir: str | None = None  # the folder that holds the folders of local data sets
    splits: SplitsConfig = MISSING
    overlap: str = choice(*OVERLAPS)  # rows whose question a later split asks too
    limit: LimitConfig = field(default_factory=LimitConfig)


ORIGINS: dict[str, type] = {"hub": HubConfig, "local": LocalConfig, "procedural": ProceduralConfig}
"""The settings of a data set that `data.origin` holds, by `data.source`."""
