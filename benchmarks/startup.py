"""How long commands take to answer, as the best of several fresh processes.

Run: python benchmarks/startup.py [--runs 7]
Budget: `textray --help` under 0.5 s on two cores.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
import time

COMMANDS = {
    "import textray": ["-c", "import textray"],
    "textray --help": ["-c", "from textray.cli import main; main(['--help'])"],
    "textray segment --help": ["-c", "from textray.cli import main; main(['segment', '--help'])"],
    "textray report TEXT": ["-c", "from textray.cli import main; main(['report', 'left base'])"],
    "textray info": ["-c", "from textray.cli import main; main(['info'])"],
}
BUDGET_SECONDS = {"textray --help": 0.5}


def best_seconds(arguments: list[str], runs: int) -> float:
    """Shortest wall-clock time of a fresh process."""
    times = []
    for _ in range(runs):
        start = time.perf_counter()
        subprocess.run([sys.executable, *arguments], check=True, capture_output=True)
        times.append(time.perf_counter() - start)
    return min(times)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=7)
    runs = parser.parse_args().runs
    seconds = {name: round(best_seconds(arguments, runs), 3) for name, arguments in COMMANDS.items()}
    over = [name for name, budget in BUDGET_SECONDS.items() if seconds[name] >= budget]
    print(json.dumps({"python": platform.python_version(), "runs": runs, "seconds": seconds, "over_budget": over}))
    return 1 if over else 0


if __name__ == "__main__":
    sys.exit(main())
