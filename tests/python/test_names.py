"""Names that attack paths, logs, terminals and HTML: refused where they enter, or shown as text wherever they go."""

import json
import os
import pty
import re
import select
import subprocess
import time
import urllib.parse

import numpy as np
import pytest
from conftest import HTTP_SETTINGS, Web
from test_network import free_port, running
from wire import Peer, pack

import emad

# What no name of a model or profile may be.
WRONG = [
    "../up", "a/../b", "/etc/passwd", "a//b", ".", "..", "", "a\0b", "a\nb", "a\r\nSet-Cookie: x=1", "\x1b[31mred\x1b[0m",
    "\x1b]0;owned\x07", "<script>alert(1)</script>", "a b", "$(id)", "'; rm -rf /", "\u202egnp.exe", "\u2028", "n\u00e4me", "%2e%2e",
    "x" * 201, "x" * 60000, b"\xff\xfe", b"\xc0\xaf", b"\xed\xa0\x80",
]
# What tensors may be called: any text without control characters.
TENSORS = [
    "<script>alert(1)</script>", "<img src=x onerror=document.title='owned'>", "../../../../etc/passwd", "$(touch owned)",
    "\"'`;&|\\", "%s%n%p", "a\u202egnp", "\u2028new line", "{{7*7}}", "x" * 512,
]
WRONG_TENSORS = ["", "a\0b", "a\nb", "\x1b[31m", "\x7f", "\u009b31m", "__metadata__", "x" * 513, "x" * 60000, b"\xff", b"\xed\xa0\x80"]
ESCAPES = "\x1b]0;owned\x07\x1b[31m\u009b31m\u202e<script>owned</script>\n00:00:00.000 error: forged"
# Control characters, and C1's as UTF-8: what a terminal obeys.
CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f\u0080-\u009f]")
LOG_LINE = re.compile(r"^(\d\d:\d\d:\d\d\.\d{3} |emad: |$)")


class Target:
    """A daemon with everything open, and a wire to it."""

    def __init__(self, daemon, port, root):
        self.daemon, self.root = daemon, root
        self.address = ("127.0.0.1", port)
        self.peer = Peer(self.address)
        self.web = Web(daemon)
        self.sequence = 0

    def refuses(self, operation, body=b"", **fields):
        """The sentence: printable, and of bounded length."""
        self.sequence += 1
        answer = self.peer.ask(operation, body, **fields)
        assert answer["status"] < 0, (operation, fields)
        assert not CONTROL.search(answer["error"]) and len(answer["error"]) < 1024, answer["error"]
        return answer["error"]

    def register(self, body, **fields):
        self.sequence += 1
        return {"sequence": self.sequence, "client": 7, "rank": 0, "world": 1, **fields}, body

    def files(self):
        return {
            os.path.relpath(os.path.join(folder, name), self.root)
            for folder, folders, names in os.walk(self.root) for name in (*folders, *names)
        }


@pytest.fixture
def target(tmp_path):
    port = free_port()
    settings = f"[network]\nlisten=tcp://127.0.0.1:{port}\nanonymous=push\n{HTTP_SETTINGS}[checkpoint]\n"
    with running(tmp_path / "run", settings) as daemon:
        opened = Target(daemon, port, tmp_path)
        yield opened
        opened.peer.close()
        # Whatever was said, every line of the log is the daemon's own, and obeyed by no terminal.
        lines = daemon.log().split("\n")
        assert all(LOG_LINE.match(line) and not CONTROL.search(line) for line in lines), lines
        assert "forged" not in "".join(line for line in lines if line.startswith("00:00:00.000"))


def manifest(*names, count=4):
    return pack([])[:1] + len(names).to_bytes(2, "big") + b"".join(
        b"\x95" + pack(name) + b"\x01\x00\x91" + pack(count) + b"\xc0" for name in names
    )


def test_wrong_names_are_refused_wherever_they_are_said(target):
    before = target.files()
    good = {"model": "good", "profiles": ["ema=constant:decay=0.5"]}
    for name in WRONG:
        fields, body = target.register(manifest("w"), **{**good, "model": name})
        target.refuses("register", body, **fields)
        fields, body = target.register(manifest("w"), **{**good, "profiles": [
            (name if isinstance(name, bytes) else name.encode()) + b"=constant:decay=0.5"]})
        target.refuses("register", body, **fields)
        for operation, more in {
            "show": {}, "lease": {"lease": 1}, "history": {}, "remove": {}, "checkpoint": {},
            "claim": {"client": 7, "rank": 0, "epoch": 1}, "reserve": {"rank": 0, "epoch": 1}, "rollback": {"step": 1},
            "chunk": {"client": 7, "sequence": 1, "rank": 0, "epoch": 1, "stage": 0, "offset": 0},
            "profile_set": {"profiles": ["ema=yolo"]}, "checkpoint_keep": {"step": 1, "keep": True},
        }.items():
            target.refuses(operation, model=name, **more)
    for name in WRONG_TENSORS:
        fields, body = target.register(manifest(name), **good)
        target.refuses("register", body, **fields)
    # Nothing was made anywhere, least of all outside of the daemon's folder.
    assert target.files() == before
    assert not os.path.exists(f"{target.root.parent}/up")
    assert json.loads(target.peer.ask("list")["body"]) == {"models": []}


def test_wrong_words_beside_names_are_refused_or_go_nowhere(target):
    """Policies, guards, schedules, attributes, metadata, tokens, and what a client says it is."""
    good = {"model": "good", "profiles": ["ema=constant:decay=0.5"]}
    for field in ("policy", "guards", "resume", "rewind", "attributes"):
        fields, body = target.register(manifest("w"), **{**good, field: ESCAPES})
        target.refuses("register", body, **fields)
    for rule in (f"ema={ESCAPES}", f"ema=constant:{ESCAPES}", f"ema=yolo;drop={ESCAPES}"):
        fields, body = target.register(manifest("w"), **{**good, "profiles": [rule]})
        target.refuses("register", body, **fields)
    target.refuses(ESCAPES)
    target.refuses("hello", token=ESCAPES)
    for agent in (ESCAPES, "x" * 60000):
        assert target.peer.ask("hello", agent=agent)["status"] == 0


def test_what_clients_say_in_paths_comes_back_as_text(target):
    for name in WRONG:
        raw = name if isinstance(name, bytes) else name.encode()
        for path in (f"/v1/models/{urllib.parse.quote(raw, safe='')}", f"/v1/models/{urllib.parse.quote(raw, safe='')}/ema.safetensors",
                     f"/{urllib.parse.quote(raw, safe='')}"):
            if len(path) > 8000:
                continue
            response = target.web.request(path)
            assert response.status in (200, 400, 404), (path, response.status)
            assert "Set-Cookie" not in response.headers
            text = response.text.decode()
            if response.status != 200:
                assert response.headers["Content-Type"] == "application/json"
                assert response.headers["X-Content-Type-Options"] == "nosniff"
                assert not CONTROL.search(text.rstrip("\n")), text
                assert json.loads(text)["message"]
            assert "passwd" not in text or "root:" not in text


def shown(command, environment):
    """What a program writes to a terminal."""
    here, there = pty.openpty()
    process = subprocess.Popen(command, env={**environment, "TERM": "xterm", "LANG": "C.UTF-8", "COLUMNS": "100"}, stdin=there,
                               stdout=there, stderr=there)
    os.close(there)
    data, due = b"", time.monotonic() + 30
    while time.monotonic() < due:
        if select.select([here], [], [], 0.05)[0]:
            try:
                part = os.read(here, 65536)
            except OSError:
                break
            data += part
        elif process.poll() is not None:
            break
    process.kill()
    process.wait()
    os.close(here)
    return data.decode(errors="replace")


def obeyed(text):
    """The control sequences that are not emactl's own: colours and line ends."""
    return CONTROL.findall(re.sub("\x1b\\[[0-9;]*[mK]|\r", "", text))


@pytest.fixture
def hostile(target):
    """A model whose tensors, attributes and metadata are hostile, with a snapshot that was refused for one of them."""
    values = {name: np.ones(4, np.float32) for name in TENSORS}
    attributes = {"note": ESCAPES, ESCAPES[:60]: "key"}
    with emad.Client(target.daemon.url) as client:
        with client.trainer("net", values, profiles={"ema": "constant:decay=0.5"}, attributes=attributes) as trainer:
            trainer.push(1, values, wait=True, metadata={"note": ESCAPES})
            for number, name in enumerate(TENSORS):
                poisoned = {**values, name: np.full(4, np.nan, np.float32)}
                assert trainer.push(2 + number, poisoned, wait=True).outcome == "nonfinite"
            client.checkpoint("net")
            yield target


def test_names_and_notes_are_text_on_a_terminal(hostile, emactl, tmp_path):
    environment = {**os.environ, "EMAD_SOCKET": hostile.daemon.url}
    file = tmp_path / "net.safetensors"
    commands = [
        ["list"], ["show", "net"], ["show", "net", "--tensors"], ["history", "net"], ["top", "-1"], ["status"], ["export", "net", "-o", file],
        ["verify", file], ["diff", "net", file], ["diff", file, file], ["watch", "net", "--until-step", "1"], ["verify", tmp_path / "run/state"],
        ["doctor"], *(["get", "net", name] for name in TENSORS),
    ]
    commands += [[*command, "--json"] for command in commands]
    for command in commands:
        text = shown([emactl, *map(str, command)], environment)
        assert not obeyed(text), (command, text)
    # What a person mistypes, or was given to paste.
    for name in ("\x1b]0;owned\x07", "a\nb", "x" * 5000, "\u009b31m"):
        for command in (["show", name], ["get", "net", name], ["view", name], [name], ["verify", name], ["--socket", name, "--timeout", "0.1", "ping"],
                        ["diff", name, "net"], ["export", "net", name], ["list", f"--{name}"]):
            text = shown([emactl, *command], environment)
            assert text and not obeyed(text), (command, text)


def test_names_and_notes_are_text_in_json_metrics_and_headers(hostile):
    for path in ("/v1/status", "/v1/models", "/v1/models/net"):
        response = hostile.web.request(path)
        text = response.text.decode()
        assert not CONTROL.search(text.rstrip("\n")) and json.loads(text)
        assert response.headers["Content-Type"] == "application/json"
        assert response.headers["X-Content-Type-Options"] == "nosniff"
    names = {row["name"] for row in hostile.web.json("/v1/models/net")["tensors"]}
    assert names == set(TENSORS)
    metrics = hostile.web.request("/metrics").text.decode()
    assert "owned" not in metrics and not CONTROL.search(metrics)
    response = hostile.web.request("/v1/models/net/ema.safetensors")
    assert response.headers["Content-Disposition"] == 'attachment; filename="net-ema-1.safetensors"'
    header = json.loads(response.text[8 : 8 + int.from_bytes(response.text[:8], "little")])
    assert set(header) - {"__metadata__"} == set(TENSORS)
    # Every refusal is one line of the log, and names its tensor.
    lines = [line for line in hostile.daemon.log().splitlines() if "warning: net: " in line]
    assert len(lines) == len(TENSORS)
    assert all("script>alert" not in line or line.startswith(line[:12] + " warning: net: ") for line in lines)


def test_names_of_tokens_do_not_write_into_the_log(tmp_path):
    port = free_port()
    tokens = tmp_path / "tokens"
    name = "a\x1b[31m\x07"
    tokens.write_text(f"{name} {'x' * 16} read\n")
    tokens.chmod(0o600)
    settings = f"[network]\nlisten=tcp://127.0.0.1:{port}\ntoken-file={tokens}\n"
    try:
        with running(tmp_path / "run", settings) as daemon:
            peer = Peer(("127.0.0.1", port))
            peer.ask("hello", token="x" * 16)
            answer = peer.ask("register", manifest("w"), sequence=1, client=7, rank=0, world=1, model="net")
            assert answer["status"] == -13 and not CONTROL.search(answer["error"])
            peer.close()
            log = daemon.log()
    except RuntimeError as error:
        log = str(error).split(": ", 1)[1]
    assert not CONTROL.search(log), log
