"""What the paper says that a study bears on, in our words, by the name that contrasts give in their `claim`."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class PaperClaim:
    """A statement of the paper, where it stands, and what in the study would bear it out."""

    title: str
    text: str
    bears: str


CLAIMS = {
    "takeaway_1": PaperClaim(
        "Takeaway 1: after the MLP rather than before it",
        "Section 3.2: for small changes, steering after an MLP can account for updates of its weights that steering "
        "before "
        "it cannot.",
        "It would be borne out by a positive difference of `post_mlp` to `pre_mlp` with all else equal.",
    ),
    "takeaway_2": PaperClaim(
        "Takeaway 2: the block's output rather than the MLP's",
        "Section 3.3: the output of the block, after the skip connection, covers updates of attention more directly "
        "than "
        "the output of the MLP.",
        "It would be borne out by a positive difference of `post_block` to `post_mlp` with all else equal. That it is "
        "attention which makes it is a further step: then adapters on both sub-modules' outputs should do as well.",
    ),
    "takeaway_3": PaperClaim(
        "Takeaway 3: together more than apart",
        "Section 4: steering and fine-tuning express different functions, and together they express more; kept "
        "orthogonal "
        "(Section 5.2) they learn different ones.",
        "It would be borne out by positive differences of both together to each alone, which train fewer numbers.",
    ),
    "listops": PaperClaim(
        "The explanation of ListOps",
        "Section 6.1: on ListOps, where attention plays a critical role, steering after the MLP falls behind because "
        "it "
        "does not reach what attention does.",
        "It would be borne out by a gain of `post_block` over `post_mlp` on ListOps that is larger than on another "
        "data "
        "set, and by a gain on ListOps where attention's output is steered beside the MLP's.",
    ),
    "limitations": PaperClaim(
        "Where or how? (the paper's limitations)",
        "Section 7: the gains combine a locus with a global policy of intervention, so that where and how are not told "
        "apart.",
        "Each difference below moves one of them and holds the others; the last moves all at once, as Table 1 does.",
    ),
}
