from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.serving.forked import PARENT


@pytest.fixture(scope="session", autouse=True)
def no_parent_is_left() -> Iterator[None]:
    """What predictors are forked from ends with the tests."""
    yield
    PARENT.stop()
