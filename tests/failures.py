#!/usr/bin/env python3
"""
What fails is told at the end, where whoever sees the last lines of a log alone finds it: by tests/run.py of its
programs, and by .ci/run of its stages. The programs here fail, each in its own way; .ci/run is the real one, in a
folder whose `make` and tests/setup.sh are ours.
"""
import importlib.util
import os
import re
import subprocess
import sys
import tempfile

TESTS = os.path.dirname(os.path.abspath(__file__))
CI = os.path.join(os.path.dirname(TESTS), ".ci", "run")
END_LINES = 100

# A program, and what the end of the log must say of it.
NOISE = "".join(f"echo line {number}\n" for number in range(1000))
PROGRAMS = {
    "good": ("echo '3 passed, 0 failed'", None),
    "left_out": ("echo 'skipped: no such thing here'; exit 77", None),
    "check": (
        f"{NOISE}echo '66%: Checks: 3, Failures: 1, Errors: 0'\n"
        "echo \"tests/x.c:12:F:core:adds_up:0: Assertion 'sum == 4' failed: sum == 5, 4 == 4\"\nexit 1",
        ["2 passed, 1 failed, exit status 1 after", "! tests/x.c:12:F:core:adds_up:0: Assertion 'sum == 4' failed"],
    ),
    "asserted": (
        f"echo \"x: x.c:7: add: Assertion 'sum' failed.\"\n{NOISE}kill -ABRT $$",
        ["0 passed, 1 failed, died of SIGABRT after", "! x: x.c:7: add: Assertion 'sum' failed."],
    ),
    "leaks": (
        "echo '100%: Checks: 2, Failures: 0, Errors: 0'\n"
        "echo 'SUMMARY: AddressSanitizer: 64 byte(s) leaked in 1 allocation(s).'\nexit 23",
        ["2 passed, 1 failed, exit status 23 after", "! SUMMARY: AddressSanitizer: 64 byte(s) leaked"],
    ),
    "hangs": (
        "echo 'waiting for what never comes'\nexec sleep 1000",
        ["0 passed, 1 failed, ended after 6 s after", "! waiting for what never comes"],
    ),
    "mute": ("true", ["0 passed, 1 failed, exit status 0 after"]),
}
PYTEST = """
def test_adds_up():
    assert 2 + 2 == 4

def test_does_not():
    assert 2 + 2 == 5, "they are 4"
"""


def write(path, text):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)
    os.chmod(path, 0o755)
    return path


def plant(folder, names):
    """The programs of these names; the jobs that run them. A limit of 300 s times 0.02 is one of 6 s."""
    jobs = ["--scale", "0.02"]
    for name in names:
        jobs.append("integration:" + write(os.path.join(folder, "planted", name), f"#!/bin/sh\n{PROGRAMS[name][0]}\n"))
    return jobs


def output_of(command, folder, **environment):
    done = subprocess.run(
        command, cwd=folder, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        timeout=100, check=False, env={**os.environ, **environment},
    )
    return done.returncode, done.stdout.splitlines()


def run(jobs, folder):
    return output_of([sys.executable, os.path.join(TESTS, "run.py"), *jobs], folder)


def says(lines, *wanted):
    for text in wanted:
        assert any(text in line for line in lines), f"'{text}' is not in:\n" + "\n".join(lines)


def nothing_is_added_when_all_is_well(folder):
    status, lines = run(plant(folder, ["good", "left_out"]), folder)
    assert status == 0 and lines[-1] == "3 passed, 0 failed, 1 skipped", lines
    assert not [line for line in lines if re.match("failed:|----|      !", line)], lines


def every_way_to_fail_is_told_in_the_last_lines(folder):
    status, lines = run(plant(folder, PROGRAMS), folder)
    assert status == 1 and lines[-1] == "7 passed, 5 failed, 1 skipped", lines[-1]
    for name, (_, wanted) in PROGRAMS.items():
        told = [number for number, line in enumerate(lines) if re.match(rf"failed: integration \S+/{name}: ", line)]
        assert bool(told) == bool(wanted) and len(told) <= 1, (name, told)
        if told:
            assert len(lines) - told[0] < 30
            says(lines[told[0] : told[0] + 2], *wanted)


def the_end_of_each_output_is_shown_again(folder):
    _, lines = run(plant(folder, ["good", "check"]), folder)
    begun = [number for number, line in enumerate(lines) if line.startswith("---- the end of integration ")]
    assert len(begun) == 1 and lines[begun[0]].endswith("/check")
    assert lines[begun[0] + 1] == "     | line 942" and lines[begun[0] + 58] == "     | line 999"
    assert len(lines) - begun[0] < END_LINES


def a_failure_of_pytest_is_told_by_its_name(folder):
    if not importlib.util.find_spec("pytest"):
        return "pytest is not installed"
    status, lines = run(["python:" + write(os.path.join(folder, "test_sums.py"), PYTEST)], folder)
    assert status == 1 and lines[-1] == "1 passed, 1 failed", lines[-1]
    says(lines[-5:], "failed: python ", "1 passed, 1 failed, exit status 1 after")
    says(lines[-5:], "! FAILED test_sums.py::test_does_not - AssertionError: they are 4")
    return None


def the_whole_run_ends_with_what_failed(folder):
    """Of all its stages one has failing programs, one is no test and fails, and one fails after its tests."""
    jobs = " ".join(plant(folder, ["good", "check"]))
    write(
        os.path.join(folder, "bin", "make"),
        f"""#!/bin/sh
        case "$*" in
        check) {sys.executable} {TESTS}/run.py {jobs} && exit 0; echo 'make: *** [Makefile:1: tests-run] Error 1'; exit 2 ;;
        demo) {NOISE} echo 'the daemon did not become ready'; echo 'make: *** [Makefile:2: demo] Error 1'; exit 2 ;;
        soak*) echo '4 passed, 0 failed'; echo 'no room on the disk'; exit 1 ;;
        *) echo '1 passed, 0 failed' ;;
        esac
        """,
    )
    write(os.path.join(folder, "tests", "setup.sh"), "#!/bin/sh\n")
    with open(CI, encoding="utf-8") as file:
        text = file.read()
    ci, stages = write(os.path.join(folder, ".ci", "run"), text), len(re.findall("^stage ", text, re.M))
    status, lines = output_of([ci], folder, PATH=os.path.join(folder, "bin") + os.pathsep + os.environ["PATH"])
    assert status == 1
    assert re.fullmatch(r"all stages after \d+ s", lines[-2])
    assert lines[-1] == f"{5 + 4 + stages - 3} passed, 3 failed", lines[-1]
    told = lines[lines.index("What failed:") :]
    assert len(told) < END_LINES
    heads = [line for line in told if line.startswith("====")]
    assert [re.sub(r"\d+ s$", "", line) for line in heads] == [
        "==== make check: exit status 2 after ", "==== make demo: exit status 2 after ",
        "==== make soak SOAK_SECONDS=20: exit status 1 after ",
    ]
    says(told, "/check: 2 passed, 1 failed, exit status 1", "! tests/x.c:12:F:core:adds_up:0: Assertion 'sum == 4' failed")
    says(told, "! the daemon did not become ready", "! no room on the disk")
    # And before that the ends of their outputs.
    ends = lines[lines.index("The last lines of what failed:") : -len(told)]
    assert ends.count("     | line 999") == 2 and "     | line 800" not in ends


TESTS_HERE = (
    nothing_is_added_when_all_is_well, every_way_to_fail_is_told_in_the_last_lines, the_end_of_each_output_is_shown_again,
    a_failure_of_pytest_is_told_by_its_name, the_whole_run_ends_with_what_failed,
)


def main():
    passed = failed = skipped = 0
    for test in TESTS_HERE:
        with tempfile.TemporaryDirectory() as folder:
            try:
                reason = test(folder)
            except (AssertionError, OSError, subprocess.SubprocessError, ValueError) as error:
                print(f"{test.__name__}: {type(error).__name__}: {error}")
                failed += 1
                continue
        if reason:
            print(f"{test.__name__}: skipped: {reason}")
        passed, skipped = passed + (not reason), skipped + bool(reason)
    print(f"{passed} passed, {failed} failed" + (f", {skipped} skipped" if skipped else ""))
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
