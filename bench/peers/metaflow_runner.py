"""Five trivial steps as a Metaflow flow; `timed` runs it as its local runner does, and prints JSON with the seconds."""

from __future__ import annotations

import json
import subprocess
import sys
import time

if len(sys.argv) > 1 and sys.argv[1] == "timed":
    seconds = []
    for _ in range(int(sys.argv[2])):
        began = time.perf_counter()
        done = subprocess.run([sys.executable, __file__, "run"], capture_output=True, text=True)
        seconds.append(time.perf_counter() - began)
        if done.returncode:
            sys.exit(done.stdout[-2000:] + done.stderr[-2000:])
        output = [line.split()[-1] for line in done.stdout.splitlines() if "the value is" in line][-1]
    print(json.dumps({"seconds": seconds, "output": float(output)}))
else:
    from metaflow import FlowSpec, step

    class Trivial(FlowSpec):  # type: ignore[misc]
        """The same five additions."""

        @step  # type: ignore[untyped-decorator]
        def start(self) -> None:
            self.value = 0.0 + 1.0
            self.next(self.second)

        @step  # type: ignore[untyped-decorator]
        def second(self) -> None:
            self.value = self.value + 1.0
            self.next(self.third)

        @step  # type: ignore[untyped-decorator]
        def third(self) -> None:
            self.value = self.value + 1.0
            self.next(self.fourth)

        @step  # type: ignore[untyped-decorator]
        def fourth(self) -> None:
            self.value = self.value + 1.0
            self.next(self.end)

        @step  # type: ignore[untyped-decorator]
        def end(self) -> None:
            self.value = self.value + 1.0
            print("the value is", self.value)

    if __name__ == "__main__":
        Trivial()
