"""What the text says of Tables 1 to 3. A claim is a finding where its most favourable reading is not in the tables."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pandas as pd

from actshift.paper import printed as paper
from actshift.report import names
from actshift.report.audit import joint_claims
from actshift.report.audit.claim import OTHERS_TINY, OURS_TINY, Claim, accuracies, averages, by_model, cell
from actshift.report.audit.finding import HALF, Finding, Severity


def claims(shares: pd.DataFrame | None = None) -> Iterator[Claim]:
    """Every claim that the tables can decide, in the order of the text; with `shares`, those on parameters too."""
    yield within(0.2, 0.9, "Abstract, Sections 1 and 7")
    yield from (check() for check in CHECKS)
    yield from (check() for check in joint_claims.CHECKS)
    if shares is not None:
        yield from times_fewer(shares)


def findings(shares: pd.DataFrame | None = None) -> Iterator[Finding]:
    """The claims that do not hold."""
    for claim in claims(shares):
        if not claim.holds:
            yield Finding("claim", claim.where, claim.text, claim.computed, claim.size, claim.severity, claim.note)


def within(low: float, high: float, where: str) -> Claim:
    """Ours stays within `low` to `high` of SFT on average."""
    differences = averages(1)["post_block"]
    gaps = differences.abs()
    outside = gaps[(gaps < low - HALF) | (gaps > high + HALF)]
    size = max((max(low - gap, gap - high) for gap in outside), default=0.0)
    text = f"post-block steering is within {low}% to {high}% of SFT on average"
    computed = f"average differences in Table 1: {by_model(differences)}"
    return Claim(where, text, computed, outside.empty, round(size, 2), "the abstract says 0.2% to 0.9%" if size else "")


def _summary() -> Claim:
    return within(0.4, 1.5, "Sections 6 and 6.1")


def consistent(other: str) -> Claim:
    """Ours consistently outperforms another method of Table 1: on every model's average, at the least."""
    table, wide = averages(1), accuracies(1)
    gaps, cells = table["post_block"] - table[other], wide["post_block"] - wide[other]
    above, below = int((cells > HALF).sum()), int((cells < -HALF).sum())
    computed = f"averages less {names.method(other)}'s: {by_model(gaps)}"
    note = f"above in {above} of {len(cells)} cells, below in {below}, equal in {len(cells) - above - below}"
    worst = round(max(-float(gaps.min()), 0.0), 1)
    text = f"ours consistently outperforms {names.method(other)}"
    return Claim("Abstract, Section 1", text, computed, bool((gaps > -HALF).all()), worst, note)


def _over_reft() -> Claim:
    return consistent("reft")


def _over_lora() -> Claim:
    return consistent("lora_r8")


def _lora_1b() -> Claim:
    """On 1B models ours matches or outperforms LoRA: the sentence before speaks of averages."""
    models = ["llama3.2-1b", "gemma3-1b"]
    table, wide = averages(1).loc[models], accuracies(1).loc[models]
    gaps, cells = table["post_block"] - table["lora_r8"], wide["post_block"] - wide["lora_r8"]
    below = (cells < -HALF).sum()
    note = f"below LoRA in {below} of {len(cells)} cells, most in {cell(cells.idxmin())}: {cells.min():+.1f}"
    text = "on 1B-scale models, we match or outperform LoRA"
    computed = f"averages less LoRA's: {by_model(gaps)}"
    return Claim("Section 6.1", text, computed, bool((gaps > -HALF).all()), 0.0, note if below else "")


def drop(method: str, printed: float, where: str = "Section 6.1") -> Claim:
    """The largest loss on ListOps (which the sentence before names) is the printed one."""
    drops = -accuracies(1).sub(accuracies(1)["sft"], axis=0)[method]
    listops = drops.xs("listops", level="dataset")
    worst = f"{listops.max():.1f} ({names.model(listops.idxmax())})"
    text = f"{names.method(method)} drops by up to {printed}% (on ListOps)"
    note = f"over all data sets {drops.max():.1f} ({cell(drops.idxmax())})"
    holds = abs(listops.max() - printed) <= HALF
    return Claim(where, text, f"{worst} at most on ListOps", bool(holds), round(printed - listops.max(), 1), note)


def _reft_drop() -> Claim:
    return drop("reft", 16.9)


def _our_drop() -> Claim:
    return drop("post_block", 3.1)


def _best_at_tiny_budgets() -> Claim:
    """Table 2: the best average across all models is ours (vector or r=1), as printed and by the accuracies."""
    gaps = {printed: _lead(averages(2, printed=printed)) for printed in (True, False)}
    behind = gaps[True][gaps[True] < 0]
    computed = f"best of ours less best of the others: {by_model(gaps[True])}"
    note = f"from the accuracies: {by_model(gaps[False], digits=2)}"
    text = "Table 2: we yield the best average across all models, and the advantage persists as scale increases"
    return Claim("Section 6.1", text, computed, behind.empty, round(-float(behind.sum()), 1), note)


def _lead(table: Any) -> Any:
    return table[OURS_TINY].max(axis=1) - table[OTHERS_TINY].max(axis=1)


def margin_8b(printed: float = 8.0) -> Claim:
    """The best of ours less the best baseline at 8B, by the accuracies: printed averages rest on wrong differences."""
    as_printed, exact = (float(_lead(averages(2, printed=printed)).loc["llama3.1-8b"]) for printed in (True, False))
    computed = f"{exact:.2f} from the accuracies, {as_printed:.1f} from the printed averages"
    # Rounded accuracies move each of the two means by half a unit at most, and the margin is rounded once more.
    holds = abs(exact - printed) <= 2 * HALF + HALF
    text = f"outperforming the best baseline at the 8B scale by a margin of {printed}%"
    note = "the printed averages are made of wrong differences"
    return Claim("Section 6.1", text, computed, holds, round(printed - exact, 2), note, Severity.NUMBER)


def _collapse() -> Claim:
    row = averages(2, printed=False).loc["llama3.1-8b", OTHERS_TINY]
    wide = accuracies(2).loc["llama3.1-8b"].drop("winogrande")
    rest = wide[OTHERS_TINY].sub(accuracies(1).loc["llama3.1-8b"]["sft"].drop("winogrande"), axis=0).mean()
    computed = ", ".join(f"{names.method(str(method))} {value:+.2f}" for method, value in row.items())
    without = ", ".join(f"{names.method(str(method))} {value:+.1f}" for method, value in rest.items())
    text = "baselines collapse to an average gap of approximately -9% on Llama-3.1-8B"
    note = f"most of it is WinoG, where both are near chance; without it {without}"
    return Claim("Section 6.1", text, computed, bool((row + 9).abs().max() <= 0.5), 0.0, note)


def _tiny_shares() -> Claim:
    table = paper.table(2)
    ours = table.loc[table["method"].isin(OURS_TINY), "params_pct"]
    text = "0.001% to 0.005% trainable parameters"
    return Claim("Section 6.1", text, f"{ours.min():g} to {ours.max():g} in Table 2", _range(ours) == (0.001, 0.005))


def _range(values: Any) -> tuple[float, float]:
    return float(values.min()), float(values.max())


def _table3() -> Claim:
    """Both our adapters fall within one standard error of the SFT mean."""
    rows = paper.table(3).set_index("method")
    sft = rows.loc["sft"]
    gaps = sft["lc_win_rate"] - rows.loc[["post_block_nonlinear_r16", "post_block_r16"], "lc_win_rate"]
    shown = ", ".join(f"{names.method(str(name))} {-gap:+.2f}" for name, gap in gaps.items())
    text = "both our adapters are within one standard error of the SFT mean"
    computed = f"{shown}; standard error {sft['standard_error']}"
    return Claim("Section 6.2", text, computed, bool(gaps.max() <= sft["standard_error"] + 1e-9))


def _table3_gaps() -> Claim:
    rates = paper.table(3).set_index("method")["lc_win_rate"]
    nonlinear, linear = rates["post_block_nonlinear_r16"], rates["post_block_r16"]
    gaps = round(rates["sft"] - nonlinear, 2), round(nonlinear - linear, 2)
    text = "a gap of 0.15% to SFT, and of 0.34% between the linear and the nonlinear adapter"
    return Claim("Section 6.2", text, f"{gaps[0]} and {gaps[1]} in Table 3", gaps == (0.15, 0.34))


def times_fewer(shares: pd.DataFrame) -> Iterator[Claim]:
    """How many times fewer parameters ours trains than LoRA, counted on the modules; rounded, on any model."""
    counted = shares.pivot_table(index="model", columns="method", values="share_pct", sort=False)
    ratios = counted["lora_r8"] / counted["post_block"]
    shown = ", ".join(f"{names.model(str(model))} {ratio:.1f}" for model, ratio in ratios.items())
    for where, times, models in (("Section 1", 15, list(ratios.index)), ("Section 6.1", 11, ["llama3.2-1b"])):
        near = min((float(ratios[model]) for model in models), key=lambda ratio, wanted=times: abs(ratio - wanted))  # type: ignore[misc]
        text = f"ours uses {times} times fewer parameters than LoRA"
        yield Claim(where, text, f"LoRA's parameters over ours: {shown}", round(near) == times, round(times - near, 1))


CHECKS: tuple[Callable[[], Claim], ...] = (
    _over_reft,
    _over_lora,
    _summary,
    _lora_1b,
    _reft_drop,
    _our_drop,
    _best_at_tiny_budgets,
    _tiny_shares,
    _collapse,
    margin_8b,
    _table3,
    _table3_gaps,
)
