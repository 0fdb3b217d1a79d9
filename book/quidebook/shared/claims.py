"""What the paper claims of a condition of Table 1, judged by what was measured of it: verdict and reason."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from quidebook import verdicts
from quidebook.evidence.conditions import FITTED, Condition
from quidebook.report import percent
from quidebook.verdicts import CLOSE, IN_PART, NEAR, NOT_REPRODUCED, REPRODUCED, UNDECIDED

Verdict = tuple[str, str]


def judge(
    condition: Condition, verdict: str, reason: str, *, level: bool = False, timed: bool = False, trained: bool = True
) -> Verdict:
    """A verdict and its reason, as far as the evidence bears one.

    None is given on a ``level`` that an accuracy or its drop has, where the network is not the paper's; on what is
    ``timed``, where the timing is noisy. Another network supports at most. A shortened training that ended within 1 pp
    of the paper's accuracy is the paper's network, else another one; one that missed it by more than 5 pp gets no
    verdict on what depends on being ``trained``.
    """
    another = condition.published
    if condition.shortened:
        (ours, full), missed = condition.shortened, condition.stated.accuracy[32] - condition.summary.accuracy[32]
        reason = f"{reason}; {ours} of {full} epochs"
        if trained and missed > NEAR:
            return UNDECIDED, reason
        another = missed > CLOSE
    if timed and condition.measured.noisy:
        return verdicts.NOISY, reason
    if another:
        return verdicts.on_another_network(UNDECIDED if level else verdict, reason)
    return verdict, reason


def guessing(condition: Condition) -> float:
    """Accuracy up to which a network does no better than guessing, to within what accuracies may differ by."""
    return 1 / int(condition.facts["num_classes"]) + CLOSE


def fitted(condition: str, configuration: str) -> str:
    """What is to be added to a reason where our quantizer was chosen by the very number that it is compared with."""
    return "; the activation site was chosen by this number" if (condition, configuration) in FITTED else ""


def accuracy(condition: Condition, bits: int) -> Verdict:
    """Whether an accuracy is the stated one; none where both networks guess, which any two broken ones do alike."""
    if condition.measured is None:
        return verdicts.not_run(condition.rerun)
    stated, ours = condition.stated.accuracy[bits], condition.summary.loc[bits]
    verdict, reason = verdicts.accuracy_verdict(stated, ours.accuracy, ours.accuracy_low, ours.accuracy_high)
    if max(stated, ours.accuracy) <= guessing(condition):
        verdict, reason = UNDECIDED, "both do no better than guessing"
    return judge(condition, verdict, reason + fitted(condition.paper_name, str(bits)), level=True)


def lossless(condition: Condition, bits: int, limit: float) -> Verdict:
    """Whether the mean change from 32 bits stays within ``limit``, with the worst seed as evidence."""
    change = condition.by_seed[bits] - condition.by_seed[32]
    reason = f"mean change {100 * change.mean():+.3f} pp, worst seed {100 * change.min():+.3f} pp"
    if abs(change.mean()) <= limit:
        return judge(condition, REPRODUCED, reason)
    return judge(condition, IN_PART if abs(change.mean()) <= CLOSE else NOT_REPRODUCED, reason)


def collapse(condition: Condition, bits: int) -> Verdict:
    """Whether a width leaves no more than guessing among the classes."""
    ours, chance = condition.summary.accuracy[bits], 1 / int(condition.facts["num_classes"])
    return judge(
        condition, verdicts.held(ours <= guessing(condition)), f"ours {percent(ours)}, guessing {percent(chance, 0)}"
    )


def knee(condition: Condition) -> Verdict:
    """Whether the width with the highest I' is the paper's; from a noisy clock where its noise cannot decide that."""
    probability = condition.measured.knee().probability
    verdict, reason = verdicts.knee_verdict(int(condition.facts["knee_bits"]), probability)
    noise = condition.measured.noisy and not condition.measured.knee_despite_noise()
    if condition.paper_name in dict(FITTED):
        reason += "; the activation site was chosen by 4-bit accuracies"
    return judge(condition, verdict, reason, timed=bool(noise))


def order(condition: Condition, stated: Sequence[int], ours: Sequence[int], scope: str, sixteen: str) -> Verdict:
    """Whether the widths come in the stated order by a score; ``sixteen`` says what 16 bits were timed as."""
    verdict, reason = verdicts.order_verdict(stated, ours, scope)
    return judge(condition, verdict, f"{reason}; 16 bits: {sixteen}", timed=True)


def of_table1(condition: Condition) -> list[tuple[str, str, str]]:
    """Claims on every condition: claim, verdict and evidence; of one without records that there is none."""
    name, stated = condition.name, condition.stated.accuracy
    if condition.measured is None:
        return [(f"{name}: everything", *verdicts.not_run(condition.rerun))]
    rows = [
        (f"{name}: {claim} ({percent(stated[bits])})", *accuracy(condition, bits))
        for bits, claim in ((32, "full-precision accuracy"), (4, "accuracy at 4 bits"))
        if not np.isnan(stated[bits])
    ]
    if not np.isnan(stated[2]):
        rows.append((f"{name}: collapse to chance at 2 bits", *collapse(condition, 2)))
    rows.append((f"{name}: 16 bits lose nothing", *lossless(condition, 16, 0.0001)))
    rows.append((f"{name}: stable through 8 bits", *lossless(condition, 8, CLOSE)))
    return [*rows, (f"{name}: the knee is {int(condition.facts['knee_bits'])}-bit", *knee(condition))]
