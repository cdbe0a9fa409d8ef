"""
What the benchmarks stand on: a private daemon, the yardstick beside it, models of real sizes, and rows.

A row compares something of emad with its peer, or with what the hardware allows, measured in the same run: in every
round both take their turn, and the round's ratio is kept. A row's figures are the medians over all rounds, and so is
its ratio, which is what the goal is held against. The quartiles of the ratios tell how noisy the machine was: where
they lie far apart, the verdict says so.
"""

import dataclasses
import os
import select
import shutil
import socket
import statistics
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Callable, Iterator, List, Optional, Sequence, Tuple

import torch

import emad

ROOT = Path(__file__).resolve().parents[2]
BUILD = ROOT / "build" / os.environ.get("BUILD", "release")
READY_SECONDS = 30
QUIET_SECONDS_MAX = 60
NOISY = 1.5  # the upper quartile over the lower one
ROUNDS_MIN = 3


# ---- rows ------------------------------------------------------------------------------------------------------------


@dataclasses.dataclass
class Row:
    group: str
    row: str
    unit: str
    value: float
    peer: str = ""
    peer_value: Optional[float] = None
    ratio: Optional[float] = None
    quartiles: Optional[Tuple[float, float]] = None
    goal: str = ""
    reached: Optional[bool] = None
    rounds: int = 0
    note: str = ""

    @property
    def verdict(self) -> str:
        if self.reached is None:
            return ""
        is_noisy = self.quartiles is not None and self.quartiles[1] > NOISY * self.quartiles[0]
        return ("reached" if self.reached else "missed") + (", noisy" if is_noisy else "")


@dataclasses.dataclass
class Goal:
    """What a figure should be, "at most 1/20"; it may be given as text where the number says little."""

    most: Optional[float] = None
    least: Optional[float] = None
    text: str = ""

    def __str__(self) -> str:
        return f"at most {self.text or f'{self.most:g}'}" if self.least is None else f"at least {self.least:g}"

    def reached(self, figure: float) -> bool:
        return figure <= self.most if self.least is None else figure >= self.least


def quartiles(figures: Sequence[float]) -> Tuple[float, float]:
    if len(figures) < 2:
        return figures[0], figures[0]
    low, _, high = statistics.quantiles(figures, n=4, method="inclusive")
    return low, high


def rounds(count: int, seconds: float) -> Iterator[int]:
    """So many rounds, but not much longer than that: on a busy machine there are fewer."""
    end = time.monotonic() + seconds
    for i in range(count):
        if i >= ROUNDS_MIN and time.monotonic() > end:
            return
        yield i


def compared(
    group: str, row: str, unit: str, values: Sequence[float], peer: str, peers: Sequence[float],
    goal: Optional[Goal] = None,
) -> Row:  # fmt: skip
    """A row of rounds: values[i] and peers[i] were measured one after the other."""
    ratios = [value / other for value, other in zip(values, peers)]
    ratio = statistics.median(ratios)
    return Row(
        group, row, unit, statistics.median(values), peer, statistics.median(peers), ratio, quartiles(ratios),
        str(goal or ""), goal.reached(ratio) if goal else None, len(ratios),
    )  # fmt: skip


# ---- the daemon ------------------------------------------------------------------------------------------------------


class Daemon:
    """A daemon of our own with a configuration of its own, and a client of it."""

    quiet_seconds = 0.2  # it is quiet when it has done nothing for so long

    def __init__(
        self,
        workers: int = 0,
        slots: int = 3,
        stages: int = 2,
        keeps: bool = False,
        outlived: bool = False,
        http: bool = False,
    ):
        """
        keeps: it has a state directory, and writes nothing unless it is asked to.
        outlived: its memory is there for another daemon when it has died.
        http: at a port of its own.
        """
        self.folder = Path(tempfile.mkdtemp(prefix="emad-bench-"))
        self.segments = Path(tempfile.mkdtemp(prefix="emad-bench-", dir="/dev/shm")) if outlived else None
        self.url = f"ipc://{self.folder}/emad.sock"
        config = self.folder / "emad.conf"
        state = f"state-dir={self.folder}/state\n" if keeps else ""
        segments = f"segments-dir={self.segments}\n" if outlived else ""
        config.write_text(
            f"[daemon]\nruntime-dir={self.folder}\nworkers={workers}\n{state}{segments}\n"
            f"[limits]\nslots={slots}\nstages={stages}\n\n[checkpoint]\ncheckpoint-interval=0\n"
            + ("\n[http]\nhttp-listen=127.0.0.1:0\n" if http else "")
        )
        program = os.environ.get("EMAD_DAEMON", str(BUILD / "emad"))
        self.command = [program, "--config", str(config)]
        try:
            self._start(self.command)
            self.client = emad.Client(self.url, timeout=60)
        except BaseException:
            self._end()
            raise

    def die(self) -> None:
        self.process.kill()
        self.process.wait()

    def come_back(self) -> None:
        """After it has died; returns when it says that it is ready."""
        self._start(self.command)

    def _start(self, command: List[str]) -> None:
        (self.folder / "notify").unlink(missing_ok=True)
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ready:
            ready.bind(str(self.folder / "notify"))
            with open(self.folder / "log", "wb") as log:
                self.process: Optional[subprocess.Popen] = subprocess.Popen(
                    command, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                    env={**os.environ, "NOTIFY_SOCKET": str(self.folder / "notify")},
                )  # fmt: skip
            readable, _, _ = select.select([ready], [], [], READY_SECONDS)
            if not readable or b"READY=1" not in ready.recv(65536).split(b"\n"):
                raise RuntimeError(f"the daemon was not ready in {READY_SECONDS} s: {self.log()}")

    def log(self) -> str:
        return (self.folder / "log").read_text(errors="replace")

    @property
    def pid(self) -> int:
        return self.process.pid

    def counters(self) -> dict:
        return self.client.status()["counters"]

    def cpu_ns(self) -> int:
        """Processor time of all its threads."""
        total = 0
        for task in Path(f"/proc/{self.pid}/task").iterdir():
            try:
                total += int((task / "schedstat").read_text().split()[0])
            except FileNotFoundError:
                pass  # a thread that has ended
        return total

    def wait_quiet(self) -> None:
        """Waits until it does nothing: after a registration it makes its memory's pages huge."""
        deadline = time.monotonic() + QUIET_SECONDS_MAX
        before = self.cpu_ns()
        while time.monotonic() < deadline:
            time.sleep(self.quiet_seconds)
            now = self.cpu_ns()
            if now - before < 0.01 * self.quiet_seconds * 1e9:
                return
            before = now
        raise RuntimeError(f"the daemon is still busy after {QUIET_SECONDS_MAX} s")

    def __enter__(self) -> "Daemon":
        return self

    def __exit__(self, *_: object) -> None:
        self.client.close()
        self._end()

    def _end(self) -> None:
        process = getattr(self, "process", None)
        if process is not None:
            process.terminate()
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        for folder in (self.folder, self.segments):
            if folder:
                shutil.rmtree(folder, ignore_errors=True)


class Triad:
    """bench_triad beside us: bytes a second that so many threads reach, on memory like the daemon's."""

    def __init__(self, mebibytes: int):
        self._process = subprocess.Popen(
            [str(BUILD / "tests" / "bench" / "bench_triad"), str(mebibytes)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        self.bytes_per_second(1)  # its memory is ready now

    def bytes_per_second(self, threads: int) -> float:
        self._process.stdin.write(f"{threads}\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"bench_triad ended with status {self._process.wait()}")
        return float(line)

    def __enter__(self) -> "Triad":
        return self

    def __exit__(self, *_: object) -> None:
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()


# ---- pushing ---------------------------------------------------------------------------------------------------------


class Pushed:
    """A model at a daemon that is pushed step by step."""

    def __init__(self, daemon: Daemon, name: str, tensors: dict, profiles: int = 1):
        self.daemon = daemon
        self.name = name
        self.tensors = tensors
        self.profiles = {f"p{i}": f"yolo:decay=0.{'9' * (i + 3)}" for i in range(profiles)}
        self.step = 0
        self.trainer = daemon.client.trainer(name, tensors, profiles=self.profiles, resume="never")

    def push(self) -> Tuple[float, float]:
        """Pushes once more. Seconds of the daemon's update, and of the whole until it was applied."""
        self.step += 1
        before = self.daemon.counters()
        begun = time.perf_counter()
        result = self.trainer.push(self.step, self.tensors, wait=True, timeout=60)
        ended = time.perf_counter()
        after = self.daemon.counters()
        if result.outcome != "applied" or after["pushes_applied"] != before["pushes_applied"] + 1:
            raise RuntimeError(f"step {self.step} of '{self.name}' is {result.outcome}")
        return (after["apply_us"] - before["apply_us"]) / 1e6, ended - begun

    def close(self) -> None:
        self.trainer.close()
        self.daemon.client.remove(self.name)


def parts(total: int, count: int) -> List[int]:
    """Sizes of so many tensors with so many elements in all: some a thousand times as large as others, none equal."""
    weights = [2.0 ** (10 * (i * 0.618034 % 1)) for i in range(count)]
    sizes = [max(1, int(total * weight / sum(weights))) for weight in weights]
    sizes[sizes.index(max(sizes))] += total - sum(sizes)
    return sizes


def tensors(total: int, count: int, dtype: torch.dtype = torch.float32) -> dict:
    """So many tensors of mixed sizes, one allocation each as in a real model."""
    noise = torch.randn(4093).to(dtype)  # again and again, which is cheap

    def filled(size: int) -> torch.Tensor:
        tensor = torch.empty(size, dtype=dtype)
        whole = size // noise.numel() * noise.numel()
        tensor[:whole].view(-1, noise.numel()).copy_(noise.expand(whole // noise.numel(), -1))
        tensor[whole:].copy_(noise[: size - whole])
        return tensor

    return {f"layer{i}.weight": filled(size) for i, size in enumerate(parts(total, count))}


# ---- models ----------------------------------------------------------------------------------------------------------


class _Convolution(torch.nn.Sequential):
    def __init__(self, inputs: int, outputs: int, kernel: int):
        super().__init__(
            torch.nn.Conv2d(inputs, outputs, kernel, bias=False, padding=kernel // 2), torch.nn.BatchNorm2d(outputs)
        )


def convolutional() -> torch.nn.Module:
    """The layers of a ResNet-50: 25.6 million parameters, and the buffers of 53 batch normalisations."""
    layers: List[torch.nn.Module] = [_Convolution(3, 64, 7)]
    channels = 64
    for width, count in ((64, 3), (128, 4), (256, 6), (512, 3)):
        for i in range(count):
            layers += [_Convolution(channels, width, 1), _Convolution(width, width, 3)]
            layers.append(_Convolution(width, width * 4, 1))
            if i == 0:
                layers.append(_Convolution(channels, width * 4, 1))
            channels = width * 4
    return torch.nn.Sequential(*layers, torch.nn.Linear(channels, 1000))


def transformer(blocks: int = 48, width: int = 672, words: int = 12000) -> torch.nn.Module:
    """The layers of a decoder: as it stands 268 million parameters in 579 tensors."""

    def block() -> torch.nn.Module:
        return torch.nn.Sequential(
            torch.nn.LayerNorm(width), torch.nn.Linear(width, 3 * width), torch.nn.Linear(width, width),
            torch.nn.LayerNorm(width), torch.nn.Linear(width, 4 * width), torch.nn.Linear(4 * width, width),
        )  # fmt: skip

    return torch.nn.Sequential(
        torch.nn.Embedding(words, width), *(block() for _ in range(blocks)), torch.nn.LayerNorm(width)
    )


def seconds_of(call: Callable[[], object]) -> float:
    begun = time.perf_counter()
    call()
    return time.perf_counter() - begun
