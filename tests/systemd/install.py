#!/usr/bin/env python3
"""
What `make install` puts where: everything in its place, units that systemd accepts and that protect the host, and
nothing left of it after `make uninstall`. A check whose tool is not installed is a skipped test.
"""
import os
import re
import shutil
import subprocess
import sys
import tempfile

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BUILD = os.environ.get("BUILD", "release")
PREFIX = "/opt/averages"
UNITS = ("emad.service", "emad@.service", "emad-attach.socket", "emad-http.socket")
EXPOSURE_MAX = 15  # tenths
# Outside of PREFIX, and left there: an operator's own changes are in it.
SETTINGS = "etc/emad/emad.conf"
with open(os.path.join(ROOT, "Makefile"), encoding="utf-8") as makefile:
    VERSION = re.search(r"^VERSION := (.*)$", makefile.read(), re.M).group(1)
FILES = {
    "bin/emad": 0o755,
    "bin/emactl": 0o755,
    "include/emad.h": 0o644,
    "lib/libemad.so": None,
    "lib/libemad.so.0": None,
    f"lib/libemad.so.{VERSION}": 0o644,
    "lib/pkgconfig/emad.pc": 0o644,
    "lib/systemd/catalog/emad.catalog": 0o644,
    "lib/systemd/system-preset/50-emad.preset": 0o644,
    "lib/sysusers.d/emad.conf": 0o644,
    "lib/tmpfiles.d/emad.conf": 0o644,
    "share/bash-completion/completions/emactl": 0o644,
    "share/doc/emad/LICENSE": 0o644,
    "share/doc/emad/README.md": 0o644,
    "share/doc/emad/emad.rules.yml": 0o644,
    "share/doc/emad/grafana.json": 0o644,
    "share/fish/vendor_completions.d/emactl.fish": 0o644,
    "share/man/man1/emactl.1": 0o644,
    "share/man/man3/libemad.3": 0o644,
    "share/man/man5/emad.conf.5": 0o644,
    "share/man/man7/emad-protocol.7": 0o644,
    "share/man/man8/emad.8": 0o644,
    "share/zsh/site-functions/_emactl": 0o644,
    **{f"lib/systemd/system/{unit}": 0o644 for unit in UNITS},
}


def make(target, destination):
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MAKE") and name != "MFLAGS"}
    subprocess.run(
        ["make", "-s", "--no-print-directory", target, f"BUILD={BUILD}", f"PREFIX={PREFIX}", f"DESTDIR={destination}"],
        cwd=ROOT, check=True, env=environment, stdin=subprocess.DEVNULL,
    )


def listing(destination):
    return sorted(
        os.path.relpath(os.path.join(folder, name), destination)
        for folder, folders, names in os.walk(destination) for name in folders + names
    )


def unit_path(destination, unit):
    return f"{destination}{PREFIX}/lib/systemd/system/{unit}"


def unit_text(destination, unit):
    with open(unit_path(destination, unit), encoding="utf-8") as file:
        return file.read()


def puts_every_file_in_its_place(destination):
    os.umask(0o022)
    make("install", destination)
    there = {path for path in listing(destination) if not os.path.isdir(os.path.join(destination, path))}
    assert there == {PREFIX[1:] + "/" + path for path in FILES} | {SETTINGS}, there
    for path, mode in FILES.items():
        facts = os.lstat(f"{destination}{PREFIX}/{path}")
        assert mode is None or facts.st_mode & 0o7777 == mode, f"{path}: {facts.st_mode:o}"
    link = os.path.realpath(f"{destination}{PREFIX}/lib/libemad.so")
    assert link.endswith(f"/libemad.so.{VERSION}"), link


def fills_in_every_path(destination):
    for path in FILES:
        if path.endswith((".service", ".socket", ".pc", ".conf", ".preset")):
            with open(f"{destination}{PREFIX}/{path}", encoding="utf-8") as file:
                text = "".join(line for line in file if not line.startswith("#"))
            assert not re.search(r"@[A-Za-z]+@", text), f"{path}: {text}"
            assert destination not in text, path
    assert f"\nExecStart={PREFIX}/bin/emad\n" in unit_text(destination, "emad.service")


def instances_are_protected_like_the_service(destination):
    """Their units differ in what is said of them, and in the paths."""
    own = ("#", "Description=", "ExecStart=", "ExecReload=", "RuntimeDirectory=", "StateDirectory=")
    texts = [
        [line for line in unit_text(destination, unit).splitlines() if line and not line.startswith(own)]
        for unit in UNITS[:2]
    ]
    assert texts[0] == texts[1] and "User=emad" in texts[0], texts


def systemd_accepts_the_units(destination):
    if not shutil.which("systemd-analyze"):
        return "systemd-analyze is not installed"
    with tempfile.TemporaryDirectory() as folder:
        for unit in UNITS:
            with open(os.path.join(folder, unit), "w", encoding="utf-8") as file:
                file.write(unit_text(destination, unit).replace(PREFIX, destination + PREFIX))
        done = subprocess.run(
            ["systemd-analyze", "verify", *(os.path.join(folder, unit) for unit in UNITS)],
            capture_output=True, text=True, check=False,
        )
    # It judges the machine's own units too where they are related to ours.
    lines = [line for line in done.stderr.splitlines() if folder in line or "emad" in line]
    assert not lines, lines
    return None


def the_units_expose_little(destination):
    if not shutil.which("systemd-analyze"):
        return "systemd-analyze is not installed"
    for unit in UNITS[:2]:
        done = subprocess.run(
            ["systemd-analyze", "security", "--offline=true", f"--threshold={EXPOSURE_MAX}",
             unit_path(destination, unit)],
            capture_output=True, text=True, check=False,
        )
        print(f"{unit}: {done.stdout.splitlines()[-1] if done.stdout else done.stderr}")
        assert done.returncode == 0, done.stdout + done.stderr
    return None


def the_catalogue_explains_every_id(destination):
    with open(os.path.join(ROOT, "daemon/core/event.h"), encoding="utf-8") as file:
        known = re.findall(r'^\s*X\(\w+, "([0-9a-f]{32})"', file.read(), re.M)
    with open(f"{destination}{PREFIX}/lib/systemd/catalog/emad.catalog", encoding="utf-8") as file:
        explained = re.findall(r"^-- ([0-9a-f]{32})\nSubject: .+\nDefined-By: emad\n\n.", file.read(), re.M)
    assert known and known == explained, (known, explained)


def users_are_made_by_systemd(destination):
    if not shutil.which("systemd-sysusers"):
        return "systemd-sysusers is not installed"
    with tempfile.TemporaryDirectory() as root:
        os.mkdir(f"{root}/etc")
        subprocess.run(
            ["systemd-sysusers", f"--root={root}", f"{destination}{PREFIX}/lib/sysusers.d/emad.conf"],
            check=True, capture_output=True,
        )
        with open(f"{root}/etc/passwd", encoding="utf-8") as file:
            users = file.read()
        with open(f"{root}/etc/group", encoding="utf-8") as file:
            groups = file.read()
    assert users.startswith("emad:") and users.endswith(":/usr/sbin/nologin\n") and groups.startswith("emad:"), users
    return None


def takes_exactly_that_away(destination):
    foreign = f"{destination}{PREFIX}/lib/systemd/system/other.service"
    with open(foreign, "w", encoding="utf-8"):
        pass
    make("uninstall", destination)
    left = [path for path in listing(destination) if not path.startswith("etc")]
    assert [path for path in left if path.endswith((".service", "emad", ".h"))] == [
        os.path.relpath(foreign, destination)
    ], left
    os.remove(foreign)
    with open(f"{destination}/{SETTINGS}", "a", encoding="utf-8") as file:
        file.write("# mine\n")
    make("install", destination)
    make("uninstall", destination)
    assert listing(destination) == ["etc", "etc/emad", SETTINGS, SETTINGS + ".d"], listing(destination)
    with open(f"{destination}/{SETTINGS}", encoding="utf-8") as file:
        assert file.read().endswith("# mine\n")


TESTS = (
    puts_every_file_in_its_place, fills_in_every_path, instances_are_protected_like_the_service,
    systemd_accepts_the_units, the_units_expose_little, the_catalogue_explains_every_id, users_are_made_by_systemd,
    takes_exactly_that_away,
)


def main():
    passed = failed = skipped = 0
    with tempfile.TemporaryDirectory(prefix="emad-install-") as destination:
        for test in TESTS:
            try:
                reason = test(destination)
            except (AssertionError, OSError, subprocess.CalledProcessError) as error:
                print(f"{test.__name__}: {error!r}")
                failed += 1
                continue
            if reason:
                print(f"{test.__name__}: skipped: {reason}")
            passed, skipped = passed + (not reason), skipped + bool(reason)
    print(f"{passed} passed, {failed} failed" + (f", {skipped} skipped" if skipped else ""))
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
