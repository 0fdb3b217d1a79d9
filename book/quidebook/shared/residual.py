"""EXP-2's networks on CIFAR-10 for the pages that draw on them: what records hold, and the claims, judged."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from quide import metric, stats
from quide.experiments import campaign, mixed, paper, records, runs
from quide.latency import AA_LIMIT
from quide.ptq.width import PAPER_BITS
from quide.stats import Hits, Interval
from quidebook import report, verdicts
from quidebook.evidence import conditions
from quidebook.evidence.conditions import Condition, present
from quidebook.shared import claims, deployed, table1
from quidebook.verdicts import UNDECIDED

MODEL, DATASET, CONDITION = "resnet18", "cifar10", "cifar10-resnet18"
PUBLISHED = "resnet20"  # a residual network trained to the end, for whoever lacks the GPU that the paper's takes
RERUN = "quide run exp2 --profile paper --device cuda"
BESIDE = f"quide run exp2 --profile paper --models {PUBLISHED}"
ROUNDED = ("8", "4", "2")  # timed configurations that round after each layer
SITES = {"output": "before its ReLU (our reading)", "relu": "after its ReLU", "input": "at its input"}


def best_known() -> Condition:
    """What records hold of the paper's network: the paper profile's, or else those of the short schedule."""
    return conditions.best_known(MODEL, DATASET, ("paper", "short"), RERUN)


def known() -> list[Condition]:
    """The same, and behind it the published network, if there are records of it."""
    return [best_known(), *present([conditions.best_known(PUBLISHED, DATASET, ("paper",), BESIDE)])]


def stated_table() -> pd.DataFrame:
    """The paper's rows of Table 1, indexed by width."""
    return paper.table1(CONDITION).set_index("bits")


def sited_records(found: Sequence[Condition]) -> dict[tuple[int, str], records.Record]:
    """What is known of the networks by seed and by one of :data:`SITES`."""
    cases = {
        (seed, site): runs.Case(condition.model, DATASET, seed, condition.profile)
        for condition in present(found)
        for seed in condition.measured.seeds
        for site in SITES
    }
    runs_of = {key: campaign.sited(case, key[1]).known() for key, case in cases.items()}
    return {key: record for key, record in runs_of.items() if record is not None}


def staged(found: Sequence[Condition]) -> dict[str, tuple[records.Record, mixed.Landscape]]:
    """Every configuration of a network's parts, by its title: record and landscape of the first seed."""
    known = {}
    for condition in present(found):
        case = runs.Case(condition.model, DATASET, campaign.SEEDS[0], condition.profile)
        if (record := mixed.by_stages(case).known()) is not None:
            known[condition.network] = record, mixed.staged(case, record)
    return known


def records_used(found: Sequence[Condition]) -> list[records.Record]:
    """The records that EXP-2's page is drawn from."""
    used = [record for c in present(found) for record in (*conditions.trainings(c), *c.measured.records)]
    used += [*sited_records(found).values(), *deployed.measured(found).values()]
    used += [record for record, _ in staged(found).values()]
    return list({record.spec.key: record for record in used}.values())  # our reading's site is among the measured


# --- what is claimed -------------------------------------------------------------------------------------------------


def stated_drop(condition: Condition, bits: int) -> tuple[float, str]:
    """The paper's drop (fraction), and whether it is stated or follows from the accuracies."""
    name = f"{CONDITION}.accuracy_drop.{bits}"
    if name in paper.numbers().index:
        return paper.number(name), "stated"
    return condition.stated.accuracy[32] - condition.stated.accuracy[bits], "derived"


def drop(condition: Condition, bits: int) -> Interval:
    """Ours (fraction): mean over seeds with its t-interval; of one network, with that over its paired test images."""
    correct = condition.measured.correct
    full, narrow = (correct[:, PAPER_BITS.index(width)] for width in (32, bits))
    if condition.published:  # its seeds share the weights: the images are what it could have got right by chance
        return stats.mean_interval((full.astype(float) - narrow).mean(0))
    if len(correct) == 1:
        return Hits(full[0]).change(Hits(narrow[0]))
    return stats.mean_interval(full.mean(1) - narrow.mean(1))


def drop_verdict(condition: Condition, bits: int) -> claims.Verdict:
    """Verdict and reason for the drop at a width, by the limits for accuracies."""
    if condition.measured is None:
        return verdicts.not_run(condition.rerun)
    ours = drop(condition, bits)
    verdict = verdicts.accuracy_verdict(stated_drop(condition, bits)[0], ours.estimate, ours.low, ours.high)
    return claims.judge(condition, *verdict, level=True)


def equal_latency(accuracy: pd.Series, threshold: float) -> pd.DataFrame:
    """I and I' (index, gated_index) of accuracies (fractions) by width if all took the same time, one millisecond."""
    compression = [metric.compression_ratio(bits) for bits in accuracy.index]
    scores = {
        name: metric.gated_index(compression, accuracy.to_numpy(), 1.0, limit)
        for name, limit in (("index", 0.0), ("gated_index", threshold))
    }
    return pd.DataFrame(scores, index=accuracy.index)


def preferred(scores: pd.Series) -> str:
    """8 or 4 bits, whichever scores higher; neither where both score zero."""
    best = metric.knee((8, 4), [scores[8], scores[4]])
    return "neither" if best is None else f"{best} bits"


def reversal_verdict(condition: Condition) -> claims.Verdict:
    """Whether I prefers 4 bits to 8, and I' 8 to 4, at equal latency: both run the same operations in simulation."""
    scores = equal_latency(condition.summary.accuracy, condition.measured.threshold)
    raw, gated = preferred(scores["index"]), preferred(scores.gated_index)
    verdict = verdicts.held((raw, gated) == ("4 bits", "8 bits"))
    return claims.judge(condition, verdict, f"at equal latency I prefers {raw}, I' {gated}")


def alike_verdict(condition: Condition) -> claims.Verdict:
    """Whether 8, 4 and 2 bits take the same time, to within what one configuration timed twice may differ by."""
    mean = [table1.mean_ratios(condition)[name] for name in ROUNDED]
    verdict = verdicts.held(max(mean) / min(mean) <= 1 + AA_LIMIT)
    reason = f"{min(mean):.2f} to {max(mean):.2f} times full precision"
    return claims.judge(condition, verdict, reason, timed=True, trained=False)


def slower_verdict(condition: Condition) -> claims.Verdict:
    """Whether 8 bits take longer than 16, as the paper's do; not asked of a CPU, which has to emulate float16."""
    mean = table1.mean_ratios(condition)
    reason = f"ours {mean['8'] / mean['16']:.2f} times as long, the paper's {stated_latency()['ratio']:.2f}"
    if condition.measured.timed[0].spec.details["environment"]["device"] == "cpu":
        return UNDECIDED, f"{reason}; a CPU emulates float16"
    verdict = verdicts.held(mean["8"] > (1 + AA_LIMIT) * mean["16"])
    return claims.judge(condition, verdict, reason, timed=True, trained=False)


def stated_latency() -> dict[str, float]:
    """The paper's latencies (ms) at sixteen, eight, four and two bits, and the ratio of eight to sixteen."""
    stated = stated_table().latency_ms
    facts = {name: stated[bits] for name, bits in (("sixteen", 16), ("eight", 8), ("four", 4), ("two", 2))}
    return facts | {"ratio": stated[8] / stated[16]}


def summary_table(found: Sequence[Condition]) -> pd.DataFrame:
    """The paper's claims about EXP-2, one a row, with verdict and evidence."""
    rows = []
    for condition in found:
        rows += claims.of_table1(condition)
        if condition.measured is None:
            continue
        lost = f"ours {report.with_interval(drop(condition, 4), 100)} pp"
        drops = claims.judge(condition, drop_verdict(condition, 4)[0], lost, level=True)
        rows += [
            (f"{condition.name}: {claim}", *verdict)
            for claim, verdict in (
                (f"4 bits lose {100 * stated_drop(condition, 4)[0]:.0f} pp", drops),
                ("I prefers 4 bits to 8, I' 8 to 4", reversal_verdict(condition)),
                ("as slow at 8 as at 2 bits", alike_verdict(condition)),
                ("slower at 8 than at 16 bits", slower_verdict(condition)),
            )
        ]
    return pd.DataFrame(rows, columns=["claim", "verdict", "evidence"])
