import re

import pytest

from mlproject import inference
from mlproject.errors import MachineError, MlprojectError
from mlproject.integrations import framework_process
from mlproject.versions import reference_images, reference_results
from tests.support.prediction_cases import CASES
from tests.support.versions import register_colours


def fault(version):
    with framework_process.process("", timeout_s=60) as call:
        return call(reference_results.fault, version.uri)


@pytest.mark.parametrize(
    ("broken", "expected"),
    [
        ("", ""),
        ("rows", "13 predictions for 14 images"),
        ("columns", "the predictions have no column score"),
    ],
)
def test_a_version_of_another_project_must_keep_the_rules_for_all_versions(store, broken, expected):
    assert expected in fault(register_colours("other", fault=broken))


def test_a_version_that_cannot_be_loaded_has_its_error_as_fault(store):
    version = register_colours("broken")
    (code,) = store.rglob(f"{version.model_id}/**/colour_model.py")
    code.write_text("raise RuntimeError('no such luck')")
    assert re.match("it does not run: .*no such luck", fault(version))


def test_a_machine_without_memory_says_nothing_of_the_version(store):
    with pytest.raises(MachineError, match="not predicted, as the machine failed: MemoryError"):
        fault(register_colours("unlucky", fault="memory"))


def test_a_process_that_returns_nothing_in_time_is_ended():
    with (
        pytest.raises(MlprojectError, match="no result in"),
        framework_process.process("", timeout_s=0.1) as call,
    ):
        call(sum, [1])


@pytest.mark.parametrize(("row", "code", "reason"), CASES)
def test_a_prediction_is_valid_or_breaks_one_rule(row, code, reason):
    assert ((code, reason) if code else None) == reference_results.prediction_fault(row)


@pytest.mark.parametrize(
    ("difference", "devices", "expected"),
    [(0.9e-4, 0, True), (2e-4, 0, False), (2e-4, 1, True), (0.02, 1, False)],
)
def test_a_prediction_may_depend_on_its_batch_as_much_as_float16_does_on_an_accelerator(
    monkeypatch, difference, devices, expected
):
    monkeypatch.setattr(inference, "cuda_devices", lambda: devices)
    alone, batched = ({"error": "", "top_scores": [score]} for score in (0.5, 0.5 + difference))
    result = reference_results.ReferenceResult(
        reference_images.reference_images()[0], batched, alone
    )
    assert expected == (reference_results.batch_fault(result) == "")
