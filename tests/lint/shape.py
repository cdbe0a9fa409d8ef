#!/usr/bin/env python3
"""
Functions of at most 70 lines, and text that no tool stumbles over: no blanks at line ends, a newline at the end of
every file, nothing marked to be done later.
Files of more than 500 lines are only named: some hold one noun that is that large.
"""
import re

import lint

FUNCTION_LINES_MAX = 70
FILE_LINES_NAMED = 500
CODE = (".c", ".h", ".py", ".sh", "Makefile", ".ci/run")
# Spelled so that this file is not its own finding.
MARKERS = re.compile(r"\b(" + "|".join(("TO" + "DO", "FIX" + "ME", "X" + "XX", "HA" + "CK")) + r")\b")


def check_functions(files):
    findings = []
    for path, text in files.items():
        if not path.endswith((".c", ".h")):
            continue
        lines = text.split("\n")
        begin = None
        for number, line in enumerate(lines, 1):
            if line == "{":
                begin = number
            elif line == "}" and begin is not None:
                if number - begin - 1 > FUNCTION_LINES_MAX:
                    findings.append(f"{path}:{begin}: {number - begin - 1} lines: {lines[begin - 2].strip()}")
                begin = None
    return findings


def check_blanks(files):
    findings = []
    for path, text in files.items():
        if path == "LICENSE":
            continue
        for number, line in enumerate(text.split("\n"), 1):
            if line != line.rstrip():
                findings.append(f"{path}:{number}: blanks at the end of the line")
        if text and not text.endswith("\n"):
            findings.append(f"{path}: no newline at the end")
    return findings


def check_markers(files):
    return [
        f"{path}:{number}: {line.strip()}"
        for path, text in files.items() if path.endswith(CODE + (".md", ".in"))
        for number, line in enumerate(text.split("\n"), 1) if MARKERS.search(line)
    ]


if __name__ == "__main__":
    for path, text in lint.project_files().items():
        if path.endswith((".c", ".h", ".py")) and text.count("\n") > FILE_LINES_NAMED:
            print(f"note: {path} has {text.count(chr(10))} lines")
    lint.main([
        lint.Rule("function length", check_functions, {"proto/planted.c": "int f(void)\n{\n" + "\n" * 71 + "}\n"}),
        lint.Rule("blanks", check_blanks, {"proto/planted.c": "int x; \n"}, {"proto/planted.c": "int x;"}),
        lint.Rule("markers", check_markers, {"README.md": "TO" + "DO: write this\n"}),
    ])
