#!/usr/bin/env python3
"""
Runs benchmarks and shows what they measured.

    tests/measure.py FOLDER 'PROGRAM [ARGUMENT...]' ...

A benchmark prints one JSON object a line when it is given --json: "row" names the line, the other keys are figures.
The lines are kept in FOLDER/NAME.json, one list a benchmark, and shown as a table that can be pasted into Markdown.
Nothing else runs meanwhile.
"""
import json
import os
import shlex
import subprocess
import sys
import time


def table(rows):
    columns = list(dict.fromkeys(key for row in rows for key in row))
    cells = [columns] + [[text(row.get(column, "")) for column in columns] for row in rows]
    widths = [max(len(line[i]) for line in cells) for i in range(len(columns))]
    lines = ["| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths)) + " |" for line in cells]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(lines)


def text(value):
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def measure(folder, command):
    program, *arguments = shlex.split(command)
    name = os.path.splitext(os.path.basename(program))[0]
    words = [sys.executable, program] if program.endswith(".py") else [program]
    begun = time.monotonic()
    done = subprocess.run(
        [*words, *arguments, "--json"], stdout=subprocess.PIPE, text=True, check=False, stdin=subprocess.DEVNULL
    )
    rows = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    print(f"\n{name} ({time.monotonic() - begun:.0f} s)\n")
    if done.returncode or not rows:
        print(f"{name} failed: exit status {done.returncode}, {len(rows)} rows")
        return False
    with open(os.path.join(folder, f"{name}.json"), "w", encoding="utf-8") as file:
        json.dump(rows, file, indent=1)
        file.write("\n")
    print(table(rows), flush=True)
    return True


def main():
    folder, *commands = sys.argv[1:]
    os.makedirs(folder, exist_ok=True)
    measured = [measure(folder, command) for command in commands]
    print(f"\nkept in {folder}/\n{sum(measured)} passed, {len(measured) - sum(measured)} failed")
    sys.exit(0 if all(measured) else 1)


if __name__ == "__main__":
    main()
