"""
What the lints share: the project's files, and the frame in which every rule shows that it can fail.

A rule is a function from files (path -> text) to findings, and planted faults. It holds when the project has no finding
and every planted fault has one.
"""
import os
import re
import subprocess
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
FOLDERS_LEFT_OUT = ("build/", ".venv/", ".git/", "tests/fuzz/corpus/", "tests/vectors/")


class Rule:
    def __init__(self, name, check, *faults):
        self.name, self.check, self.faults = name, check, faults


def project_paths():
    """What git tracks or would track; every file where this is not a git checkout."""
    listing = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )
    if listing.returncode == 0:
        return [path for path in listing.stdout.split("\0") if path]
    return [
        os.path.relpath(os.path.join(folder, name), ROOT) for folder, _, names in os.walk(ROOT) for name in names
    ]


def project_files():
    files = {}
    for path in sorted(set(project_paths())):
        if path.startswith(FOLDERS_LEFT_OUT) or "__pycache__/" in path or not os.path.isfile(os.path.join(ROOT, path)):
            continue
        try:
            with open(os.path.join(ROOT, path), encoding="utf-8", newline="") as file:
                files[path] = file.read()
        except UnicodeDecodeError:
            continue
    return files


def code_only(text):
    """C source with comments and the insides of strings blanked, line numbers kept."""
    def blank(match):
        if match.group().startswith("/"):
            return re.sub(r"[^\n]", " ", match.group())
        return match.group()[0] + " " * (len(match.group()) - 2) + match.group()[-1]
    return re.sub(r'//[^\n]*|/\*.*?\*/|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])*\'', blank, text, flags=re.S)


def main(rules):
    files = project_files()
    failed = 0
    for rule in rules:
        findings = rule.check(files)
        for fault in rule.faults:
            if not set(rule.check({**files, **fault})) - set(findings):
                findings = findings + [f"the planted fault was not found: {fault}"]
        failed += bool(findings)
        for finding in findings:
            print(f"{rule.name}: {finding}")
    print(f"{len(rules) - failed} passed, {failed} failed")
    sys.exit(1 if failed else 0)
