#!/usr/bin/env python3
"""
Measures emad against its peers and against what the hardware allows, with the goals beside it.

    tests/bench/bench.py [--quick] [--rows GROUP,...] [--output FILE]
    tests/bench/bench.py --markdown [--output FILE]
    tests/bench/bench.py --readme README.md [--output FILE]

Every group of rows runs on a daemon of its own; `make bench` runs all. The table is printed and kept as JSON, from
which --markdown makes a table of all rows without measuring anything, and --readme writes into a file, between its two marks,
the rows that have a goal, and of the groups where none has one all of them.
"""

import argparse
import dataclasses
import json
import os
import platform
import signal
import sys
import textwrap
import time
import traceback
import warnings
from pathlib import Path
from typing import Callable, Dict, List

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "client" / "python"))

import torch  # noqa: E402

import rows_http  # noqa: E402
import rows_service  # noqa: E402
import rows_trainer  # noqa: E402
import rows_updates  # noqa: E402
from stand import Daemon, Row  # noqa: E402

GROUPS: Dict[str, Callable[[bool], List[Row]]] = {
    "trainer": rows_trainer.rows,
    "throughput": rows_updates.throughput,
    "visible": rows_updates.visible,
    "checkpoints": rows_updates.checkpoints,
    "views": rows_service.views,
    "recovery": rows_service.recovery,
    "memory": rows_service.memory,
    "fair": rows_updates.fair,
    "flat": rows_updates.flat,
    "requests": rows_service.requests,
    "network": rows_service.network,
    "http": rows_http.rows,
}

TITLES = {
    "trainer": "What a training step pays", "throughput": "Updates", "visible": "Until readers see it",
    "checkpoints": "Checkpoints", "views": "Views", "recovery": "Starts", "memory": "Memory", "fair": "Several models",
    "flat": "By size", "requests": "Requests", "network": "Network", "http": "HTTP",
}  # fmt: skip
MARKS = ("<!-- measured: begin -->\n", "<!-- measured: end -->\n")

HEADINGS = ("what", "emad", "peer", "", "ratio", "quartiles", "goal", "")


def figure(number) -> str:
    if number is None:
        return ""
    return f"{number:,.0f}" if abs(number) >= 1000 else f"{number:.3g}"


def cells(row: Row) -> List[str]:
    low, high = row.quartiles or (None, None)
    return [
        row.row, f"{figure(row.value)} {row.unit}", row.peer, figure(row.peer_value), figure(row.ratio),
        "" if low is None else f"{figure(low)} to {figure(high)}", row.goal, row.verdict,
    ]  # fmt: skip


def table(rows: List[Row]) -> str:
    lines = [list(HEADINGS)] + [cells(row) for row in rows]
    widths = [max(len(line[i]) for line in lines) for i in range(len(HEADINGS))]
    text = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths)).rstrip() for line in lines]
    return "\n".join(text + [f"({row.row}: {row.note})" for row in rows if row.note])


def markdown(kept: dict, chosen: bool = False) -> str:
    machine = kept["machine"]
    all_rows = [Row(**fields) for fields in kept["rows"]]
    with_goals = {row.group for row in all_rows if row.goal}
    rows = [row for row in all_rows if not chosen or row.goal or row.group not in with_goals]
    lines = [
        f"{machine['processor']}, {machine['processors']} processors, Linux {machine['linux']}, PyTorch "
        f"{machine['torch']} on {machine['torch_threads']} threads. Figures and ratios are medians over rounds in "
        "which emad and its peer take turns; quartiles are those of the ratios.",
        "",
        "| what | emad | peer | ratio (quartiles) | goal | |",
        "|---|---|---|---|---|---|",
    ]
    group = ""
    for row in rows:
        if row.group != group:
            group = row.group
            lines.append(f"| **{TITLES.get(group, group)}** | | | | | |")
        what, value, peer, peer_value, ratio, spread, goal, verdict = cells(row)
        spread = f" ({spread})" if spread else ""
        lines.append(f"| {what} | {value} | {peer} {peer_value} | {ratio}{spread} | {goal} | {verdict} |")
    lines += [""] + [f"{row.row}: {row.note}." for row in rows if row.note]
    return "\n".join(lines)


def readme_write(path: Path, kept: dict) -> None:
    text = path.read_text()
    if any(text.count(mark) != 1 for mark in MARKS):
        sys.exit(f"bench: {path} does not have the lines '{MARKS[0].strip()}' and '{MARKS[1].strip()}' once each")
    head, rest = text.split(MARKS[0])
    measured = markdown(kept, chosen=True)
    about, table = measured.split("\n\n", 1)
    path.write_text(f"{head}{MARKS[0]}{textwrap.fill(about, 120)}\n\n{table.rstrip()}\n{MARKS[1]}{rest.split(MARKS[1])[1]}")


def machine() -> dict:
    model = "unknown"
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.split(":", 1)[1].strip()
            break
    return {
        "processor": model,
        "processors": os.cpu_count(),
        "linux": platform.release(),
        "torch": torch.__version__,
        "torch_threads": torch.get_num_threads(),
        "load": round(os.getloadavg()[0], 2),
    }


def measure(names: List[str], quick: bool):
    """The rows of the groups, and how many of the groups failed."""
    rows: List[Row] = []
    failed = 0
    for name in names:
        begun = time.monotonic()
        try:
            rows += GROUPS[name](quick)
        except Exception:  # the other groups are measured nevertheless
            failed += 1
            traceback.print_exc()
        print(f"bench: {name}: {time.monotonic() - begun:.0f} s", file=sys.stderr, flush=True)
    return rows, failed


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0].strip())
    parser.add_argument("--quick", action="store_true", help="tries whether everything runs; the figures mean nothing")
    parser.add_argument("--rows", metavar="GROUP,...", help=f"some groups alone, of {', '.join(GROUPS)}")
    parser.add_argument("--output", metavar="FILE", type=Path, default=ROOT / "build" / "bench" / "bench.json")
    parser.add_argument("--markdown", action="store_true", help="prints the kept figures as the README's table")
    parser.add_argument("--readme", metavar="FILE", type=Path, help="writes them between the marks of that file")
    given = parser.parse_args()
    given.names = given.rows.split(",") if given.rows else list(GROUPS)
    for name in given.names:
        if name not in GROUPS:
            parser.error(f"'{name}' is not a group; there are {', '.join(GROUPS)}")
    return given


def main() -> int:
    given = arguments()
    if given.markdown:
        print(markdown(json.loads(given.output.read_text())))
        return 0
    if given.readme:
        readme_write(given.readme, json.loads(given.output.read_text()))
        return 0
    warnings.simplefilter("error", RuntimeWarning)  # how ModelEMA tells that an update went wrong
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("bench: terminated"))  # no daemon stays behind
    facts = machine()
    if given.quick:
        Daemon.quiet_seconds = 0.03
    rows, failed = measure(given.names, given.quick)
    given.output.parent.mkdir(parents=True, exist_ok=True)
    kept = {"machine": facts, "quick": given.quick, "rows": [dataclasses.asdict(row) for row in rows]}
    given.output.write_text(json.dumps(kept, indent=1) + "\n")
    print(table(rows))
    reached = sum(row.reached is True for row in rows)
    missed = sum(row.reached is False for row in rows)
    if given.quick:
        print("\nTried only: these figures mean nothing.")
    print(f"\n{reached} goals reached, {missed} missed; load at the start {facts['load']}; kept in {given.output}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
