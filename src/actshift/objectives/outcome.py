"""How a training by GRPO ended, in a word."""

from __future__ import annotations

from actshift.training.loop import Curves

WINDOW = 10
"""Steps that a curve is judged by at its end, and at its best; all of them where there are fewer."""
FALLEN = 0.5
"""A reward at the end that is below this share of the best one has collapsed."""
SOLVED = 0.99
"""Share of the best possible reward from which on nothing is left to learn."""


def outcome(curves: Curves, *, best: float) -> str:
    """`diverged`, `collapsed`, `no signal`, `solved` or `trained`, from windows of `WINDOW` steps.

    * diverged: a loss was not finite.
    * solved: the mean reward of the last window is `SOLVED` of the `best` possible.
    * collapsed: the mean reward of the last window is below `FALLEN` of that of the best window, or the completions of
      every prompt had equal rewards throughout the last window though they once had not: the policy repeats itself.
    * no signal: in no step did a group have completions of different rewards, so nothing was ever learned.
    """
    if curves.diverged_at is not None:
        return "diverged"
    rewards, silent = curves.measures["reward"], curves.measures["silent"]
    means = [sum(rewards[end - WINDOW : end]) / WINDOW for end in range(WINDOW, len(rewards) + 1)]
    means = means or [sum(rewards) / len(rewards)]
    if means[-1] >= SOLVED * best:
        return "solved"
    if min(silent) == 1:
        return "no signal"
    if means[-1] < FALLEN * max(means) or min(silent[-WINDOW:]) == 1:
        return "collapsed"
    return "trained"
