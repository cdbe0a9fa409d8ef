"""
What readers wait for, how soon a daemon that died is back, what it takes of memory itself, and how many requests it
answers.
"""

import contextlib
import ctypes
import json
import socket
import subprocess
import threading
from pathlib import Path
from typing import Callable, Dict, List, Tuple

import emad
import torch

from stand import BUILD, Daemon, Goal, Pushed, Row, compared, seconds_of, tensors

GIBI_FLOATS = 1 << 28


def views(quick: bool) -> List[Row]:
    """Opening a view against loading the exported file, which is in the page cache."""
    round_count, each = (2, 5) if quick else (8, 25)
    with Daemon(slots=2, stages=1) as daemon:
        model = Pushed(daemon, "model", tensors(GIBI_FLOATS // (64 if quick else 1), 600))
        model.push()
        daemon.wait_quiet()
        path = daemon.folder / "model.safetensors"
        daemon.client.export("model", None, path)
        target = {name: torch.empty_like(tensor) for name, tensor in model.tensors.items()}
        peer, load = loader(path)
        opens, worst, dicts, loads, copies, copies_loaded = [], [], [], [], [], []
        for _ in range(round_count):
            loads.append(1e3 * seconds_of(load))
            several = sorted(1e3 * view_open(daemon) for _ in range(each))
            opens.append(several[each // 2])
            worst.append(several[-1])
            dicts.append(1e3 * seconds_of(lambda: view_copy(daemon, {})))
            copies_loaded.append(1e3 * seconds_of(lambda: copy_into(target, load())))
            copies.append(1e3 * seconds_of(lambda: view_copy(daemon, target)))
        model.close()
    limit = Goal(most=1.0, text="1 ms")
    found = []
    for what, figures in (("median", opens), ("worst", worst)):
        row = compared("views", f"open a view of 1 GiB, {what} of {round_count * each}", "ms", figures, peer, loads)
        if what == "worst":
            row.value = max(figures)
            row.ratio, row.quartiles = row.value / row.peer_value, None
        row.goal, row.reached = str(limit), limit.reached(row.value)
        found.append(row)
    found.append(compared("views", "open it and make a state_dict", "ms", dicts, peer, loads))
    found.append(compared("views", "open it and copy all tensors out", "ms", copies, f"{peer} and copy",
                          copies_loaded))  # fmt: skip
    return found


def view_open(daemon: Daemon) -> float:
    opened = []
    seconds = seconds_of(lambda: opened.append(daemon.client.view("model")))
    opened[0].close()
    return seconds


def view_copy(daemon: Daemon, target: Dict[str, torch.Tensor]) -> None:
    with daemon.client.view("model") as view:
        copy_into(target, view.state_dict())


def copy_into(target: Dict[str, torch.Tensor], state: Dict[str, torch.Tensor]) -> None:
    for name, tensor in target.items():
        tensor.copy_(state[name])


def loader(path: Path) -> Tuple[str, Callable[[], Dict[str, torch.Tensor]]]:
    """What else one would call to have the weights, and its name."""
    try:
        from safetensors.torch import load_file
    except ImportError:
        return "read()", lambda: read_file(path)
    return "load_file", lambda: load_file(path)


def read_file(path: Path) -> Dict[str, torch.Tensor]:
    """Of float32 tensors of one dimension, which is all that is measured here."""
    content = bytearray(path.read_bytes())
    begin = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:begin])
    header.pop("__metadata__", None)
    return {
        name: torch.frombuffer(content, dtype=torch.float32, count=fields["shape"][0],
                               offset=begin + fields["data_offsets"][0])
        for name, fields in header.items()
    }  # fmt: skip


def memory(quick: bool) -> List[Row]:
    """The daemon's own memory at its peak: from a registration until some updates later, and while it is asked.

    VmHWM would count the segments too, so the parts of VmRSS that are not shared memory are looked at every
    millisecond.
    """
    count = GIBI_FLOATS // (64 if quick else 1)
    with Daemon() as daemon:
        watch = Watch(daemon.pid)
        model = Pushed(daemon, "model", tensors(count, 10000))
        for _ in range(3):
            model.push()
        with daemon.client.view("model"):
            updating = watch.stop()
        watch = Watch(daemon.pid)
        daemon.client.show("model")
        asked = watch.stop()
        daemon.wait_quiet()
        model.close()
    goal = Goal(most=32, text="32 MiB")
    return [
        Row("memory", f"beyond the segments, {what}, 1 GiB in 10000 tensors", "MiB", kibibytes / 1024, goal=str(goal),
            reached=goal.reached(kibibytes / 1024), rounds=1)
        for what, kibibytes in (("register and update", updating), ("show --tensors", asked))
    ]  # fmt: skip


def recovery(quick: bool) -> List[Row]:
    """A daemon that was killed comes back with 1 GiB in its memory, against one copy of as much."""
    count = GIBI_FLOATS // (64 if quick else 1)
    source, target = torch.ones(count), torch.ones(count)
    ready, answered, copies = [], [], []
    with Daemon(slots=2, stages=1, outlived=True) as daemon:
        model = Pushed(daemon, "model", tensors(count, 600))
        model.push()
        daemon.wait_quiet()
        for _ in range(2 if quick else 8):
            copies.append(1e3 * seconds_of(lambda: ctypes.memmove(target.data_ptr(), source.data_ptr(), 4 * count)))
            daemon.die()
            ready.append(1e3 * seconds_of(daemon.come_back))
            answered.append(ready[-1] + 1e3 * view_open(daemon))
        with daemon.client.view("model") as view:
            if view.step != model.step:
                raise RuntimeError(f"step {model.step} was pushed, and step {view.step} has come back")
        model.close()
    limit = Goal(most=1000, text="1 s")
    found = []
    for what, figures in (("ready", ready), ("first view", answered)):
        row = compared("recovery", f"from exec to {what}, 1 GiB in memory", "ms", figures, "memcpy", copies)
        row.goal, row.reached = str(limit), limit.reached(max(figures))
        found.append(row)
    return found


class Watch:
    """Looks at a process' memory until it is stopped."""

    def __init__(self, pid: int):
        self._status = Path(f"/proc/{pid}/status")
        self._peak = 0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._ended.wait(0.001):
            self._peak = max(self._peak, own_kibibytes(self._status))

    def stop(self) -> int:
        self._ended.set()
        self._thread.join()
        return max(self._peak, own_kibibytes(self._status))


def own_kibibytes(status: Path) -> int:
    lines = dict(line.split(":", 1) for line in status.read_text().splitlines())
    return sum(int(lines[key].split()[0]) for key in ("RssAnon", "RssFile"))


def requests(quick: bool) -> List[Row]:
    """Small requests against an echo by NNG's own REP socket, from one stock client."""
    round_count, milliseconds = (2, 100) if quick else (9, 500)
    with Daemon() as daemon:
        done = subprocess.run(
            [str(BUILD / "tests" / "bench" / "bench_requests"), daemon.url, str(daemon.folder), str(round_count),
             str(milliseconds)],
            stdout=subprocess.PIPE, text=True, check=True, timeout=120,
        )  # fmt: skip
    found = []
    for line in done.stdout.splitlines():
        figures = json.loads(line)
        found.append(compared("requests", f"small requests, {figures['row']}", "1/s", figures["daemon"],
                              "nng_rep0", figures["nng_rep0"]))  # fmt: skip
    return found


def network(quick: bool) -> List[Row]:
    """Weights by messages: the library's client and the daemon against NNG's own REQ and REP sockets."""
    round_count, milliseconds = (2, 100) if quick else (9, 500)
    ports = [free_port() for _ in range(2)]
    urls = [f"tcp://127.0.0.1:{port}" for port in ports]
    with Daemon(more=f"[network]\nlisten={urls[0]}\nanonymous=push\n") as daemon:
        done = subprocess.run(
            [str(BUILD / "tests" / "bench" / "bench_network"), daemon.url, urls[0], str(daemon.folder), urls[1],
             str(round_count), str(milliseconds)],
            stdout=subprocess.PIPE, text=True, check=True, timeout=120,
        )  # fmt: skip
        shorter = shorter_weights(daemon, urls[0], quick)
    found = []
    for line in done.stdout.splitlines():
        figures = json.loads(line)
        row = figures["row"]
        goal = None if "stock client" in row else Goal(least=0.8 if row.startswith("views") else 1.2)
        daemon_rates, peer_rates = ([1e-9 * rate for rate in figures[who]] for who in ("daemon", "nng"))
        found.append(compared("network", row, "GB/s", daemon_rates, "nng", peer_rates, goal))
    return found + shorter


def shorter_weights(daemon: Daemon, url: str, quick: bool) -> List[Row]:
    """Views and pushes that travel as bf16 against the same as float32. This host's loopback is faster than a network."""
    round_count = 2 if quick else 9
    values = tensors((1 << 20) if quick else (1 << 26), 100)
    with emad.Client(url, timeout=60) as client, contextlib.ExitStack() as stack:
        profiles = {"ema": "constant:decay=0.5"}
        trainers = {
            wire: stack.enter_context(client.trainer(f"as-{wire}", values, profiles=profiles, wire=wire))
            for wire in ("f32", "bf16")
        }
        times: Dict[Tuple[str, str], List[float]] = {}
        for step in range(1, round_count + 1):
            for dtype in ("f32", "bf16"):
                asks = {
                    "push": lambda: trainers[dtype].push(step, values, wait=True),
                    "view": lambda: client.view("as-f32", dtype=dtype).close(),
                }
                for what, ask in asks.items():
                    times.setdefault((what, dtype), []).append(1e3 * seconds_of(ask))
    mebibytes = sum(tensor.nbytes for tensor in values.values()) >> 20
    return [
        compared("network", f"{row} over tcp as bf16, {mebibytes} MiB", "ms", times[what, "bf16"], "float32",
                 times[what, "f32"])
        for what, row in (("push", "push until applied"), ("view", "view"))
    ]  # fmt: skip


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]
