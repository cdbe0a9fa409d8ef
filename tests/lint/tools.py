#!/usr/bin/env python3
"""
What other people's checkers say: pyflakes, shellcheck, cppcheck, and systemd-analyze about the unit file. A checker
that is not installed is a skipped test.
"""
import os
import re
import shutil
import subprocess
import sys
import tempfile

import lint


def output_of(command, folder):
    """What a checker prints, and its exit status where it says nothing but that."""
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    lines = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()]
    if done.returncode and not lines:
        lines = [f"{command[0]}: exit status {done.returncode}"]
    return lines


def materialise(files, folder):
    for path, text in files.items():
        os.makedirs(os.path.join(folder, os.path.dirname(path)), exist_ok=True)
        with open(os.path.join(folder, path), "w", encoding="utf-8") as file:
            file.write(text)


def pyflakes_command():
    for python in (sys.executable, "/usr/bin/python3"):
        if subprocess.run([python, "-c", "import pyflakes"], capture_output=True, check=False).returncode == 0:
            return [python, "-m", "pyflakes"]
    return None


def shellcheck_command():
    return ["shellcheck", "--severity=style"] if shutil.which("shellcheck") else None


def cppcheck_command():
    if not shutil.which("cppcheck"):
        return None
    return [
        "cppcheck", "-q", "-j2", "--std=c11", "--enable=warning,portability", "--inline-suppr", "--error-exitcode=1",
        "--max-configs=2", "--suppress=missingInclude", "--suppress=unknownMacro", "-D__x86_64__", "-D__GNUC__=12",
        # It does not see that a loop over a constant number of parts runs at least once.
        "--suppress=uninitvar:daemon/core/kernel_inner.h", "-I.",
    ]


def unit_command():
    return ["systemd-analyze", "verify"] if shutil.which("systemd-analyze") else None


def is_shell(path, text):
    return path.endswith(".sh") or text.startswith(("#!/bin/bash", "#!/bin/sh", "#!/usr/bin/env bash"))


def pick_python(files):
    return [path for path in files if path.endswith(".py")]


def pick_shell(files):
    return [path for path in files if is_shell(path, files[path])]


def pick_c(files):
    return [path for path in files if path.endswith(".c") and not path.startswith("tests/unit/")]


def fill_units(files, folder):
    """The unit files as they would be installed, with programs that exist."""
    paths = []
    for path, text in files.items():
        if path.endswith(".service.in") or path.endswith(".socket.in"):
            text = text.replace("@service@\n", files.get("systemd/service.conf", ""))
            text = re.sub(r"@\w+@", folder, text)
            paths.append(os.path.join(folder, os.path.basename(path)[: -len(".in")]))
            with open(paths[-1], "w", encoding="utf-8") as file:
                file.write(text)
    for program in ("emad", "emactl"):
        shutil.copy("/bin/true", os.path.join(folder, program))
    return paths


CHECKERS = (
    ("pyflakes", pyflakes_command(), pick_python, {"planted.py": "import os\n"}),
    ("shellcheck", shellcheck_command(), pick_shell, {"planted.sh": "#!/bin/bash\nrm $1\n"}),
    ("cppcheck", cppcheck_command(), pick_c,
     {"planted.c": "int f(void)\n{\n\tint a[2];\n\ta[2] = 1;\n\treturn a[1];\n}\n"}),
    ("systemd-analyze", unit_command(), None,
     {"planted.service.in": "[Service]\nType=nonsense\nExecStart=@bindir@/emad\n"}),
)


def findings_of(command, pick, files, folder):
    paths = pick(files) if pick else fill_units(files, folder)
    if not paths:
        return []
    lines = output_of(command + paths, folder)
    if not pick:
        # It judges the machine's own units too where they are related to ours.
        lines = [line for line in lines if folder in line or any(os.path.basename(path) in line for path in paths)]
    return lines


def main():
    passed = failed = skipped = 0
    files = lint.project_files()
    for name, command, pick, fault in CHECKERS:
        if not command:
            print(f"{name} is not installed: skipped")
            skipped += 1
            continue
        with tempfile.TemporaryDirectory() as folder:
            findings = findings_of(command, pick, files, lint.ROOT if pick else folder)
        with tempfile.TemporaryDirectory() as folder:
            materialise(fault, folder)
            if not findings_of(command, pick, fault, folder):
                findings.append(f"the planted fault was not found: {fault}")
        for finding in findings:
            print(f"{name}: {finding}")
        passed, failed = passed + (not findings), failed + bool(findings)
    print(f"{passed} passed, {failed} failed" + (f", {skipped} skipped" if skipped else ""))
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
