"""Every command of `actshift`: what its help says, an example, the function that does it, and its arguments."""

from __future__ import annotations

from actshift.commands.command import CSV, EVERY_RUN, EXTEND, FLAG, MARKDOWN, REPLAN, RESULTS, Command
from actshift.commands.judging_catalogue import JUDGING

COMMANDS = {
    "run": Command(
        "one run: train, evaluate, record (Hydra's flags: --cfg job, -m)",
        "hydra.run_command",
        "actshift run method=sft dataset=boolq lr=1e-3",
        overrides="Hydra overrides and flags",
    ),
    "sweep": Command(
        "do a whole table: grid, selection, final, tables",
        "runs.sweep_command",
        "actshift sweep smoke",
        sweep=True,
        overrides=EVERY_RUN,
        arguments={"--retry": {**FLAG, "help": "try failed runs again"}, **REPLAN, **EXTEND},
    ),
    "plan": Command(
        "freeze a table's grid, and print its counts and what it will cost",
        "runs.plan_command",
        "actshift plan table1 hardware=a100-80gb",
        sweep=True,
        overrides=EVERY_RUN,
        arguments={**REPLAN, **EXTEND},
    ),
    "select": Command(
        "choose learning rates by validation",
        "runs.select_command",
        "actshift select smoke",
        sweep=True,
        overrides=EVERY_RUN,
        arguments={"--allow-missing": {**FLAG, "help": "select though runs are missing, and say so in the table"}},
    ),
    "prefetch": Command(
        "bring a table's weights, tokenizers and data to the hub's cache, where there is a network",
        "runs.prefetch_command",
        "actshift prefetch table1 --check",
        sweep=True,
        overrides=EVERY_RUN,
        arguments={"--check": {**FLAG, "help": "without a network: name what is missing"}},
    ),
    "submit": Command(
        "do a whole table as jobs of a SLURM cluster",
        "runs.submit_command",
        "actshift submit smoke --dry-run profile=cpu",
        sweep=True,
        overrides="Hydra overrides for every run; profile=NAME takes one file of slurm/profiles for all models",
        arguments={
            "--dry-run": {**FLAG, "help": "print the script and the calls of sbatch"},
            **REPLAN,
            "--slurm": {"metavar": "FOLDER", "help": "a folder of your own with array.sbatch and profiles/"},
        },
    ),
    "retry": Command(
        "make a table's failed runs missing again",
        "runs.retry_command",
        "actshift retry table1",
        sweep=True,
        overrides=EVERY_RUN,
    ),
    "status": Command(
        "states of a table's runs, from files alone",
        "runs.status_command",
        "actshift status smoke --json",
        sweep=True,
        overrides=EVERY_RUN,
        arguments={
            "--watch": {**FLAG, "help": "print it anew every few seconds"},
            "--json": {**FLAG, "help": "print it for a program to read"},
        },
    ),
    "tables": Command(
        "write a table from its records and print it (table11 to table13: the standard deviations)",
        "reports.tables_command",
        "actshift tables table1 --variant gap",
        sweep=True,
        overrides=EVERY_RUN,
        arguments={
            "--variant": {
                "default": "ours",
                "metavar": "NAME",
                "help": "what is printed: ours, paper (as printed there), gap (both), std (standard deviations)",
            },
            "--judge": {"metavar": "NAME", "help": "whose win rates a table of instruction tuning shows"},
            "--without": {
                "metavar": "DOUBTS",
                "help": "leave out runs of changed code (dirty), of an unknown commit (uncommitted), of parts of a "
                "data set (partial); several with commas",
            },
        },
    ),
    "baselines": Command(
        "score a table's base models on its test sets before any adaptation, beside the most common label",
        "baselines.baselines_command",
        "actshift baselines smoke",
        sweep=True,
        overrides=EVERY_RUN,
    ),
    "figures": Command(
        "draw a table's figures from its records",
        "reports.figures_command",
        "actshift figures smoke",
        sweep=True,
        overrides=EVERY_RUN,
    ),
    "export": Command(
        "a table's finished cells as Every Eval Ever JSON and as the hub's .eval_results",
        "interchange.export_command",
        "actshift export smoke",
        sweep=True,
        overrides=EVERY_RUN,
    ),
    "report": Command(
        "one HTML page with every planned table, its evidence and the audit",
        "reports.report_command",
        "actshift report --tables",
        overrides=RESULTS,
        arguments={
            "--out": {"metavar": "FILE", "help": "the page (FOLDER/report.html by default)"},
            "--tables": {**FLAG, "help": "write the files of every table too (FOLDER/tables)"},
        },
    ),
    "runs": Command(
        "every finished run with its score, whether a sweep planned it or not",
        "comparison.runs_command",
        "actshift runs method=sft split=test",
        overrides="model=A method=A dataset=A protocol=A seed=N split=validation|test: some runs only; results=FOLDER",
        arguments=CSV,
    ),
    "compare": Command(
        "finished runs side by side: scores, differences to the first, an exact test over the rows, differing keys",
        "comparison.compare_command",
        "actshift compare 8fc2c469 a85696ac",
        overrides="IDENTITY IDENTITY ... (their first digits are enough); split=test|validation; results=FOLDER",
        arguments=CSV,
    ),
    "beside": Command(
        "sweeps side by side, method by method: the same cells trained in another way, as GRPO beside SFT",
        "comparison.beside_command",
        "actshift beside rl_small_sft rl_small",
        overrides="SWEEP SWEEP ... (differences are taken from the first); results=FOLDER",
    ),
    "explain": Command(
        "what a key of the configuration means and what it may be",
        "inspection.explain_command",
        "actshift explain method.scope.kind",
        arguments={"key": {"help": "a dotted key, or a group to explain all of its keys"}},
    ),
    "show": Command(
        "one row as the model will see it: text, tokens, what is trained, where scopes act, how it is scored",
        "inspection.show_command",
        "actshift show dataset=gsm8k protocol=paper row=3",
        overrides="dataset=A protocol=B row=N split=train|validation|test ...",
    ),
    "lengths": Command(
        "rows and lengths in tokens of every data set, and what each protocol's limit does to them",
        "inspection.lengths_command",
        "actshift lengths dataset=boolq,gsm8k --csv lengths.csv",
        overrides="dataset=A,B protocol=A,B model=A data.source=...",
        arguments={
            "--tokenizer": {"metavar": "FOLDER", "help": "another tokenizer than the model's"},
            **CSV,
            **MARKDOWN,
        },
    ),
    "overlaps": Command(
        "questions that splits share, within data sets and across them",
        "inspection.overlaps_command",
        "actshift overlaps data.source=local data.dir=FOLDER",
        overrides="data.source=hub, or data.source=local data.dir=FOLDER; dataset=A,B",
    ),
    "adapters": Command(
        "the trained adapters of a results folder",
        "inspection.adapters_command",
        "actshift adapters results=FOLDER",
        overrides=RESULTS,
    ),
    "score": Command(
        "score a predictions file again, without a model",
        "inspection.score_command",
        "actshift score results/runs/IDENTITY/predictions-test.jsonl",
        arguments={
            "file": {"metavar": "PREDICTIONS.jsonl", "help": "runs/<identity>/predictions-<split>.jsonl of a run"},
            "--task": {"help": "the task, where the file lies in no run's folder"},
            "--rule": {"help": "paper or released, where it is not the run's own"},
        },
    ),
    "params": Command(
        "trainable parameters by method and model, and what the paper prints",
        "reports.params_command",
        "actshift params model=llama3.2-1b method=lora_r8,jola",
        overrides="model=A,B method=A,B: some models or methods only",
        arguments={**CSV, **MARKDOWN},
    ),
    "memory": Command(
        "peak memory by model and method, estimated and measured, and the cards that hold it",
        "reports.memory_command",
        "actshift memory model=llama3.1-8b training.precision=bfloat16",
        overrides="model=A,B method=A,B; dataset=A (the longest rows), hardware=A, training.precision=bfloat16 ...",
        arguments={**CSV, **MARKDOWN},
    ),
    **JUDGING,
    "analyze": Command(
        "theory; shares, overlap, cosines, norms (Figures 2, 3, 5, 6); oracle, continuations, retention",
        "analyses.analyze_command",
        "actshift analyze theory analysis.seed=1",
        overrides="Hydra overrides: model=A dataset=B analysis.rows=N results=FOLDER ...",
        arguments={
            "name": {"metavar": "NAME", "help": "a file of conf/analysis without .yaml"},
            "--train": {**FLAG, "help": "do the sweep analysis.sweep first, where adapters of it are missing"},
        },
    ),
    "study": Command(
        "the page of studies: effects, interactions, shares of variance, and what they say of the paper",
        "study.study_command",
        "actshift study study study_135m --out docs/study.md",
        arguments={
            "sweeps": {"nargs": "+", "metavar": "STUDY", "help": f"sweeps with a fraction; {RESULTS}"},
            "--out": {"default": "study.md", "metavar": "FILE", "help": "the page (study.md by default)"},
        },
    ),
    "audit": Command(
        "the paper's numbers against themselves and what can be computed",
        "reports.audit_command",
        "actshift audit --out docs",
        arguments={"--out": {"metavar": "FOLDER", "help": "write audit.md and audit.csv there"}},
    ),
    "claims": Command(
        "what the paper claims, judged on its printed numbers and on our records by the same rules",
        "claims.claims_command",
        "actshift claims",
        overrides=RESULTS,
        arguments={"--claim": {"metavar": "NAME", "help": "one claim with all that its verdicts rest on"}},
    ),
    "sync": Command(
        "send what runs mirrored offline (logger=wandb) to Weights & Biases",
        "runs.sync_command",
        "actshift sync",
        overrides=RESULTS,
    ),
    "list": Command(
        "what exists: models, methods, data sets, protocols, sweeps",
        "inspection.list_command",
        "actshift list method",
        arguments={"group": {"nargs": "?", "help": "one group only"}},
    ),
}
