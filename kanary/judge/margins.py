"""What a rollout tolerates and how sure it wants to be: margins, error rates, absolute limits. Checked when made."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from kanary.errors import InputError

OnClasses = Literal["pause", "rollback", "ignore"]


@dataclass(frozen=True)
class Limits:
    """Absolute limits for when there is no stable arm to compare with: shares (0..1) of the requests.

    errors  failures tolerated; None: no limit
    slower  edge of the latency histogram (ms) -> share of the requests that may be slower
    """

    errors: float | None = None
    slower: Mapping[float, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for what, limit in [("errors", self.errors), *((f"slower than {e:g}", v) for e, v in self.slower.items())]:
            if limit is not None and not 0 < limit < 1:
                raise InputError(f"limits: {what} is {limit}.", "Give a share of the requests between 0 and 1.")


@dataclass(frozen=True)
class Margins:
    """How much worse than stable the canary may be, in shares (0..1) of the requests, and how sure to be of it.

    errors   so much more of its requests may fail
    latency  so much more of its requests may be slower than any one edge; None: latency is not judged
    classes  the share of any one predicted class may differ by so much, either way; None: not judged
    on_classes  what a proven difference of class shares does
    alpha    chance that a canary within its margins is ever rolled back (or paused for its classes), all in all
    beta     chance that a canary beyond a margin is called within it
    least    requests that the canary must have answered at the share it is judged at before it is promoted
    """

    errors: float = 0.005
    latency: float | None = 0.05
    classes: float | None = 0.1
    on_classes: OnClasses = "pause"
    alpha: float = 0.01
    beta: float = 0.05
    least: int = 50
    limits: Limits = field(default_factory=Limits)

    def __post_init__(self) -> None:
        for what, value in [("errors", self.errors), ("latency", self.latency), ("classes", self.classes)]:
            if value is not None and not 0 < value < 0.5:
                raise InputError(f"margin: {what} is {value}.", "Give a share of the requests above 0 and below 0.5.")
        for what, value in [("alpha", self.alpha), ("beta", self.beta)]:
            if not 0 < value < 0.5:
                raise InputError(f"{what} is {value}.", "Give a probability above 0 and below 0.5.")
        if self.on_classes not in ("pause", "rollback", "ignore"):
            raise InputError(f"on_classes is {self.on_classes!r}.", "Say pause, rollback or ignore.")
        if self.least < 1:
            raise InputError(f"least is {self.least}.", "No data never passes: ask for at least one request.")
