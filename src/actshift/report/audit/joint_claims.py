"""What the text says of joint training (Table 4)."""

from __future__ import annotations

from collections.abc import Callable

from actshift.report.audit.claim import Claim, accuracies, cell
from actshift.report.audit.finding import HALF

PARTS = ["lora_r8", "adapter_r64"]
"""The weight part and the activation part of joint training (caption of Table 4)."""


def ceiling(printed: float = 3.8) -> Claim:
    """Joint adaptation surpasses the ceiling of either part in isolation by up to 3.8: over the better of the two."""
    wide = accuracies(4)
    gains = wide["joint_orth"] - wide[PARTS].max(axis=1)
    over = {part: wide["joint_orth"] - wide[part] for part in PARTS}
    best = over["lora_r8"].idxmax()
    note = (
        f"{over['lora_r8'].max():.1f} is the gain over LoRA alone ({cell(best)}), where the adapter alone has "
        f"{wide.loc[best, 'adapter_r64']}; below the better part in {(gains < -HALF).sum()} of {len(gains)} cells"
    )
    computed = f"{gains.max():+.1f} at most over the better part ({cell(gains.idxmax())})"
    text = f"joint adaptation surpasses the ceilings of either method in isolation by up to {printed}%"
    holds = bool(abs(gains.max() - printed) <= HALF)
    return Claim("Section 1", text, computed, holds, round(printed - float(gains.max()), 1), "" if holds else note)


def _often() -> Claim:
    wide = accuracies(4)
    strongest = wide[["sft", "lora_r16", *PARTS]].max(axis=1)
    there = int((wide["joint_orth"] >= strongest - HALF).sum())
    text = "Joint-Orth often matches or exceeds the strongest individual baselines"
    return Claim("Section 6.4", text, f"in {there} of {len(wide)} cells", 2 * there > len(wide))


def _over_r16() -> Claim:
    wide = accuracies(4)
    above = int((wide["joint_orth"] > wide["lora_r16"] + HALF).sum())
    text = "Joint-Orth frequently outperforms LoRA r=16"
    return Claim("Section 6.4", text, f"in {above} of {len(wide)} cells", 2 * above > len(wide))


def _naive() -> Claim:
    wide = accuracies(4)
    below = int((wide["joint"] < wide[PARTS].max(axis=1) - HALF).sum())
    text = "naive joint training frequently underperforms its strongest part"
    return Claim("Section 6.4", text, f"in {below} of {len(wide)} cells", 2 * below > len(wide))


def naive_example(model: str = "gemma3-1b", dataset: str = "gsm8k") -> Claim:
    """The example that the text gives of it."""
    row = accuracies(4).loc[(model, dataset)]
    strongest = row[PARTS].max()
    gap = row["joint"] - strongest
    text = f"for example, on {cell((model, dataset))}, naive joint training underperforms its strongest part"
    computed = f"{row['joint']} against {row['lora_r8']} (LoRA) and {row['adapter_r64']} (adapter): {gap:+.1f}"
    return Claim("Section 6.4", text, computed, bool(gap < -HALF), round(float(gap), 1))


def _over_sft() -> Claim:
    wide = accuracies(4)
    reasoning = wide[wide.index.get_level_values("dataset").isin(["gsm8k", "boolq"])]
    above = int((reasoning["joint_orth"] > reasoning["sft"] + HALF).sum())
    text = "on GSM8K and BoolQ joint training surpasses even full SFT"
    return Claim("Section 6.4", text, f"in {above} of {len(reasoning)} cells", 2 * above > len(reasoning))


CHECKS: tuple[Callable[[], Claim], ...] = (ceiling, _often, _over_r16, _naive, naive_example, _over_sft)
