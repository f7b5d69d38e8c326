"""What a study's page says whatever it finds: the question, and what no result of it says."""

from __future__ import annotations

QUESTION = """\
The paper steers the output of every block, at every token, by a low-rank linear map, and compares that with ReFT,
which here steers the output of every MLP, at some tokens of the prompt, by LoReFT. Three things differ at once, and
its limitations say so: "Our gains combine a post-block locus with a global intervention policy ... so current
results do not fully disentangle where to intervene from how to intervene." This study moves one of them at a time:
the **site** (where in a layer), the **scope** (which tokens), the **layers**, and the **parameterization** (how the
change is computed)."""
UNSAID = """\
* **Nothing of the paper's models or data.** The models have 1 million and 135 million parameters, and see 1,200 rows
  once.
* **Nothing of combinations that were not run.** The fraction is chosen for the contrasts above; a contrast holds the
  other factors at the levels that its pairs have, and says nothing of others.
* **Nothing of causes.** A gain of one site over another is a gain of accuracy under this training; that attention is
  the reason for it would be a further step, which a contrast of sites can support and not prove.
* **Not that what is not shown is not there.** A difference that does not survive its test may be anything in its
  interval: what is excluded is what lies outside.
* **Nothing at a floor.** Where neither side of a pair answers anything right, there is no difference to see; the mean
  of a contrast is over all of its pairs, those at a floor too, so that it is smaller than where something is learned.
* **Nothing beyond one learning rate a combination**, chosen with one seed on validation rows: where the choice is by
  chance, the combination pays for it. Seeds move some combinations by tens of points, which the intervals contain.
* **Analysis of variance takes runs to vary alike everywhere**, and they do not: where a combination fails always,
  its runs do not vary at all. Shares of the sum of squares describe these runs; for inference there are the
  contrasts."""
