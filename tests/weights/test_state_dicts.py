"""Which arrays of a file are a network's, on arrays without a framework."""

from collections import OrderedDict

import numpy as np
import pytest

from mlproject.errors import UserError
from mlproject.weights import state_dicts

NAMES = ["features.0.weight", "features.0.bias", "classifier.weight"]


def state(prefix="", value=1):
    """A state dict with a counter, whose names stand after a prefix."""
    counters = {f"{prefix}features.0.num_batches_tracked": np.array(5)}
    return {f"{prefix}{name}": np.full(2, value) for name in NAMES} | counters


def found(content):
    arrays = state_dicts.named_arrays(content)
    return state_dicts.of_network("file.pt", arrays, NAMES)


@pytest.mark.parametrize(
    "content",
    [
        state(),
        OrderedDict(state()),
        *(
            {wrapper: state()}
            for wrapper in ("model_state_dict", "state_dict", "model", "ema", "x")
        ),
        *(state(prefix) for prefix in ("module.", "_orig_mod.", "model.", "net.", "backbone.")),
        state("module._orig_mod.model.net.backbone."),
        {"checkpoint": {"state_dict": {"model": state("module.")}}},
        {"model": state("module."), "epoch": 3, "args": object(), "best": np.float64(0.5)},
        {"state_dict": state("model.") | {"criterion.weight": np.ones(2), "steps": np.array(1)}},
        {
            "model": state(),
            "optimizer": {"state": {0: {"exp_avg": np.ones(2)}}, "param_groups": []},
        },
        {"model_ema": state("module.") | {"n_averaged": np.array(9)}},
    ],
)
def test_a_state_dict_is_found_in_any_dicts_and_behind_any_prefixes(content):
    arrays, note = found(content)
    assert (sorted(NAMES), "") == (sorted(state_dicts.without_counters(arrays)), note)
    assert 5 == arrays["features.0.num_batches_tracked"]


@pytest.mark.parametrize(
    ("average", "chosen"),
    [
        ({"ema": state(value=2)}, "ema"),
        ({"model_ema": state("module.", 2)}, "model_ema.module"),
        ({"state_dict_ema": state(value=2)}, "state_dict_ema"),
        ({"ema_model": {"shadow": state(value=2)}}, "ema_model.shadow"),
    ],
)
def test_of_the_weights_and_their_moving_average_the_average_is_taken_and_told(average, chosen):
    arrays, note = found({"model": state("module."), **average})
    assert {2} == {int(array[0]) for array in state_dicts.without_counters(arrays).values()}
    assert f"the moving average {chosen!r}" in note
    assert "also has 'model.module'" in note


def test_a_moving_average_in_the_same_dict_is_taken():
    arrays, note = found({"state_dict": state("model.") | state("model_ema.module.", 2)})
    assert 2 == arrays["classifier.weight"][0]
    assert "'state_dict.model_ema.module'" in note


@pytest.mark.parametrize(
    "content",
    [
        {"student": state(), "teacher": state()},
        {"model": state(), "ema": state(), "model_ema": state()},
    ],
)
def test_of_other_networks_in_one_file_none_is_chosen(content):
    with pytest.raises(UserError, match=r"contain [23] networks: '.*Save one of them"):
        found(content)


def test_a_schema_is_no_moving_average():
    with pytest.raises(UserError, match="2 networks: 'schema', 'model'"):
        found({"schema": state(), "model": state()})


@pytest.mark.parametrize(
    "content", [{}, [], np.ones(3), {"model": object()}, {"other": np.ones(2)}]
)
def test_what_has_other_names_has_no_network(content):
    assert ({}, "") == found(content)


def test_a_network_with_one_more_array_is_another_network():
    assert ({}, "") == found({"model": state() | {"features.1.weight": np.ones(2)}})
