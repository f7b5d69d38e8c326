"""Commands that show what goes into runs and what they left: rows, lengths, adapters, predictions, options."""

from __future__ import annotations

import re
import sys
from argparse import Namespace
from itertools import takewhile
from pathlib import Path

from actshift.commands.requests import console, results_folder, split_options, write_copies
from actshift.config.composition import compose, composed
from actshift.config.groups import groups, option_file
from actshift.errors import ActshiftError, unknown


def show_command(request: Namespace) -> int:
    """One row as the model will see it."""
    from actshift.commands.show import shown, terminal

    given, overrides = split_options(request.overrides, ["row", "split"])
    chosen = {"row": "0", "split": "train"} | given
    if not chosen["row"].isdigit():
        raise ActshiftError(f"row={chosen['row']}: give a row's number, the first being 0")
    config = compose(overrides)
    console().print(terminal(shown(config, split=chosen["split"], row=int(chosen["row"])), method=config.method))
    return 0


def lengths_command(request: Namespace) -> int:
    """Rows and lengths in tokens of every data set and protocol, or of those named."""
    from actshift.commands import lengths

    given, overrides = split_options(request.overrides, ["dataset", "protocol"])
    named = {key: given[key].split(",") if key in given else groups()[key] for key in ("dataset", "protocol")}
    datasets = {name: composed([f"dataset={name}"]).dataset for name in named["dataset"]}
    if "dataset" not in given and not any(word.startswith("data.source=") for word in overrides):
        datasets = {name: dataset for name, dataset in datasets.items() if dataset.procedural.rows}
    configs = [
        compose([f"dataset={name}", f"protocol={protocol}", *overrides])
        for name, dataset in datasets.items()
        for protocol in (named["protocol"] if "protocol" in given else sorted(map(str, dataset.splits)))
    ]
    tokenizer = None if request.tokenizer is None else lengths.tokenizer_in(request.tokenizer)
    rows = list(lengths.lengths(configs, tokenizer=tokenizer))
    console().print(lengths.terminal(rows))
    write_copies(rows, (request.csv, lengths.csv), (request.markdown, lengths.markdown))
    return 0


def overlaps_command(request: Namespace) -> int:
    """Questions that the splits of real data share, by their words alone; of all data sets, or of those named."""
    from actshift.commands.terminal import overlaps_table
    from actshift.data.overlaps import overlaps, real_keys

    named, overrides = split_options(request.overrides, ["dataset"])
    keys: dict[str, list[str]] = {}
    for name in named["dataset"].split(",") if named else groups()["dataset"]:
        config = compose([f"dataset={name}", *overrides])
        found = real_keys(config.dataset, source=config.data.source, directory=config.data.dir)
        if not found:
            print(f"{name}: no split in {config.data.dir}")
        keys |= found
    if not keys:
        raise ActshiftError("no split was found: name a folder of data with data.source=local data.dir=FOLDER")
    console().print(overlaps_table(overlaps(keys), keys))
    print(f"{len(keys)} splits, {sum(map(len, keys.values())):,} rows")
    return 0


def adapters_command(request: Namespace) -> int:
    """The trained adapters of a results folder."""
    from actshift.commands.terminal import adapters_table
    from actshift.store.adapter_card import AdapterCard, adapters_in

    root = results_folder(request)
    found = list(adapters_in(root))
    if not found:
        print(f"no adapters in {root.resolve() / 'runs'}")
        return 0
    cards = [(folder, card) for folder, card in found if isinstance(card, AdapterCard)]
    console().print(adapters_table(cards))
    print(f"{root / 'runs'}/<adapter>/adapter")
    for _, other in found:
        if not isinstance(other, AdapterCard):
            print(f"cannot be read: {other}", file=sys.stderr)
    return 0


def score_command(request: Namespace) -> int:
    """Score a predictions file again, without a model: accuracy, and what changed against what was recorded."""
    from actshift.evaluation.rescoring import rescore

    print(rescore(Path(request.file), task=request.task, rule=request.rule).text())
    return 0


def explain_command(request: Namespace) -> int:
    """Say of a key, or of each key of a group, what it means, what it may be, and whether it changes an identity."""
    from actshift.config.explanation import explain

    for each in explain(request.key):
        parts = [f"{each.key}: {each.type}"] if each.type else [each.key]
        parts += [each.about] if each.about else []
        parts += [f"one of {', '.join(each.allowed)}"] if each.allowed else []
        parts += [each.bounds] if each.bounds is not None else []
        parts += [] if each.counts else ["changes no identity"]
        print("; ".join(parts))
    return 0


def list_command(request: Namespace) -> int:
    """Every option of the config groups with the first sentence of its file's comment."""
    there = groups()
    if request.group is not None and request.group not in there:
        raise unknown("group", request.group, there, where="actshift list <group>")
    for group in [request.group] if request.group else there:
        print(group)
        for option in there[group]:
            print(f"  {option:<22} {_about(option_file(group, option))}")
    return 0


def _about(file: Path) -> str:
    """The first sentence of the comment that a YAML begins with; empty where there is none."""
    lines = (line for line in file.read_text(encoding="utf-8").splitlines() if "@package" not in line)
    comment = " ".join(line[2:] for line in takewhile(lambda line: line.startswith("# "), lines))
    return re.split(r"(?<=\w{3}\.)\s", comment, maxsplit=1)[0]  # "Dr. GRPO" goes on
