import pytest
from mlflow.exceptions import MlflowException

from mlproject.errors import first_line


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (ValueError("one line"), "one line"),
        (ValueError("\nfirst\nsecond"), "first"),
        (TimeoutError(), "TimeoutError"),
        (MlflowException("it is away"), "it is away"),
        # As MLflow reports downloads that fail.
        (
            MlflowException("Failures from URL:\n##### File MLmodel #####\n[Errno 27] Too large"),
            "Failures from URL: [Errno 27] Too large",
        ),
        (ValueError("nothing follows:"), "nothing follows:"),
    ],
)
def test_an_error_has_one_line_with_its_reason(error, expected):
    assert expected == first_line(error)
