"""Which tests `make quick` runs."""

from __future__ import annotations

# The tier of `make quick`: what most changes break, and takes no more than seconds a file.
QUICK = (
    "test_layers.py", "library/test_metric.py", "library/test_stats.py", "library/test_search.py",
    "library/test_rounding.py", "library/test_observers.py", "library/test_evaluate.py", "library/test_models.py",
    "data/test_datasets.py", "data/test_decoders.py", "data/test_stories.py", "experiments/test_provenance.py",
    "experiments/test_select.py", "book/test_report.py",
)  # fmt: skip
