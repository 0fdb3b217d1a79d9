"""Time the networks of the experiments again on this machine, and keep the quietest timing of each.

``python tools/retime.py exp1 exp2 exp3`` times SimpleCNN (EXP-1), ResNet-20 (EXP-2) and all mixed configurations
(EXP-3) by the paper's protocol. Each case is timed until its timing is quiet, ``--tries`` times at most; the quietest
by A/A ratio and spread becomes the record, unless the one there was is quieter. Records of other machines stay beside
it, and the pages take the quietest. Let nothing else run meanwhile.
"""

from __future__ import annotations

import argparse

from quide.experiments import campaign, select
from quide.experiments.runs import Case

CASES = {  # the kinds of timings, and whose
    "exp1": (["latency"], [("simplecnn", "mnist"), ("simplecnn", "cifar10")]),
    "exp2": (["latency", "deployed"], [("resnet20", "cifar10")]),
    "exp3": (["mixed_latency"], [("simplecnn", "cifar10")]),
}


def main() -> None:
    """Time what the command line names."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("experiments", nargs="+", choices=CASES, metavar=f"{{{','.join(CASES)}}}")
    parser.add_argument("--tries", type=int, default=3, help="at most so many a case; a quiet one is the last")
    parser.add_argument("--wait", type=float, default=600, help="seconds to wait at most for a quiet machine")
    parser.add_argument("--seeds", type=int, nargs="+", default=campaign.SEEDS)
    asked = parser.parse_args()
    for experiment in asked.experiments:
        kinds, networks = CASES[experiment]
        for case in (Case(*network, seed, "paper") for network in networks for seed in asked.seeds):
            for kind in set(campaign.timed_kinds(case)) & set(kinds):
                print(f"{experiment}: {kind} of {case.model} on {case.dataset}, seed {case.seed}", flush=True)
                record = campaign.retime(campaign.TIMINGS[kind](case), asked.tries, asked.wait)
                noisy, off, spread = select.unrest(record.values)
                state = f"noisy: {'; '.join(record.values['reasons'])}" if noisy else "quiet"
                print(f"  {record.key}: {state} (A/A off by {off:.3f}, widest spread {spread:.2f})", flush=True)


if __name__ == "__main__":
    main()
