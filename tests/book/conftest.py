"""Made-up measurements that several pages are tested on: :mod:`known_results`."""

from __future__ import annotations

import known_results
import pytest


@pytest.fixture(scope="session")
def found() -> list:
    return [known_results.condition()]


@pytest.fixture(scope="session")
def truth():
    return known_results.landscape()


@pytest.fixture(scope="session")
def land(truth):
    return truth.main
