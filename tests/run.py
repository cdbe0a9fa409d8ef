#!/usr/bin/env python3
"""
Runs test programs and counts what they say.

    tests/run.py [--jobs N] [--scale X] KIND:PATH[:ARGUMENT...] ...

A kind says how a program is started, how long it may take, and whether others may run beside it. Whatever a program
counts itself (Check's summary, pytest's, inputs replayed, or "N passed, N failed") is added up; one that counts
nothing, dies, or overruns its time is one failure. Exit status 77 is one skipped test. The output of a program that
failed is shown in full, and so are the figures of a crash test. What failed is told once more at the end, for those
who see that alone: the last lines of each output, then a line for each program and its assertions. The last line is
the sum: "N passed, N failed", with ", N skipped" where there were any.
"""
import argparse
import concurrent.futures
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time

# seconds a program may take, and whether it has the machine for itself
KINDS = {
    "unit": (120, False),
    "replay": (60, False),
    "lint": (120, False),
    "integration": (300, False),
    "python": (600, True),
    "half": (600, False),  # files of Python tests, without those marked `alone`,
    "alone": (600, True),  # and with those only
    "crash": (1500, True),
    "faults": (1500, False),
    "systemd": (300, True),
}

CHECK_SUMMARY = re.compile(r"^\d+%: Checks: (\d+), Failures: (\d+), Errors: (\d+)", re.M)
PLAIN_SUMMARY = re.compile(r"^(\d+) passed, (\d+) failed(?:, (\d+) skipped)?$", re.M)
REPLAY_SUMMARY = re.compile(r"^(\d+) inputs replayed$", re.M)
PYTEST_SUMMARY = re.compile(r"^=*\s*((?:\d+ \w+(?:, )?)+) in [\d.]+s.*$", re.M)

# What says in one line why a program failed: Check, pytest, the sanitizers, assert(), and an exception of Python's.
REASON = re.compile(
    r"^(?:\S+:\d+:[FE]:.*|(?:FAILED|ERROR) .*|SUMMARY: \w+Sanitizer.*|.*Assertion .* failed\b.*|(?:\w+: )?[\w.]*Error\b.*)$",
    re.M,
)
REASONS_MAX = 10
REASON_CHARACTERS_MAX = 300
LAST_LINES = 60

running = set()
running_lock = threading.Lock()


class Counts:
    def __init__(self, passed=0, failed=0, skipped=0):
        self.passed, self.failed, self.skipped = passed, failed, skipped

    def __iadd__(self, other):
        self.passed += other.passed
        self.failed += other.failed
        self.skipped += other.skipped
        return self

    def __str__(self):
        text = f"{self.passed} passed, {self.failed} failed"
        return text + (f", {self.skipped} skipped" if self.skipped else "")


def count(output, status):
    """What a program that ended with this exit status (None: it overran its time) says about its tests."""
    counts = Counts()
    for match in CHECK_SUMMARY.finditer(output):
        checks, failures, errors = map(int, match.groups())
        counts += Counts(checks - failures - errors, failures + errors)
    for match in PLAIN_SUMMARY.finditer(output):
        counts += Counts(*(int(group or 0) for group in match.groups()))
    for match in REPLAY_SUMMARY.finditer(output):
        counts.passed += int(match.group(1))
    summary = None
    for summary in PYTEST_SUMMARY.finditer(output):
        pass  # pytest's own is the last; a test may have printed another
    if summary:
        words = {word: int(number) for number, word in re.findall(r"(\d+) (\w+)", summary.group(1))}
        counts += Counts(
            words.get("passed", 0) + words.get("xfailed", 0),
            words.get("failed", 0) + words.get("error", 0) + words.get("errors", 0) + words.get("xpassed", 0),
            words.get("skipped", 0),
        )
    if status == 77:
        counts.skipped += 1
    elif not counts.failed and (status != 0 or not (counts.passed or counts.skipped)):
        counts.failed += 1
    return counts


def command_of(kind, path, arguments):
    if kind in ("python", "half", "alone"):
        chosen = {"half": ["-m", "not alone"], "alone": ["-m", "alone"]}.get(kind, [])
        return [sys.executable, "-m", "pytest", "-v", "-rfEs", "-p", "no:cacheprovider", *chosen, path, *arguments]
    if path.endswith(".py"):
        return [sys.executable, path, *arguments]
    return [path, *arguments]


def end_group(process):
    """A program may leave daemons behind when it fails; they are all in its session."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass


def run(job, scale):
    kind, path, *arguments = job.split(":")
    limit = KINDS[kind][0] * scale
    begun = time.monotonic()
    # A file, not a pipe: a process left behind that holds the pipe open would hold us too.
    with tempfile.TemporaryFile() as log:
        try:
            process = subprocess.Popen(
                command_of(kind, path, arguments),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        except OSError as error:
            return job, Counts(failed=1), 0.0, f"{path}: {error}", error.strerror
        with running_lock:
            running.add(process)
        try:
            status = process.wait(limit)
        except subprocess.TimeoutExpired:
            status = None
            process.send_signal(signal.SIGABRT)  # pytest says then where it was
            try:
                process.wait(2)
            except subprocess.TimeoutExpired:
                pass
        end_group(process)
        process.wait()
        with running_lock:
            running.discard(process)
        log.seek(0)
        output = log.read().decode(errors="replace")
    verdict = ""
    if status is None:
        verdict = f"ended after {limit:g} s"
    elif status < 0:
        verdict = f"died of {signal.Signals(-status).name}"
    elif status not in (0, 77):
        verdict = f"exit status {status}"
    return job, count(output, status), time.monotonic() - begun, output, verdict


def report(result):
    job, counts, seconds, output, verdict = result
    kind, path, *arguments = job.split(":")
    word = "FAIL" if counts.failed else "skip" if not counts.passed else "ok"
    name = os.path.splitext(os.path.basename(path.rstrip("/")))[0]
    if kind in ("half", "alone") and arguments:
        name += f" and {len(arguments)} more"
    print(f"{word:4} {kind:11} {name:28} {str(counts):34} {seconds:7.2f} s  {verdict}".rstrip(), flush=True)
    if counts.failed or kind == "crash":
        print("".join(f"     | {line}\n" for line in output.splitlines()), end="", flush=True)
    elif counts.skipped:
        print("".join(f"     | {line}\n" for line in output.splitlines() if "skip" in line.lower()), end="", flush=True)


def reasons(output):
    """The lines that say why a program failed; the last that is not a sum where none is known to."""
    found = list(dict.fromkeys(REASON.findall(output)))
    if not found:
        found = [line for line in output.splitlines() if line.strip() and not PLAIN_SUMMARY.match(line)][-1:]
    left_out = [f"({len(found) - REASONS_MAX} more)"] if len(found) > REASONS_MAX else []
    return [reason[:REASON_CHARACTERS_MAX] for reason in found[:REASONS_MAX]] + left_out


def report_again(results):
    """.ci/run looks for these lines."""
    for job, _, _, output, _ in results:
        print("---- the end of", *job.split(":")[:2])
        print("".join(f"     | {line}\n" for line in output.splitlines()[-LAST_LINES:]), end="")
    for job, counts, seconds, output, verdict in results:
        print(f"failed: {' '.join(job.split(':')[:2])}: {counts}, {verdict or 'exit status 0'} after {seconds:.1f} s")
        print("".join(f"      ! {reason}\n" for reason in reasons(output)), end="", flush=True)


def stop(signum, _frame):
    with running_lock:
        for process in running:
            end_group(process)
    os._exit(128 + signum)


def main():
    parser = argparse.ArgumentParser(description="Runs test programs and counts what they say.")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--scale", type=float, default=1.0, help="multiplies every time limit")
    parser.add_argument("tests", nargs="*", metavar="KIND:PATH[:ARGUMENT...]")
    options = parser.parse_args()
    for job in options.tests:
        if job.split(":")[0] not in KINDS or ":" not in job:
            parser.error(f"'{job}' does not begin with one of {', '.join(KINDS)} and a colon")
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, stop)

    total, failed = Counts(), []
    shared = [job for job in options.tests if not KINDS[job.split(":")[0]][1]]
    alone = [job for job in options.tests if KINDS[job.split(":")[0]][1]]
    for jobs, workers in ((shared, max(1, options.jobs)), (alone, 1)):
        with concurrent.futures.ThreadPoolExecutor(workers) as pool:
            for done in concurrent.futures.as_completed([pool.submit(run, job, options.scale) for job in jobs]):
                result = done.result()
                total += result[1]
                failed += [result] if result[1].failed else []
                report(result)
    report_again(failed)
    print(total, flush=True)
    return 1 if total.failed or not (total.passed or total.skipped) else 0


if __name__ == "__main__":
    sys.exit(main())
