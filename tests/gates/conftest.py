"""Two versions of a model, and the gates that compare the second with the first."""

import pytest

from tests.support.gates import run_gates
from tests.support.versions import register_colours


@pytest.fixture(scope="module")
def versions(store):
    return register_colours("gated"), register_colours("gated", reverse=True)


@pytest.fixture
def check(client, lake, versions):
    """Checks the second version, in comparison with the first where there is a serving version."""

    def checked(*, serving=True, **options):
        return run_gates(client, lake, versions[1], versions[0] if serving else None, **options)

    return checked
