"""Whether today's code and data would make a record again, for every kind of record there is."""

from __future__ import annotations

from functools import cache

from quide.experiments import deployed, imagenet_runs, llm_runs, mixed, runs
from quide.experiments.records import Record, RunSpec, is_stale

_MAKING = (runs.training, runs.accuracy, runs.timing, deployed.run, mixed.accuracy, mixed.timing, llm_runs.cross)
_MAKERS = {making(runs.Case("simplecnn", "mnist", 0)).spec.kind: making for making in _MAKING}
# Their images and models are not here, so that only the code can be compared.
_ELSEWHERE = {
    **dict.fromkeys((imagenet_runs.ACCURACY, imagenet_runs.QUANTIZERS, imagenet_runs.MIXED), imagenet_runs.code),
    **dict.fromkeys((llm_runs.ACCURACY, llm_runs.NEXT_TOKEN, llm_runs.LATENCY, llm_runs.MEMORY), llm_runs.code),
}


def stale(record: Record) -> bool:
    """Whether code or data have changed since the record was made.

    Raises:
        KeyError: a kind of record that no run of the library makes.
    """
    if record.spec.kind in _ELSEWHERE:
        return is_stale(record, code(record.spec))
    return is_stale(record, *_today(record.spec.kind, _case(record.spec)))


def code(spec: RunSpec) -> str:
    """Digest of today's code that makes the record of a spec; errors as :func:`stale`."""
    return _ELSEWHERE[spec.kind](spec.kind) if spec.kind in _ELSEWHERE else _today(spec.kind, _case(spec))[0]


def _case(spec: RunSpec) -> runs.Case:
    return runs.Case(spec.model, spec.dataset, spec.seed, spec.profile)


@cache
def _today(kind: str, case: runs.Case) -> tuple[str, str]:
    run = _MAKERS[kind](case)
    return run.code, run.data
