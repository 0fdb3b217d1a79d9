"""Profiles: three sizes of each experiment, the largest being the paper's protocol."""

from __future__ import annotations

import pytest

from quide import latency
from quide.profiles import PROFILES, profile


def test_there_are_three_and_each_is_found_by_its_name():
    assert list(PROFILES) == ["smoke", "quick", "paper"]
    assert all(profile(name).name == name for name in PROFILES)


def test_the_paper_profile_is_the_paper_protocol_on_the_full_data():
    paper = profile("paper")
    assert (paper.warmup, paper.passes) == (100, 1000) == (latency.WARMUP, latency.PASSES)
    assert paper.test_images is None and not paper.embedded


def test_smaller_profiles_do_less_and_need_no_download():
    smoke, quick, paper = PROFILES.values()
    assert smoke.passes < quick.passes < paper.passes
    assert smoke.warmup < quick.warmup < paper.warmup
    assert smoke.wait_s <= quick.wait_s <= paper.wait_s
    assert smoke.embedded and quick.embedded
    assert smoke.test_images is not None


@pytest.mark.parametrize("name", ["full", "", "PAPER", None])
def test_an_unknown_profile_is_refused_with_the_known_ones(name):
    with pytest.raises(ValueError, match="^profile must be one of smoke, quick, paper, got"):
        profile(name)
