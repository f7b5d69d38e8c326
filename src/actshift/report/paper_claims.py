"""What the paper's text says of its tables, as statements that are computed from the printed numbers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from actshift.paper import printed as paper
from actshift.report import names

SLACK = 0.05 + 1e-9
"""Half a unit of the last digit of a printed accuracy, in percent points."""


@dataclass(frozen=True)
class Claim:
    """One statement of the text: whether the printed tables bear it out, and what they say."""

    where: str
    text: str
    computed: str
    holds: bool
    size: float
    """By how much the tables miss it, in percent points; 0 where it holds or has no size."""


def claims() -> Iterator[Claim]:
    """Every claim that the tables can decide, in the order of the text."""
    for check in CHECKS:
        yield check()


def _table(number: int) -> Any:
    """A printed table; `Any`, for a frame's cells have no types that a checker could follow."""
    return paper.table(number)


def _averages(number: int, *, printed: bool = True) -> Any:
    """Average differences to SFT: rows models, columns methods; as printed, or from the printed accuracies."""
    table = _table(number)
    if printed:
        return table.pivot_table(index="model", columns="method", values="avg_delta", sort=False)
    sft = _table(1).query("method == 'sft'").set_index(["model", "dataset"])["accuracy"].rename("sft")
    joined = table.join(sft, on=["model", "dataset"])
    joined["delta"] = joined["accuracy"] - joined["sft"]
    return joined.pivot_table(index="model", columns="method", values="delta", sort=False)


def _range(low: float, high: float, where: str) -> Claim:
    """Ours stays within `low` to `high` of SFT on average."""
    differences = _averages(1)["post_block"]
    gaps = differences.abs()
    outside = {model: gap for model, gap in gaps.items() if not low - SLACK <= gap <= high + SLACK}
    size = max((max(low - gap, gap - high) for gap in outside.values()), default=0.0)
    shown = ", ".join(f"{names.model(str(model))} {value:+.1f}" for model, value in differences.items())
    text = f"post-block steering is within {low}%-{high}% of SFT on average"
    return Claim(where, text, f"average differences in Table 1: {shown}", not outside, round(size, 2))


def _introduction() -> Claim:
    return _range(0.2, 0.9, "Section 1, contributions")


def _summary() -> Claim:
    return _range(0.4, 1.5, "Section 6 and 6.1")


def _lora_1b() -> Claim:
    """On 1B models, ours matches or outperforms LoRA: no data set on which it is worse by more than rounding."""
    table = _table(1).query("model in ('llama3.2-1b', 'gemma3-1b')")
    wide = table.pivot(index=["model", "dataset"], columns="method", values="accuracy")
    gaps = (wide["lora_r8"] - wide["post_block"])[lambda gap: gap > SLACK].sort_values(ascending=False)
    averages = _averages(1)[["lora_r8", "post_block"]].loc[["llama3.2-1b", "gemma3-1b"]]
    shown = ", ".join(f"{names.model(m)} {names.dataset(d)} {-gap:+.1f}" for (m, d), gap in gaps.items())
    on_average = bool((averages["post_block"] >= averages["lora_r8"]).all())
    note = "on average it holds" if on_average else "not on average either"
    computed = f"{len(gaps)} of {len(wide)} cells are below LoRA ({shown}); {note}"
    text = "on 1B-scale models, we match or outperform LoRA"
    return Claim("Section 6.1", text, computed, gaps.empty, round(float(gaps.max() if len(gaps) else 0), 1))


def _reft_drop() -> Claim:
    """While ReFT drops by up to 16.9% (ListOps), ours limits the gap to 3.1%."""
    drops = _table(1).query("method == 'reft'").set_index(["model", "dataset"])["delta_vs_sft"]
    model, dataset = drops.idxmin()
    worst = -float(drops.min())
    listops = -float(drops.xs("listops", level="dataset").min())
    computed = (
        f"{listops:.1f} on ListOps, and {worst:.1f} over all data sets ({names.model(model)}, {names.dataset(dataset)})"
    )
    text = "ReFT drops by up to 16.9% (said of ListOps)"
    return Claim(
        "Section 6.1", text, computed, abs(listops - 16.9) <= SLACK and worst <= 16.9 + SLACK, round(worst - 16.9, 1)
    )


def _listops_gap() -> Claim:
    drops = _table(1).query("method == 'post_block' and dataset == 'listops'")["delta_vs_sft"]
    computed = f"{-drops.min():.1f} at most"
    text = "our approach limits the gap (on ListOps) to 3.1%"
    return Claim("Section 6.1", text, computed, bool(-drops.min() <= 3.1 + SLACK), 0.0)


def _best_at_tiny_budgets() -> Claim:
    """Table 2: the best average performance across all models is ours (vector or r=1)."""
    averages = _averages(2)
    ours = averages[["post_block_vector", "post_block_r1"]].max(axis=1)
    others = averages[["lofit", "jola"]].max(axis=1)
    gaps = (others - ours)[lambda gap: gap > 0]
    pairs = [(names.model(str(model)), ours[model], others[model]) for model in averages.index]
    shown = ", ".join(f"{model}: ours {own:+.1f}, best other {other:+.1f}" for model, own, other in pairs)
    size = round(float(gaps.max()) if len(gaps) else 0.0, 2)
    return Claim(
        "Section 6.1", "Table 2: we yield the best average performance across all models", shown, gaps.empty, size
    )


def _margin_8b() -> Claim:
    """Ours outperforms the best baseline at the 8B scale by a margin of 8.0%."""
    row = _averages(2).loc["llama3.1-8b"]
    best, other = row[["post_block_vector", "post_block_r1"]].max(), row[["lofit", "jola"]].max()
    computed = f"{best:+.1f} less {other:+.1f} = {best - other:.1f}"
    text = "outperforming the best baseline at 8B by a margin of 8.0%"
    return Claim("Section 6.1", text, computed, abs(best - other - 8.0) <= SLACK, round(8.0 - float(best - other), 2))


def _collapse() -> Claim:
    row = _averages(2).loc["llama3.1-8b"][["lofit", "jola"]]
    computed = ", ".join(f"{names.method(str(method))} {value:+.1f}" for method, value in row.items())
    text = "baselines collapse to an average gap of approximately -9% on Llama-3.1-8B"
    return Claim("Section 6.1", text, computed, bool((row + 9).abs().max() <= 0.5), 0.0)


def _table3() -> Claim:
    """Both our adapters fall within one standard error of the SFT mean."""
    rows = _table(3).set_index("method")
    sft = rows.loc["sft"]
    ours = ("post_block_nonlinear_r16", "post_block_r16")
    gaps = {name: float(sft["lc_win_rate"] - rows.loc[name, "lc_win_rate"]) for name in ours}
    shown = ", ".join(f"{names.method(name)} {-gap:+.2f}" for name, gap in gaps.items())
    holds = max(gaps.values()) <= sft["standard_error"] + 1e-9
    text = "both our adapters are within one standard error of the SFT mean"
    return Claim("Section 6.2", text, f"{shown}; standard error {sft['standard_error']}", holds, 0.0)


def _joint_ceiling() -> Claim:
    """Joint adaptation surpasses either method in isolation by up to 3.8%."""
    wide = _table(4).pivot(index=["model", "dataset"], columns="method", values="accuracy")
    parts = wide[["lora_r8", "adapter_r64"]].max(axis=1)
    gains = wide["joint_orth"] - parts
    either = wide["joint_orth"] - wide[["lora_r8", "adapter_r64"]].min(axis=1)
    model, dataset = gains.idxmax()
    computed = (
        f"{gains.max():+.1f} at most over the better part ({names.model(model)}, {names.dataset(dataset)}), "
        f"{either.max():+.1f} over the worse; below the better part in {(gains < -SLACK).sum()} of {len(gains)} cells"
    )
    text = "joint adaptation surpasses either method in isolation by up to 3.8%"
    return Claim(
        "Section 1, contributions", text, computed, abs(gains.max() - 3.8) <= SLACK, round(3.8 - float(gains.max()), 1)
    )


CHECKS: tuple[Callable[[], Claim], ...] = (
    _introduction,
    _joint_ceiling,
    _summary,
    _lora_1b,
    _reft_drop,
    _listops_gap,
    _best_at_tiny_budgets,
    _collapse,
    _margin_8b,
    _table3,
)
