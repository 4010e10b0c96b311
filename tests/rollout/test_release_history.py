from __future__ import annotations

from kanary import release
from kanary.release import Release, State


def test_many_rejected_canaries_do_not_push_out_what_a_rollback_would_restore() -> None:
    good = [Release(f"v{number}", "", f"good-{number}", {}, verdict=release.PROMOTED) for number in (1, 2)]
    state = State(history=tuple(good))
    for number in range(release.HISTORY + 5):
        state = release.record(state, Release(f"c{number}", "", f"bad-{number}", {}, verdict=release.ROLLED_BACK))
    assert state.history[:2] == tuple(good)
    assert state.history[-1].digest == f"bad-{release.HISTORY + 4}"
    assert len(state.history) == release.HISTORY
    assert release.parse(release.document(state, "m", "ns")).history == state.history
