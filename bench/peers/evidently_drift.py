"""Evidently's drift report on the same windows, in its own environment: CPU seconds a run, as JSON lines.

`python -m bench.peers.evidently_drift FOLDER ROUNDS`: FOLDER holds reference.csv and window.csv.
"""

from __future__ import annotations

import json
import sys
import time
import warnings


def main() -> None:
    """Import once, then run as often as asked."""
    warnings.simplefilter("ignore")
    import pandas as pd
    from evidently import Report
    from evidently.presets import DataDriftPreset

    reference, window = (pd.read_csv(f"{sys.argv[1]}/{name}.csv") for name in ("reference", "window"))
    for table in (reference, window):
        for name in table.columns:
            if name.startswith("c"):
                table[name] = table[name].astype(str)
    for _ in range(int(sys.argv[2])):
        began = time.process_time()
        Report([DataDriftPreset(num_method="ks", cat_method="chisquare")]).run(window, reference).dict()
        print(json.dumps(time.process_time() - began), flush=True)


if __name__ == "__main__":
    main()
