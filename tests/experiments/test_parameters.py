"""Tests of reading what papermill's -p and -y, and people, give for a parameter."""

import pytest

from quide.experiments import campaign, parameters


@pytest.mark.parametrize("given", [7, "7", "[7]", [7], ("7",), "7,", " ( 7 ) "])
def test_one_seed(given):
    assert parameters.read(seeds=given) == ([7],)


@pytest.mark.parametrize("given", ["0 42", "0,42", "[0, 42]", ["0", 42], ["0,42"], ("0 42",)])
def test_two_seeds(given):
    assert parameters.read(seeds=given) == ([0, 42],)


@pytest.mark.parametrize(
    "given", ["mnist cifar10", '["mnist", "cifar10"]', "['mnist','cifar10']", ["mnist", "cifar10"]]
)
def test_names(given):
    assert parameters.read(datasets=given, models=given) == (["mnist", "cifar10"],) * 2


@pytest.mark.parametrize("given", ["imagenet", ["mnist", 3], {"mnist": 1}, True, None])
def test_what_is_no_data_set_is_refused(given):
    with pytest.raises(ValueError, match="^dataset must be one of mnist, "):
        parameters.read(datasets=given)


def test_single_numbers_and_what_is_not_several():
    assert parameters.read(limit=None, images="None", shots="5", profile="quick") == (None, None, 5, "quick")


@pytest.mark.parametrize("given", ["seven", -1, "-1", 2**31, "3000000000", 7.5, "7.5", True, None, {"a": 1}, [[None]]])
def test_what_is_no_seed_is_refused(given):
    with pytest.raises(ValueError, match="seeds must be whole numbers from 0 to 2147483647, such as 7 or 7,42, got"):
        parameters.read(seeds=given)


@pytest.mark.parametrize("given", ["", [], "[]"])
def test_none_at_all_is_refused(given):
    with pytest.raises(ValueError, match="seeds must hold one at least"):
        parameters.read(seeds=given)


def test_one_given_twice_is_refused():
    with pytest.raises(ValueError, match="seeds must differ from one another, got 7, 7"):
        parameters.read(seeds="7 7")
    assert parameters.read(seeds=parameters.SEED_LIMIT - 1) == ([parameters.SEED_LIMIT - 1],)


def test_other_numbers_begin_at_one():
    with pytest.raises(ValueError, match="limit must be whole numbers of at least 1, such as"):
        parameters.read(limit=0)


@pytest.mark.parametrize("device", ["abacus", "cuda:99", "meta", "", None, 7])
def test_a_device_that_is_not_here_is_refused_before_anything_runs(device):
    for ask in (parameters.check_device, lambda name: campaign.measure([], name)):
        with pytest.raises(ValueError, match=f"^device {device!r} cannot be used on this machine; try cpu$"):
            ask(device)
