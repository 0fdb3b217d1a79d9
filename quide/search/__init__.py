"""Search for a mixed-precision configuration: one bit-width a layer, scored by any function of the tuple of widths.

Nothing here knows what a network is. A *configuration* is a tuple of ``num_layers`` integers out of ``choices``; the
caller's ``fitness`` turns it into a number to be maximized, and a table of known values is as good a fitness as any
(``table.__getitem__``). Every search calls ``fitness`` once a distinct configuration.

With an ``executor`` (:class:`concurrent.futures.Executor`: a process pool, or ``Client(...).get_executor()`` of
``dask.distributed``) the configurations that a search needs next are evaluated side by side. Results are taken in the
order asked for, so a search returns the same with any executor as without. A process pool gives up when one of its
workers dies; Dask starts another and repeats what was lost, until one configuration has cost it four (its setting
``distributed.scheduler.allowed-failures``) or no worker has come back for a minute. Any error that ends a search has
what was evaluated until then, by configuration, in its attribute ``evaluated``.
"""

from quide.search.baselines import exhaustive, greedy, random_search
from quide.search.evolution import genetic
from quide.search.pareto import Frontier, nsga2, pareto_front
from quide.search.scoring import Configuration, SearchResult

__all__ = [
    "Configuration", "Frontier", "SearchResult", "exhaustive", "genetic", "greedy", "nsga2", "pareto_front",
    "random_search",
]  # fmt: skip
