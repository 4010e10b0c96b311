"""Detectors that take long to calibrate, calibrated once: thresholds as arrays, found again by the hash of their input.

Outliers by alibi-detect's isolation forest; online tests of all features (MMD, LSDD) and of labelled rows (FET on
errors, CVM on the probability of the true class), each with an expected run time (ERT) in rows.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from serving.drift.detectors import quiet
from serving.drift.journal import replace
from serving.drift.settings import Online

Array = npt.NDArray[Any]
WINDOW = 20  # rows of the sliding window of the online tests of all features
LABELLED_WINDOWS = [30, 100]
_REFERENCE = 500
_SEED = 0


def content(*parts: object) -> str:
    """The hash of arrays and plain values."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(np.ascontiguousarray(part).tobytes() if isinstance(part, np.ndarray) else repr(part).encode())
    return digest.hexdigest()


def kept(cache: Path, key: str, make: Callable[[], Mapping[str, Array]]) -> dict[str, Array]:
    """The arrays that `make` gave for this key once; a file that is damaged counts as none."""
    path = cache / f"{key}.npz"
    try:
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except (OSError, ValueError, EOFError, KeyError):
        pass
    made = dict(make())
    content = io.BytesIO()
    np.savez(content, **made)
    replace(path, content.getvalue())
    return made


def forest(values: npt.NDArray[np.float32], share: float, cache: Path) -> Any:
    """alibi-detect's isolation forest, with the threshold that `share` of the reference rows exceeds."""
    from alibi_detect.od import IForest

    with quiet():
        detector = IForest(n_estimators=100, n_jobs=1)
        detector.isolationforest.random_state = _SEED
        detector.fit(values)

        def threshold() -> dict[str, Array]:
            detector.infer_threshold(values, threshold_perc=100 * (1 - share))
            return {"threshold": np.array(float(detector.threshold))}

        detector.threshold = float(kept(cache, content("forest", values, share), threshold)["threshold"])
    return detector


def online(test: Online, values: npt.NDArray[np.float32], ert: int, cache: Path) -> Any:
    """An online detector of all features together, with `ert` rows to a false alarm on average."""
    import torch
    from alibi_detect.cd.pytorch.lsdd_online import LSDDDriftOnlineTorch
    from alibi_detect.cd.pytorch.mmd_online import MMDDriftOnlineTorch

    torch.manual_seed(_SEED)
    np.random.seed(_SEED)  # alibi-detect draws from the global generators
    rng = np.random.default_rng(_SEED)
    if len(values) > _REFERENCE:
        values = values[np.sort(rng.choice(len(values), _REFERENCE, replace=False))]
    base: Any = MMDDriftOnlineTorch if test == "mmd" else LSDDDriftOnlineTorch

    class Kept(base):  # type: ignore[misc]
        def _configure_thresholds(self) -> None:
            def calibrate() -> dict[str, Array]:
                super(Kept, self)._configure_thresholds()
                made = {"thresholds": np.array([float(one) for one in self.thresholds])}
                return made | ({"inverse": self.H_lam_inv.cpu().numpy()} if test == "lsdd" else {})

            # Its kernels' centres are drawn by the seed above: the same ones that the inverse is of.
            found = kept(cache, content(test, "with its inverse", values, ert, WINDOW), calibrate)
            self.thresholds = [torch.tensor(float(one)) for one in found["thresholds"]]
            if "inverse" in found:
                self.H_lam_inv = torch.from_numpy(found["inverse"]).to(self.device)

    with quiet():
        return Kept(values, ert=ert, window_size=WINDOW, n_bootstraps=max(1000, 5 * ert), verbose=False)


def concept(errors: npt.NDArray[np.bool_], doubts: npt.NDArray[np.float64], ert: int, cache: Path) -> dict[str, Any]:
    """Online detectors of labelled rows, fitted to the first of them: `fet` on errors, `cvm` on 1 - P(true class).

    Where the first rows are all right, or all wrong, there is no rate that could be tested: no `fet`.
    """
    from alibi_detect.cd import CVMDriftOnline, FETDriftOnline

    np.random.seed(_SEED)  # alibi-detect draws from the global generators
    windows = [size for size in LABELLED_WINDOWS if size < len(errors)]
    found = {}
    with quiet():
        if windows and 0 < errors.sum() < len(errors):
            found["fet"] = _kept_thresholds(FETDriftOnline, errors.astype(np.int64), ert, windows, cache)
        if windows:
            found["cvm"] = _kept_thresholds(CVMDriftOnline, doubts, ert, windows, cache)
    return found


def _kept_thresholds(base: Any, reference: Array, ert: int, windows: list[int], cache: Path) -> Any:
    class Kept(base):  # type: ignore[misc]
        def _configure_thresholds(self) -> None:
            def calibrate() -> dict[str, Array]:
                super(Kept, self)._configure_thresholds()
                made = {"thresholds": np.asarray(self.thresholds)}
                return made | ({"permit": self.permit_probs} if hasattr(self, "permit_probs") else {})

            found = kept(cache, content(base.__name__, reference, ert, windows), calibrate)
            self.thresholds = found["thresholds"]
            if "permit" in found:
                self.permit_probs = found["permit"]

    return Kept(reference, ert=ert, window_sizes=windows, n_bootstraps=max(1000, 5 * ert), verbose=False)
