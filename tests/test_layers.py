"""The house stands on its floors: imports run downwards alone, and what needs no torch does not load it."""

from __future__ import annotations

from pathlib import Path

import layers
import pytest


@pytest.fixture(scope="module")
def known(checkout: Path) -> dict[str, Path]:
    return layers.modules(checkout)


def test_every_module_imports_from_floors_below_its_own(known):
    wrong = []
    for name, file in known.items():
        own = layers.room(name)
        for other in layers.imports(file, known):
            room = layers.room(other)
            if room != own and layers.FLOORS[room] >= layers.FLOORS[own] and other != "quide":
                if not (own == "quide.cli" and other == "quidebook.build"):  # `quide book` and `quide run`
                    wrong.append(f"{name} imports {other}")
    assert not wrong


def test_pages_do_not_import_pages(known):
    pages = [name for name in known if name.startswith("quidebook.pages.")]
    assert pages
    assert not [(name, one) for name in pages for one in layers.imports(known[name], known) if one in pages]


def test_what_needs_no_torch_does_not_load_it(known):
    computing = ("quide.experiments.compute", "quide.experiments.inputs")  # imported when there is a record to make
    free = ("quide", "quide.metric", "quide.stats", "quide.search", "quide.experiments", "quidebook")
    loading = {
        name: sorted(one for one in layers.loads(name, known) if {"torch", "torchvision"} & layers.outside(known[one]))
        for name in known
        if (name.startswith(free[1:]) or name == "quide") and not name.startswith(computing)
    }
    assert not {name: culprits for name, culprits in loading.items() if culprits}


def test_scoring_a_network_of_ones_own_loads_no_records(known):
    assert not [name for name in layers.loads("quide.evaluate", known) if name.startswith("quide.experiments")]


def test_no_file_is_longer_than_it_can_be_read_in_one_go(known):
    lengths = {name: len(file.read_text().splitlines()) for name, file in known.items()}
    assert not {name: length for name, length in lengths.items() if length > 450}


def test_the_packages_do_not_grow(known):
    """The aim is 2,500 lines of thin library, 7,000 of ``quide`` and 12,500 in all; lower a bound once reached."""
    lengths = {name: len(file.read_text().splitlines()) for name, file in known.items()}

    def total(*rooms: str) -> int:
        return sum(length for name, length in lengths.items() if layers.room(name).startswith(rooms))

    thin = ("quide.metric", "quide.stats", "quide.latency", "quide.ptq", "quide.search", "quide.evaluate")
    assert total(*thin) <= 5908
    assert total("quide.", "quide") - total("quidebook") <= 16447
    assert total("quide") <= 25737


def test_a_class_name_stands_for_one_thing(known):
    import ast

    places: dict[str, list[str]] = {}
    for name, file in known.items():
        for node in ast.parse(file.read_text()).body:
            if isinstance(node, ast.ClassDef):
                places.setdefault(node.name, []).append(name)
    assert not {name: found for name, found in places.items() if len(found) > 1}
