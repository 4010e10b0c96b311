"""Simulated rollouts for `bench.judge`: what happens to the requests, whoever judges. Decides nothing.

Every rollout has an environment that hits both arms alike (how many requests, how many of them fail, how slow), and a
canary of its own making. All judges see draws of the same environment, at the share of the traffic they have given.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]

WINDOW_S = 30.0
SHARES = (0.05, 0.25, 0.5, 0.95)
BAKE = 10  # windows of each step
HORIZON = 80  # windows: four bakes, and as long with whatever has been decided
WARM = 2  # windows of a new canary that no judge looks at
EDGES = (10.0, 25.0, 50.0, 100.0, 250.0, 500.0)
BAD_MS = 100.0  # slower than this is a bad response
MEDIAN_MS, SIGMA = 40.0, 0.5


@dataclass(frozen=True)
class Environment:
    """One window, (rollouts,) each: requests, chance to fail, to be saved by a retry, factor of all latency.

    lost    the proxy was restarted in it; missed: its scrape failed
    """

    requests: Ints
    failing: Floats
    retried: Floats
    slow: Floats
    lost: Flags
    missed: Flags


@dataclass(frozen=True)
class Drawn:
    """What one arm did in a window, (rollouts,) each; buckets (rollouts, edges + 1)."""

    requests: Ints
    errors: Ints
    retried: Ints
    buckets: Ints


Weather = Callable[[np.random.Generator, int, int], "Environment"]


@dataclass(frozen=True)
class Scenario:
    """A name, what hits both arms, and what the canary does on its own.

    fails    additional share of its requests that fail; slower: factor of its latency
    from_share  only at this share of the traffic and above
    cold     windows in which a new canary is four times as slow, and fails 5 % more
    healthy  it is within every margin: rolling it back is wrong
    bad      it is beyond a margin: not rolling it back is wrong (neither at the margin itself)
    """

    name: str
    weather: Weather
    fails: float = 0.0
    slower: float = 1.0
    from_share: float = 0.0
    cold: int = 0
    own: float = 0.0  # failures come in clumps, in each arm its own: shape of a gamma factor
    healthy: bool = field(default=False)
    bad: bool = field(default=True)


def environment(
    rng: np.random.Generator,
    rollouts: int,
    rate: float | Floats = 100.0,
    failing: float | Floats = 0.002,
    slow: float | Floats = 1.0,
    retried: float | Floats = 0.0,
    lost: float = 0.0,
    missed: float = 0.0,
) -> Environment:
    """Poisson requests at `rate` a second; the rest as given."""
    shape = (rollouts,)
    return Environment(
        requests=rng.poisson(np.broadcast_to(rate, shape) * WINDOW_S),
        failing=np.array(np.broadcast_to(failing, shape), dtype=np.float64),
        retried=np.array(np.broadcast_to(retried, shape), dtype=np.float64),
        slow=np.array(np.broadcast_to(slow, shape), dtype=np.float64),
        lost=rng.random(shape) < lost,
        missed=rng.random(shape) < missed,
    )


def _steady(rng: np.random.Generator, rollouts: int, _window: int) -> Environment:
    return environment(rng, rollouts)


def _bursts(rng: np.random.Generator, rollouts: int, _window: int) -> Environment:
    """In one window of 12 a fifth of all requests fails for a while, and all is slower: both arms alike."""
    part = rng.random(rollouts) * (rng.random(rollouts) < 1 / 12)
    return environment(rng, rollouts, failing=0.002 + 0.2 * part, slow=1 + part)


def _storms(rng: np.random.Generator, rollouts: int, _window: int) -> Environment:
    """In one window of 15 the network resets connections: a third is retried and saved, 2 % are given up."""
    storm = rng.random(rollouts) * (rng.random(rollouts) < 1 / 15)
    return environment(rng, rollouts, failing=0.002 + 0.02 * storm, retried=0.33 * storm, slow=1 + 0.5 * storm)


def _clumps(rng: np.random.Generator, rollouts: int, _window: int) -> Environment:
    """Each window has failures, and a latency, of its own: gamma with shape 0.3, log-normal with sigma 0.15."""
    return environment(
        rng,
        rollouts,
        failing=np.minimum(0.5, 0.005 * rng.gamma(0.3, 1 / 0.3, rollouts)),
        slow=np.exp(0.15 * rng.standard_normal(rollouts)),
    )


def _resets(rng: np.random.Generator, rollouts: int, _window: int) -> Environment:
    return environment(rng, rollouts, lost=0.1)


def _misses(rng: np.random.Generator, rollouts: int, _window: int) -> Environment:
    return environment(rng, rollouts, missed=0.2)


def _few(rng: np.random.Generator, rollouts: int, _window: int) -> Environment:
    return environment(rng, rollouts, rate=1.0)


def _day(rng: np.random.Generator, rollouts: int, window: int) -> Environment:
    """From night to noon in 40 minutes: five times the requests, ten times the failures, half as slow again."""
    noon = math.sin(math.pi / 2 * window / HORIZON)
    return environment(rng, rollouts, rate=30 + 120 * noon, failing=0.001 + 0.009 * noon, slow=1 + 0.5 * noon)


_WELL = {"healthy": True, "bad": False}
HEALTHY = (
    Scenario("no regression", _steady, **_WELL),
    Scenario("bursts", _bursts, **_WELL),
    Scenario("retry storms", _storms, **_WELL),
    Scenario("overdispersion", _clumps, **_WELL),
    Scenario("resets", _resets, **_WELL),
    Scenario("missed scrapes", _misses, **_WELL),
    Scenario("warm-up", _steady, cold=WARM, **_WELL),
    Scenario("low traffic", _few, **_WELL),
    Scenario("time of day", _day, **_WELL),
)
# At the margin itself: within it, so that no rollback is right, and the hardest case of all for a false one.
MARGIN = Scenario("+0.5 points of errors", _steady, fails=0.005, bad=False)
REGRESSIONS = (
    Scenario("+1 point of errors", _steady, fails=0.01),
    Scenario("+5 points of errors", _steady, fails=0.05),
    Scenario("+20 % latency", _steady, slower=1.2),
    Scenario("+50 % latency", _steady, slower=1.5),
    Scenario("bursts, +1 point", _bursts, fails=0.01),
    Scenario("retry storms, +5 points", _storms, fails=0.05),
    Scenario("overdispersion, +5 points", _clumps, fails=0.05),
    Scenario("time of day, +1 point", _day, fails=0.01),
    Scenario("low traffic, +5 points", _few, fails=0.05),
    Scenario("+5 points from 50 % on", _steady, fails=0.05, from_share=0.5),
)
# Beyond the assumption: each arm's failures come in clumps that the other does not have.
OWN_CLUMPS = (
    Scenario("each arm its own clumps", _steady, own=3.0, **_WELL),
    Scenario("each arm its own big clumps", _steady, own=0.3, **_WELL),
)


def excess(scenario: Scenario, env: Environment, share: Floats) -> Floats:
    """(rollouts,) chance that a request to the canary is bad where stable's would not be."""
    hit = share >= scenario.from_share
    medians = MEDIAN_MS * env.slow
    slow = above(BAD_MS, medians * scenario.slower) - above(BAD_MS, medians)
    return np.asarray(np.where(hit, scenario.fails + (1 - scenario.fails) * slow, 0.0))


def above(edge: float, median: Floats) -> Floats:
    """Chance to be slower than `edge`: log-normal."""
    z = (math.log(edge) - np.log(median)) / (SIGMA * math.sqrt(2))
    return np.asarray(0.5 * (1 - _erf(z)))


def draw(
    rng: np.random.Generator, scenario: Scenario, env: Environment, window: int, share: float, failures: Ints
) -> tuple[Drawn, Drawn]:
    """Canary and stable at this `share`: each request, and each of the environment's `failures`, falls at random."""
    rollouts = len(env.requests)
    fails, slower = scenario.fails * (share >= scenario.from_share), scenario.slower
    if window < scenario.cold:
        fails, slower = fails + 0.05, slower * 4
    saved = rng.binomial(env.requests - failures, env.retried)
    x_c, r_c = rng.binomial(failures, share), rng.binomial(saved, share)
    n_c = x_c + r_c + rng.binomial(env.requests - failures - saved, share)
    n_s, x_s, r_s = env.requests - n_c, failures - x_c, saved - r_c
    more = np.full(rollouts, fails)
    if scenario.own:
        # Instead of the environment's: as many on the whole, in clumps.
        factors = rng.gamma(scenario.own, 1 / scenario.own, (2, rollouts))
        more, others = np.minimum(0.5, env.failing * factors)
        x_c, x_s = np.zeros_like(x_c), rng.binomial(n_s - r_s, others)
    x_c = x_c + rng.binomial(n_c - x_c - r_c, more)
    medians = MEDIAN_MS * env.slow
    return (
        Drawn(n_c, x_c, r_c, rng.multinomial(n_c, buckets(medians * slower))),
        Drawn(n_s, x_s, r_s, rng.multinomial(n_s, buckets(medians))),
    )


def buckets(median: Floats) -> Floats:
    """(rollouts, edges + 1) chance of each bucket."""
    over = np.stack([np.ones_like(median), *(above(edge, median) for edge in EDGES), np.zeros_like(median)], axis=-1)
    return np.asarray(np.maximum(0.0, over[:, :-1] - over[:, 1:]))


def _erf(z: Floats) -> Floats:
    """Error function to 1.5e-7 (Abramowitz and Stegun 7.1.26): scipy is no dependency."""
    t = 1 / (1 + 0.3275911 * np.abs(z))
    series = t * (0.254829592 + t * (-0.284496736 + t * (1.421413741 + t * (-1.453152027 + t * 1.061405429))))
    return np.asarray(np.sign(z) * (1 - series * np.exp(-z * z)))
