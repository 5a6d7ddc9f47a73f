"""`python -m benchmarks [B1 …] [--leads N] [--repeat K]`: measure, and print what was reached."""

from __future__ import annotations

import argparse
import json
import os
import platform
from collections.abc import Callable
from importlib import import_module

from benchmarks.measure import Number, print_table

BENCHMARKS = {
    "B1": "b1_delivery",
    "B2": "b2_plain_ways",
    "B3": "b3_xlsx",
    "B4": "b4_history",
    "B5": "b5_dags",
    "FORMATS": "formats",
    "R237": "r237_pace",
    "TIMETABLE": "timetable",
}


def _run(name: str, *, leads: int, repeat: int) -> list[Number]:
    run: Callable[[int, int], list[Number]] = import_module(f"benchmarks.{BENCHMARKS[name]}").run
    return run(leads, repeat)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "names", nargs="*", metavar="B1", help=f"which of {', '.join(BENCHMARKS)}; all when left out"
    )
    parser.add_argument(
        "--leads",
        type=int,
        default=1_000_000,
        help="leads in the delivery (B1, B2, B3), the most of them for FORMATS",
    )
    parser.add_argument(
        "--repeat", type=int, default=3, help="turns that each side gets; medians are printed"
    )
    parser.add_argument("--json", action="store_true", help="print the numbers as JSON instead of a table")
    arguments = parser.parse_args()
    unknown = set(arguments.names) - BENCHMARKS.keys()
    if unknown:
        parser.error(f"unknown: {', '.join(sorted(unknown))}; there are {', '.join(BENCHMARKS)}")
    return arguments


def main() -> None:
    """Run what was asked for, one after the other."""
    arguments = _arguments()
    numbers = []
    for name in arguments.names or BENCHMARKS:
        numbers += _run(name, leads=arguments.leads, repeat=arguments.repeat)
    if arguments.json:
        print(json.dumps([one.as_json() for one in numbers], indent=2))
        return
    load = os.getloadavg()[0]
    print(
        f"\n{platform.machine()}, {os.cpu_count()} cores, load {load:.1f}, Python {platform.python_version()}\n"
    )
    print_table(numbers)


if __name__ == "__main__":
    main()
