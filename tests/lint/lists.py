#!/usr/bin/env python3
"""
The Makefile's lists are whole: every C file is linked into something, every file that it names exists, and every fuzz
target has a corpus for the plain test run to replay.
"""
import os
import subprocess

import lint


def check_sources(files):
    listing = subprocess.run(
        ["make", "-s", "--no-print-directory", "objects-list"], cwd=lint.ROOT, capture_output=True, text=True, check=True,
        env={name: value for name, value in os.environ.items() if not name.startswith("MAKE") and name != "MFLAGS"},
    )
    named = {f"{name}.c" for name in listing.stdout.split()}
    there = {path for path in files if path.endswith(".c")}
    return [f"the Makefile does not name {path}" for path in sorted(there - named)] + [
        f"the Makefile names {path}, which does not exist" for path in sorted(named - there)
    ]


def check_corpora(files):
    findings = []
    for path in files:
        folder, name = os.path.split(path)
        if folder == "tests/fuzz" and name.startswith("fuzz_") and name.endswith(".c"):
            corpus = os.path.join(lint.ROOT, folder, "corpus", name[len("fuzz_"):-len(".c")])
            if not os.path.isdir(corpus) or not os.listdir(corpus):
                findings.append(f"{path}: no corpus")
    return findings


if __name__ == "__main__":
    lint.main([
        lint.Rule("sources", check_sources, {"proto/planted.c": ""}),
        lint.Rule("corpora", check_corpora, {"tests/fuzz/fuzz_planted.c": ""}),
    ])
