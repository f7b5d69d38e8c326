"""The tasks: what each data set asks, what is trained as the answer, how an output is scored; and their rows."""

from __future__ import annotations

from actshift.errors import unknown
from actshift.libraries.user_code import load_user_class, refuse_other_arguments
from actshift.schema.data import DatasetConfig
from actshift.tasks.alpaca import Alpaca
from actshift.tasks.aqua import Aqua
from actshift.tasks.arc_challenge import ArcChallenge
from actshift.tasks.base import Task
from actshift.tasks.boolq import BoolQ
from actshift.tasks.gsm8k import Gsm8k
from actshift.tasks.listops import ListOps
from actshift.tasks.rules import RULES
from actshift.tasks.templated import Templated
from actshift.tasks.verifiable.task import IFEval
from actshift.tasks.winogrande import Winogrande

TASKS: dict[str, Task] = {
    task.name: task for task in (Alpaca(), Aqua(), ArcChallenge(), BoolQ(), Gsm8k(), ListOps(), Winogrande())
}


def get_task(name: str, *, rule: str = "paper") -> Task:
    """The task that a data set's config names, worded and scoring by a rule of `RULES`; an unknown name is an error."""
    if name not in TASKS:
        raise unknown("task", name, TASKS, where="dataset.task (conf/dataset/)")
    if rule not in RULES:
        raise unknown("scoring rule", rule, RULES, where="evaluation.rule")
    task = TASKS[name]
    return task if rule == task.rule else type(task)(rule=rule)


CUSTOM = "custom"
"""The task of a data set whose class is the user's own, named by `dataset.target`."""


def task_of(dataset: DatasetConfig, *, rule: str = "paper") -> Task:
    """The task of a resolved data set's config: by its name, by its own template, or by a class of the user's own."""
    if dataset.task == CUSTOM:
        kind = load_user_class(str(dataset.target), Task, key="dataset.target")
        refuse_other_arguments(kind, str(dataset.target), key="dataset.target", rule=rule)
        task: Task = kind(rule=rule)
        return task
    if dataset.task == Templated.name:
        return Templated(dataset.template, rule=rule)
    return get_task(dataset.task, rule=rule)


def scoring_task(dataset: DatasetConfig, split: str, *, rule: str = "paper") -> Task:
    """The task that scores a split of a resolved data set's config: its own, but IFEval on a test split without one."""
    task = task_of(dataset, rule=rule)
    return IFEval(wrap=task.prompt, rule=rule) if split == "test" and tested_by_ifeval(dataset) else task


def tested_by_ifeval(dataset: DatasetConfig) -> bool:
    """Whether what was trained on this data set is tested on IFEval's prompts: its own answers have no score."""
    return isinstance(task_of(dataset), Alpaca)
