"""emactl top, on a real terminal of its own and once, and what shells complete."""

import fcntl
import json
import os
import pty
import re
import select
import shutil
import signal
import struct
import subprocess
import termios
import time
from pathlib import Path

import pytest

numpy = pytest.importorskip("numpy")
emad = pytest.importorskip("emad")

COMPLETION = Path(__file__).resolve().parents[2] / "client" / "emactl" / "completion"


@pytest.fixture
def model(daemon, name):
    state = {"w": numpy.zeros((64, 3), numpy.float32), "layer.bias": numpy.zeros(3, numpy.float32)}
    with emad.Client(daemon.url) as client:
        trainer = client.trainer(name, state, profiles={"ema": "constant:decay=0.5", "slow": "yolo"})
        for step in range(1, 4):
            state["w"] = state["w"] + 1
            trainer.push(step, state, wait=True)
        yield name
        trainer.close()
        try:
            client.remove(name)
        except (emad.NoModelError, emad.AwayError):
            pass


@pytest.fixture
def run(emactl, daemon):
    def run_tool(*arguments, url=daemon.url):
        return subprocess.run(
            [emactl, *map(str, arguments)], capture_output=True, text=True, timeout=60, check=False,
            stdin=subprocess.DEVNULL, env={**os.environ, "EMAD_SOCKET": url},
        )  # fmt: skip

    return run_tool


# ---- once ---------------------------------------------------------------------------------------------------------


def test_once_prints_a_table(run, model):
    result = run("top", "-1", "--interval", "0.2", "--filter", model)
    assert (result.returncode, result.stderr) == (0, "")
    title, heads, *rows = result.stdout.splitlines()
    assert title.startswith("emad ") and " models, " in title
    assert heads.split()[:4] == ["S", "MODEL", "STEP", "STEPS/S"]
    (row,) = rows
    assert row.split()[:6] == ["R", model, "3", "0.0", "0", "0.5"]
    assert row == row.rstrip()
    assert run("top", "--interval", "0.2").returncode == 0  # no terminal: once


def test_once_says_it_in_json(run, model):
    lines = run("top", "--json", "-i", "0.2").stdout.splitlines()
    document = next(d for d in map(json.loads, lines) if d["model"] == model)
    assert set(document) == {
        "model", "state", "step", "steps_per_s", "version", "lag", "decay", "drift", "versions", "readers",
        "memory_bytes", "checkpoint_us", "refused", "trouble",
    }  # fmt: skip
    assert (document["state"], document["step"], document["version"], document["decay"]) == ("R", 3, 4, 0.5)
    assert document["memory_bytes"] > 0 and document["checkpoint_us"] is None and document["trouble"] is None


def test_a_refusal_is_an_error_that_is_named(emactl, daemon, name):
    state = {"w": numpy.zeros(3, numpy.float32)}
    with emad.Client(daemon.url) as client:
        trainer = client.trainer(name, state)
        trainer.push(1, state, wait=True)
        process = subprocess.Popen(
            [emactl, "top", "--json", "-i", "2", "--filter", name], stdout=subprocess.PIPE, text=True,
            env={**os.environ, "EMAD_SOCKET": daemon.url}, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        time.sleep(1)  # it looks twice, two seconds apart; this lies between
        assert trainer.push(2, {"w": numpy.full(3, numpy.nan, numpy.float32)}, wait=True).outcome == "nonfinite"
        document = json.loads(process.communicate(timeout=30)[0])
        assert (document["state"], document["refused"]) == ("E", 1) and "w" in document["trouble"]
        trainer.close()


def test_a_missing_rank_is_waited_for(run, daemon, name):
    state = {"w": numpy.zeros(4, numpy.float32)}
    with emad.Client(daemon.url) as client:
        pieces = {"w": emad.Piece((4,), (0,))}
        trainer = client.trainer(name, {"w": state["w"][:2]}, rank=0, world=2, pieces=pieces)
        document = json.loads(run("top", "--json", "-i", "0.1", "--filter", name).stdout)
        assert document["state"] == "W" and document["step"] is None
        trainer.close()


def test_a_reader_that_goes_away_is_no_error(emactl, daemon, model):
    process = subprocess.Popen(
        [emactl, "top", "-1", "-i", "0.1"], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        env={**os.environ, "EMAD_SOCKET": daemon.url}, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    process.stdout.close()
    assert process.stderr.read() == b"" and process.wait(30) == 0
    process.stderr.close()


# ---- on a terminal ------------------------------------------------------------------------------------------------


class Terminal:
    """The tool with a terminal of its own, and what that shows: just enough of xterm to read it."""

    def __init__(self, program, *arguments, environment=None, rows=24, columns=120):
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            try:
                variables = {**os.environ, "TERM": "xterm", "LC_ALL": "C.UTF-8", **(environment or {})}
                os.execve(program, [str(program), *map(str, arguments)], variables)
            finally:
                os._exit(127)
        self.printed = b""
        self.resize(rows, columns)

    def resize(self, rows, columns):
        fcntl.ioctl(self.fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def type(self, text):
        os.write(self.fd, text.encode())

    def wait(self, pattern, seconds=20):
        """Reads until the pattern has been printed since the last wait."""
        deadline = time.monotonic() + seconds
        begin = len(self.printed)
        while not re.search(pattern, self.printed[begin:].decode(errors="replace")):
            assert time.monotonic() < deadline, f"{pattern} was not printed: {self.printed[begin:]!r}"
            if not self._read(0.1):
                break
        assert re.search(pattern, self.printed[begin:].decode(errors="replace")), self.printed[begin:]

    def _read(self, seconds):
        if not select.select([self.fd], [], [], seconds)[0]:
            return True
        try:
            chunk = os.read(self.fd, 65536)
        except OSError:
            return False
        self.printed += chunk
        return bool(chunk)

    def end(self):
        deadline = time.monotonic() + 20
        while self._read(0.1):
            assert time.monotonic() < deadline
        os.close(self.fd)
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


@pytest.fixture
def terminal(emactl, daemon):
    opened = []

    def start(*arguments, url=daemon.url, **options):
        opened.append(Terminal(emactl, "--socket", url, "top", "-i", "0.2", *arguments, **options))
        return opened[-1]

    yield start
    for each in opened:
        try:
            os.kill(each.pid, signal.SIGKILL)
            os.waitpid(each.pid, 0)
        except (ProcessLookupError, ChildProcessError):
            pass


RESTORED = b"\x1b[?1049l"  # the screen of before is shown again


def test_the_screen_shows_models_and_q_ends_it(terminal, model):
    shown = terminal("--filter", model)
    shown.wait(re.escape(model))
    shown.type("q")
    assert shown.end() == 0 and RESTORED in shown.printed
    assert b"STEPS/S" in shown.printed and b"q quit" in shown.printed


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signals_end_it_with_the_terminal_in_order(terminal, model, number):
    shown = terminal()
    shown.wait("STEPS/S")
    os.kill(shown.pid, number)
    assert shown.end() == 0 and RESTORED in shown.printed


def test_help_filter_order_and_size(terminal, model):
    shown = terminal()
    shown.wait("STEPS/S")
    shown.type("?")
    shown.wait("versions come")
    shown.type("?")
    shown.wait("STEPS/S")
    shown.type("/nosuchmodel\n")
    shown.wait("filter: nosuchmodel ")
    shown.type("/" + model[:60] + "\nl")
    shown.wait("sorted by lag|lag")
    shown.type("R")
    shown.wait("reversed")
    for rows, columns in ((5, 30), (1, 1), (2, 200), (50, 150)):
        shown.resize(rows, columns)
        os.kill(shown.pid, signal.SIGWINCH)
        time.sleep(0.3)
    shown.wait("STEPS/S")
    shown.type("q")
    assert shown.end() == 0


def test_no_colours_where_none_are_wanted(terminal, model):
    for environment, is_coloured in (({"NO_COLOR": "1"}, False), ({"NO_COLOR": ""}, True)):
        shown = terminal("--filter", model, environment=environment)
        shown.wait(re.escape(model))
        shown.type("q")
        assert shown.end() == 0 and (b"\x1b[32m" in shown.printed) == is_coloured


def test_it_says_that_the_daemon_is_away_and_finds_it_again(terminal, own_daemon):
    shown = terminal(url=own_daemon.url)
    shown.wait("0 models")
    own_daemon.kill()
    shown.wait("away: the daemon does not answer")
    own_daemon.start()
    with emad.Client(own_daemon.url) as client:
        client.trainer("back/again", {"w": numpy.zeros(3, numpy.float32)}).close()
    shown.wait("back/again")
    shown.type("q")
    assert shown.end() == 0


def test_a_terminal_that_is_none_is_told(terminal, model):
    shown = terminal(environment={"TERM": "nosuchterminal"})
    assert shown.end() != 0 and b"--once prints the table" in shown.printed


# ---- completion ---------------------------------------------------------------------------------------------------


def candidates(run, *words):
    result = run("complete", *words)
    assert (result.returncode, result.stderr) == (0, "")
    return [line.split("\t")[0] for line in result.stdout.splitlines()]


def test_every_command_and_option_is_offered(run):
    """Those of the help, which is what the parser knows."""
    overview = run("--help").stdout
    commands = re.findall(r"^  ([a-z]+) .*$", overview[: overview.index("options,")], re.M)
    assert candidates(run, "") == [*commands, "help"] and len(commands) > 15
    assert candidates(run, "help", "") == [*commands, "help"]
    for command in commands:
        options = set(re.findall(r"^ .{4} *(--[a-z][\w-]*)", run(command, "--help").stdout, re.M))
        assert "--json" in options and set(candidates(run, command, "--")) == options, command
        assert candidates(run, command, "--jso") == ["--json"]


def test_names_come_from_the_daemon(run, model, tmp_path):
    for command in ("show", "remove", "export", "watch", "get", "diff", "checkpoint"):
        assert model in candidates(run, command, ""), command
        assert [word for word in candidates(run, command, model[:-1]) if word[0] != ":"] == [model]
    assert candidates(run, "export", model, "") == ["ema", "slow"]
    assert candidates(run, "watch", f"{model}:s") == [f"{model}:slow"]
    assert set(candidates(run, "get", f"{model}:slow", "")) == {"w", "layer.bias"}
    assert candidates(run, "profile", "remove", model, "") == ["ema", "slow"]
    assert candidates(run, "profile", "") == ["set", "remove"]
    path = tmp_path / "f.safetensors"
    assert run("export", model, "-o", path).returncode == 0
    assert candidates(run, "get", path, "lay") == ["layer.bias"]


def test_arguments_of_options_are_offered(run):
    assert candidates(run, "export", "m", "--dtype", "b") == candidates(run, "export", "m", "-d", "b") == ["bf16"]
    assert candidates(run, "export", "m", "--dtype=b") == ["--dtype=bf16"]
    assert candidates(run, "merge", "--shape", "m") == ["minus-sqrt"]
    assert candidates(run, "export", "m", "-o", "") == [":files"]
    assert candidates(run, "posthoc", "m", "--from", "") == [":folders"]
    assert candidates(run, "verify", "a", "b", "") == [":files"]
    assert "yolo" in candidates(run, "explain", "")
    assert "rate" in candidates(run, "top", "--sort", "")
    assert candidates(run, "status", "") == [] and candidates(run, "list", "--timeout", "") == []
    assert candidates(run, "verify", "--", "--js") == [":files"]


def test_a_daemon_that_is_away_is_not_waited_for(run, tmp_path):
    begin = time.monotonic()
    result = run("complete", "show", "", url=f"ipc://{tmp_path}/emad.sock")
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
    assert run("complete", "--socket", f"{tmp_path}/x", "show", "").returncode == 0
    assert time.monotonic() - begin < 3


def shell(program, script, emactl, daemon):
    if not shutil.which(program):
        pytest.skip(f"{program} is not installed")
    options = {"bash": ["--norc"], "zsh": ["-f"], "fish": ["--no-config"]}[program]
    environment = {**os.environ, "EMAD_SOCKET": daemon.url, "PATH": f"{emactl.parent}:{os.environ['PATH']}"}
    result = subprocess.run(
        [program, *options, "-c", script], capture_output=True, text=True, timeout=60, env=environment, check=False,
        stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    return result.stdout.splitlines()


def test_bash_completes(emactl, daemon, model, tmp_path):
    (tmp_path / "a file.safetensors").touch()

    def complete(line):
        script = f"""source {COMPLETION}/emactl.bash; compopt() {{ :; }}
            COMP_LINE='{line}' COMP_POINT={len(line)}; _emactl; printf '%s\\n' "${{COMPREPLY[@]}}" """
        return shell("bash", script, emactl, daemon)

    assert complete("emactl wat") == ["watch"]
    assert complete(f"emactl show {model[:-1]}") == [model]
    assert complete(f"emactl watch {model}:s") == ["slow"]  # bash replaces what is behind the colon
    assert complete("emactl export m --dtype=b") == ["bf16"]
    assert complete(f"emactl verify {tmp_path}/a") == [f"{tmp_path}/a file.safetensors"]


def test_fish_completes(emactl, daemon, model):
    def complete(line):
        lines = shell("fish", f"source {COMPLETION}/emactl.fish; complete -C '{line}'", emactl, daemon)
        return [line.split("\t")[0] for line in lines]

    assert complete("emactl wat") == ["watch"]
    assert complete(f"emactl show {model[:-1]}") == [model]
    assert complete(f"emactl watch {model}:s") == [f"{model}:slow"]


def test_zsh_completes(emactl, daemon, model):
    """Its completion system runs in a line editor alone; here the parts that it calls are replaced."""
    stubs = """_call_program() { shift; eval "$@" }
        compadd() { print -l -- "${(P@)@[-1]}" }
        _files() { print -- FILES "$@" }"""

    def complete(*words):
        quoted = " ".join(f"'{word}'" for word in words)
        script = f"{stubs}; words=({quoted}); CURRENT={len(words)}; source {COMPLETION}/_emactl"
        return shell("zsh", script, emactl, daemon)

    assert complete("emactl", "wat") == ["watch"]
    assert complete("emactl", "show", model[:-1]) == [model]
    assert complete("emactl", "export", model, "") == ["ema", "slow"]
    assert complete("emactl", "verify", "") == ["FILES"]
    assert complete("emactl", "posthoc", "--from", "") == ["FILES -/"]
