"""Trains a small network on handwritten digits with a deliberately restless learning rate, averages it with emad, and
lets a second process measure the averaged weights while training goes on.

Starts a daemon of its own in a private directory and stops it at the end. Writes build/demo/accuracy.png and
build/demo/ema.safetensors. Needs torch, scikit-learn and matplotlib.
"""

import argparse
import contextlib
import json
import os
import queue
import select
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "client" / "python"))

import emad.torch  # noqa: E402
from network import Network, accuracy, digits  # noqa: E402

BATCH = 8
NOISE = 0.3  # added to the pixels: no image is seen twice, so that the loss does not reach zero
LEARNING_RATE = 0.1  # constant and high: the weights never come to rest, which is what an average is for
DECAY, TAU = 0.995, 200
MODEL = "demo/digits"
READY_SECONDS = 30


@contextlib.contextmanager
def daemon_running(directory):
    """A daemon in a directory; the address of its socket."""
    program = os.environ.get("EMAD_DAEMON", str(ROOT / "build" / os.environ.get("BUILD", "release") / "emad"))
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ready, open(directory / "log", "wb") as log:
        ready.bind(str(directory / "notify"))
        process = subprocess.Popen(
            [program, "--runtime-dir", directory, "--state-dir", directory],
            env={**os.environ, "NOTIFY_SOCKET": str(directory / "notify")},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
        try:
            wait_ready(ready, process, directory / "log")
            yield f"ipc://{directory}/emad.sock"
        finally:
            process.terminate()
            process.wait()


def wait_ready(ready, process, log):
    """The daemon says when it is ready, as it does to systemd."""
    deadline = time.monotonic() + READY_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        readable, _, _ = select.select([ready], [], [], 0.2)
        if readable and b"READY=1" in ready.recv(65536).split(b"\n"):
            return
    sys.exit(f"the daemon did not become ready: {log.read_text()}")


class Evaluator:
    """The second process, and the lines that come from it."""

    def __init__(self, url, steps):
        self.process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("evaluator.py")), MODEL, *map(str, steps)],
            env={**os.environ, "EMAD_SOCKET": url},
            stdout=subprocess.PIPE,
            text=True,
        )
        self.lines = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self):
        for line in self.process.stdout:
            self.lines.put(json.loads(line))
        self.lines.put(None)

    def next(self, wait=True):
        """The next line; None when there is none yet and it is not to be waited for."""
        try:
            line = self.lines.get(wait)
        except queue.Empty:
            return None
        if line is None:
            sys.exit("the evaluator ended early")
        return line

    def stop(self):
        self.process.terminate()
        self.process.wait()


class Report:
    """Lines per epoch, and on a terminal a bar below them."""

    WIDTH = 30

    def __init__(self, step_count):
        self.step_count = step_count
        self.is_terminal = sys.stdout.isatty()

    def progress(self, step):
        if self.is_terminal and (step % 10 == 0 or step == self.step_count):
            done = self.WIDTH * step // self.step_count
            bar = "#" * done + "." * (self.WIDTH - done)
            print(f"\r[{bar}] step {step} of {self.step_count}", end="", flush=True)

    def line(self, text):
        print(f"\r\033[K{text}" if self.is_terminal else text, flush=True)


class Training:
    """The trainer: one epoch at a time, with the time that averaging took from it."""

    def __init__(self, ema, network, optimizer, images, labels):
        self.ema, self.network, self.optimizer = ema, network, optimizer
        self.images, self.labels = images, labels
        self.generator = torch.Generator().manual_seed(1)
        self.step_count = 0
        self.pushed = {}  # step: wall clock
        self.blocked = []
        self.steps = []

    def epoch(self, report):
        order = torch.randperm(len(self.labels), generator=self.generator)
        for batch in order.split(BATCH):
            began = time.perf_counter()
            images = self.images[batch]
            images = images + NOISE * torch.randn(images.shape, generator=self.generator)
            self.optimizer.zero_grad()
            scores = self.network(images)
            torch.nn.functional.cross_entropy(scores, self.labels[batch]).backward()
            waiting = time.perf_counter()
            self.ema.fence()  # optimizer.step() would do it; here it is done for the clock
            stepping = time.perf_counter()
            self.optimizer.step()
            self.step_count += 1
            self.pushed[self.step_count] = time.time()
            updating = time.perf_counter()
            self.ema.update(self.network)
            ended = time.perf_counter()
            self.blocked.append(stepping - waiting + ended - updating)
            self.steps.append(ended - began)
            report.progress(self.step_count)


def train(url, epochs, directory):
    """The whole demo but for the daemon. Returns a row per epoch and the trainer."""
    (images, labels), test = digits()
    torch.manual_seed(0)
    network = Network()
    optimizer = torch.optim.SGD(network.parameters(), lr=LEARNING_RATE)
    epoch_steps = -(-len(labels) // BATCH)
    report = Report(epochs * epoch_steps)
    rows = []
    with emad.torch.ModelEMA(network, DECAY, tau=TAU, optimizer=optimizer, name=MODEL, url=url) as ema:
        evaluator = Evaluator(url, [epoch_steps * (epoch + 1) for epoch in range(epochs)])
        try:
            evaluator.next()  # it is ready: its start is not to be mistaken for the daemon's lag
            training = Training(ema, network, optimizer, images, labels)
            raw = []
            while len(rows) < epochs:
                is_training = len(raw) < epochs
                if is_training:
                    training.epoch(report)
                    raw.append(accuracy(network, *test))
                # The other process measures while the next epoch is trained: its lines come when they come.
                while len(rows) < len(raw) and (found := evaluator.next(wait=not is_training)):
                    lag = found["published"] - training.pushed[found["step"]]
                    rows.append((raw[len(rows)], found["accuracy"], lag))
                    report.line(
                        f"epoch {len(rows):2}: raw {rows[-1][0]:6.2%}, averaged {found['accuracy']:6.2%} "
                        f"(read at step {found['step']}, visible {lag * 1e3:.1f} ms after its update)"
                    )
            ema.save(directory / "ema.safetensors")
        finally:
            evaluator.stop()
    return rows, training


def plot(rows, path):
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 4), layout="constrained")
    epochs = range(1, len(rows) + 1)
    axes.plot(epochs, [100 * row[0] for row in rows], "o-", color="tab:gray", label="raw weights")
    axes.plot(epochs, [100 * row[1] for row in rows], "o-", color="tab:blue", label="averaged by emad")
    axes.set(xlabel="epoch", ylabel="test accuracy, %", title="Handwritten digits, constant learning rate")
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=120)


def conclusion(rows, training):
    """One sentence with this run's numbers, whichever way it went. The first half is the warm-up of both."""
    later = rows[len(rows) // 2 :]
    raw, averaged = (statistics.mean(row[index] for row in later) for index in (0, 1))
    better = sum(row[1] > row[0] for row in later)
    errors = f"{1 - averaged:.2%} wrong against {1 - raw:.2%}"
    if averaged > raw:
        verdict = f"the averaged weights read the test digits better than the raw ones ({errors})"
    elif averaged == raw:
        verdict = f"the averaged weights read the test digits as well as the raw ones ({errors})"
    else:
        verdict = f"the averaged weights read the test digits worse than the raw ones ({errors})"
    blocked, step = statistics.median(training.blocked), statistics.median(training.steps)
    return (
        f"Over the last {len(later)} epochs {verdict}, in {better} of {len(later)} epochs, while averaging held the "
        f"trainer up for {blocked * 1e6:.0f} us of a step of {step * 1e6:.0f} us and new averages were visible to the "
        f"other process {statistics.median(row[2] for row in rows) * 1e3:.1f} ms after their update (medians)."
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--output", type=Path, default=ROOT / "build" / "demo", help="directory for the results")
    arguments = parser.parse_args()
    torch.set_num_threads(1)  # the daemon and the evaluator want a core too
    arguments.output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="emad-demo-") as directory, daemon_running(Path(directory)) as url:
        rows, training = train(url, arguments.epochs, arguments.output)
    plot(rows, arguments.output / "accuracy.png")
    print(f"wrote {arguments.output / 'accuracy.png'} and {arguments.output / 'ema.safetensors'}")
    print(conclusion(rows, training))


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
