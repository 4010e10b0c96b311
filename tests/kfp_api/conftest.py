from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kfp_api.rig import Stage, open_stage


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    found = open_stage(tmp_path)
    yield found
    found.service.store.close()
