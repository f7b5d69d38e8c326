"""The commands of instruction tuning: outputs, IFEval, judges, win rates."""

from __future__ import annotations

from actshift.commands.command import CSV, FLAG, MARKDOWN, RESULTS, Command

JUDGING = {
    "outputs": Command(
        "let a sweep's tuned models, or one adapter, answer AlpacaEval's instructions, for a judge to compare",
        "outputs.outputs_command",
        "actshift outputs real3 --data FOLDER",
        overrides=RESULTS,
        arguments={
            "what": {"metavar": "SWEEP|ADAPTER", "help": "a planned sweep, or the folder of an adapter"},
            "--data": {
                "required": True,
                "metavar": "FOLDER",
                "help": "data sets, alpaca_eval among them",
            },
            "--limit": {"type": int, "metavar": "N", "help": "the first N instructions alone"},
            "--max-new-tokens": {
                "type": int,
                "metavar": "N",
                "help": "another limit than the run's protocol",
            },
            "--temperature": {"type": float, "metavar": "T", "help": "draw tokens (released: 0.7); greedy without it"},
            "--top-p": {"type": float, "default": 1.0, "metavar": "P", "help": "draw from the likeliest tokens (0.9)"},
            "--seed": {
                "type": int,
                "default": 0,
                "metavar": "N",
                "help": "of the draws, with the row",
            },
        },
    ),
    "ifeval": Command(
        "score responses to IFEval's prompts: 25 kinds of instructions, strict and loose",
        "judging.ifeval_command",
        "actshift ifeval responses.jsonl",
        arguments={
            "file": {"metavar": "RESPONSES.jsonl", "help": "JSON lines or a list: key or prompt, and response"},
            "--data": {"metavar": "FOLDER", "help": "data sets with prompts of your own (ifeval/input_data.jsonl)"},
            "--partial": {**FLAG, "help": "score the prompts that have a response, and say how many"},
            **CSV,
            **MARKDOWN,
        },
    ),
    "judge": Command(
        "ask a judge about a file of outputs, or those of a sweep; no pair is paid for twice",
        "judging.judge_command",
        "actshift judge outputs.json --references reference.json --recorded FOLDER --out annotations.json",
        overrides=RESULTS,
        arguments={
            "outputs": {"metavar": "OUTPUTS.json|SWEEP", "help": "outputs in AlpacaEval's format, or a planned sweep"},
            "--data": {"metavar": "FOLDER", "help": "of a sweep: data sets, alpaca_eval among them"},
            "--references": {"metavar": "FILE", "help": "the reference's outputs (of a sweep: those in --data)"},
            "--out": {"metavar": "FILE", "help": "the judgments (of a sweep: with each run)"},
            "--judge": {"default": "replay", "metavar": "NAME", "help": "a file of conf/judge (replay)"},
            "--model": {"metavar": "NAME", "help": "another model than the judge's file names"},
            "--base-url": {"metavar": "URL", "help": "another address: https, or http on this machine"},
            "--budget": {"type": float, "metavar": "USD", "help": "ask nothing beyond so many dollars"},
            "--inner": {**FLAG, "help": "leave out instructions that only one file has, as upstream does"},
            "--allow-unjudged": {**FLAG, "help": "write judgments though more than one row in 100 has no preference"},
            "--import": {
                "nargs": "+",
                "metavar": "PATH",
                "dest": "imported",
                "help": "take judgments in AlpacaEval's format into the ledger as this judge's, and ask nobody",
            },
            "--recorded": {"nargs": "+", "metavar": "PATH", "help": "with --judge replay: recorded judgments"},
            "--ledger": {"metavar": "FOLDER", "help": "what was asked and answered (results/judgments)"},
            "--limit": {"type": int, "metavar": "N", "help": "the first N pairs alone"},
            "--dry-run": {**FLAG, "help": "say how many questions there are and what they cost, and ask none"},
        },
    ),
    "judges": Command(
        "how far two judges agree about the same answers: same side, kappa, win rates, liking of longer answers",
        "judging.judges_command",
        "actshift judges annotations-a.json annotations-b.json",
        arguments={
            "first": {"metavar": "ANNOTATIONS.json", "help": "the judgments of one judge"},
            "second": {"metavar": "ANNOTATIONS.json", "help": "the judgments of another, of the same outputs"},
            **CSV,
            **MARKDOWN,
        },
    ),
    "winrate": Command(
        "win rates of recorded judgments (AlpacaEval), length-controlled, with intervals and by position",
        "judging.winrate_command",
        "actshift winrate annotations.json --data FOLDER",
        arguments={
            "paths": {"nargs": "+", "metavar": "PATH", "help": "files of judgments (annotations.json), or folders"},
            "--data": {"metavar": "FOLDER", "help": "data sets, alpaca_eval among them: length control needs it"},
            "--against": {"metavar": "MODEL", "help": "the paired difference of every other model to this one"},
            "--draws": {"type": int, "default": 1000, "metavar": "N", "help": "bootstrap draws (1000)"},
            "--seed": {"type": int, "default": 0, "metavar": "N", "help": "the seed of the draws (0)"},
            "--by-row": {**FLAG, "help": "join difficulties by row, as upstream does, to see what that changes"},
            "--c": {"type": float, "metavar": "C", "help": "the penalty, where cross-validation is not to choose it"},
            **CSV,
            **MARKDOWN,
        },
    ),
}
