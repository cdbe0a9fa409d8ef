"""
How fast the daemon averages.

An update's time is the daemon's own: what it adds to its counter apply_us for one push, from taking the snapshot up to
the version's publication. Bytes count what an update must move: the snapshot is read once, and for each profile the
old shadow is read and the new one written. The triad reads and writes memory of the same kind with as many threads,
directly before the push of every round.
"""

import multiprocessing
import statistics
import threading
import time
from typing import Dict, List, Tuple

import torch

import emad
from stand import Daemon, Goal, Pushed, Row, Triad, compared, rounds, tensors

MEBI = 1 << 20
TENSOR_COUNT = 256
FLAT = Goal(most=1.3)

# Bytes of an element as pushed, and in a profile.
BYTES = {torch.float32: (4, 4), torch.bfloat16: (2, 4), torch.float16: (2, 4), torch.float64: (8, 8)}
NAMES = {torch.float32: "F32", torch.bfloat16: "BF16", torch.float16: "F16", torch.float64: "F64"}


def throughput(quick: bool) -> List[Row]:
    count = (4 if quick else 64) * MEBI
    found = []
    with Triad(16 if quick else 512) as triad:
        for workers in (1, 2):
            with Daemon(workers=workers, slots=2, stages=1) as daemon:
                found += Throughput(daemon, triad, workers, count, 2 if quick else 9).rows()
    return found


class Throughput:
    """The rows of one daemon. The model with one float32 profile stays and is pushed beside every other."""

    def __init__(self, daemon: Daemon, triad: Triad, workers: int, count: int, round_count: int):
        self.daemon, self.triad, self.workers = daemon, triad, workers
        self.count, self.round_count = count, round_count
        self.label = f"{workers} worker{'s' if workers > 1 else ''}"

    def rows(self) -> List[Row]:
        found = []
        base = Pushed(self.daemon, "base", tensors(self.count, TENSOR_COUNT))
        found.append(self._against_triad(base, torch.float32, 1, Goal(least=0.9)))
        for dtype in BYTES:
            # Doubles take twice the memory.
            given = tensors(self.count // 2 if dtype == torch.float64 else self.count, TENSOR_COUNT, dtype)
            for profiles in (1, 2, 4):
                if dtype != torch.float32 or profiles != 1:
                    found += self._case(base, given, dtype, profiles)
        base.close()
        return found

    def _case(self, base: Pushed, given: Dict[str, torch.Tensor], dtype: torch.dtype, profiles: int) -> List[Row]:
        case = Pushed(self.daemon, "case", given, profiles)
        found = [self._against_triad(case, dtype, profiles)]
        if (dtype, profiles) in ((torch.bfloat16, 1), (torch.float32, 4)):
            times, bases = [], []
            for _ in rounds(self.round_count, 4):
                bases.append(base.push()[0])
                times.append(case.push()[0])
            if profiles == 4:
                fours = [4e3 * seconds for seconds in bases]
                found.append(compared("throughput", f"4 profiles at once, {self.label}", "ms", [1e3 * t for t in times],
                                      "4 x one", fours, Goal(most=0.8)))  # fmt: skip
            else:
                rates, peers = ([self.count / seconds / 1e9 for seconds in each] for each in (times, bases))
                found.append(compared("throughput", f"BF16 parameters, {self.label}", "G/s", rates, "F32", peers,
                                      Goal(least=1.0)))  # fmt: skip
        case.close()
        return found

    def _against_triad(self, case: Pushed, dtype: torch.dtype, profiles: int, goal: Goal = None) -> Row:
        pushed_bytes, shadow_bytes = BYTES[dtype]
        moved = sum(tensor.numel() for tensor in case.tensors.values()) * (pushed_bytes + 2 * profiles * shadow_bytes)
        self.daemon.wait_quiet()
        case.push()
        rates, peers = [], []
        for _ in rounds(self.round_count, 4):
            peers.append(self.triad.bytes_per_second(self.workers) / 1e9)
            rates.append(moved / case.push()[0] / 1e9)
        name = f"{NAMES[dtype]}, {profiles} profile{'s' if profiles > 1 else ''}, {self.label}"
        return compared("throughput", name, "GB/s", rates, "triad", peers, goal)


def visible(quick: bool) -> List[Row]:
    """From the doorbell of a push until a reader that waits for it has it open, over the update alone.

    The doorbell is rung directly after the copy, which is when the fence returns.
    """
    count = (4 if quick else 268) * 10**6
    with Daemon(slots=2, stages=1) as daemon:
        model = Pushed(daemon, "visible", tensors(count, 600))
        daemon.wait_quiet()
        model.push()
        waits, updates = [], []
        for _ in rounds(3 if quick else 15, 10):
            model.step += 1
            before = daemon.counters()["apply_us"]
            model.trainer.push_begin(model.step, model.tensors)
            model.trainer.fence()
            rung = time.perf_counter()
            with daemon.client.view("visible", min_step=model.step, timeout=60) as view:
                waits.append(1e3 * (time.perf_counter() - rung))
                if view.step != model.step:
                    raise RuntimeError(f"the view is of step {view.step}, not {model.step}")
            model.trainer.flush()
            updates.append((daemon.counters()["apply_us"] - before) / 1e3)
        model.close()
    name = f"doorbell to open view, {count / 1e6:.0f} M parameters"
    return [compared("visible", name, "ms", waits, "update alone", updates, Goal(most=1.2))]


def checkpoints(quick: bool) -> List[Row]:
    """Updates while checkpoints are written without a pause, against the same updates alone."""
    count = (4 if quick else 64) * MEBI
    seconds = 0.1 if quick else 1.0
    with Daemon(keeps=True) as daemon:
        model = Pushed(daemon, "checkpointed", tensors(count, TENSOR_COUNT))
        daemon.wait_quiet()
        model.push()
        alone, beside, whole_alone, whole_beside, written = [], [], [], [], []
        for _ in rounds(3 if quick else 9, 30):
            update, whole = pushed_for(model, seconds)
            alone.append(count / update / 1e9)
            whole_alone.append(count / whole / 1e9)
            with Checkpoints(daemon) as writer:
                update, whole = pushed_for(model, seconds)
            beside.append(count / update / 1e9)
            whole_beside.append(count / whole / 1e9)
            written.append(writer.count * 4 * count / writer.seconds / 1e6)
        model.close()
    goal = Goal(least=0.8)
    found = [
        compared("checkpoints", "updates while checkpoints are written", "G/s", beside, "without", alone, goal),
        compared("checkpoints", "pushes until applied meanwhile", "G/s", whole_beside, "without", whole_alone, goal),
    ]
    found[0].note = f"{statistics.median(written):.0f} MB/s went to disk meanwhile"
    return found


def pushed_for(model: Pushed, seconds: float) -> Tuple[float, float]:
    """The median seconds of an update, and of a push until it was applied, over pushes for that long."""
    end = time.perf_counter() + seconds
    pushes = [model.push()]
    while time.perf_counter() < end:
        pushes.append(model.push())
    return tuple(statistics.median(figures) for figures in zip(*pushes))


class Checkpoints:
    """Asks for one checkpoint after the other, of whatever is newest, until it is left."""

    def __init__(self, daemon: Daemon):
        self._client = emad.Client(daemon.url, timeout=60)
        self._daemon = daemon
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        while not self._ended.is_set():
            self._client.checkpoint()

    def __enter__(self) -> "Checkpoints":
        self._before = self._daemon.counters()["checkpoints_written"]
        self._begun = time.perf_counter()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()
        self.seconds = time.perf_counter() - self._begun
        self.count = self._daemon.counters()["checkpoints_written"] - self._before
        self._client.close()


def fair(quick: bool) -> List[Row]:
    """A small model's pushes until applied, beside a huge one that is always being updated, against the same alone."""
    huge_count, small_count = (8 if quick else 64) * MEBI, 2 * MEBI
    found = []
    for workers in (1, 2):
        with Daemon(workers=workers) as daemon:
            # Four profiles, so that the workers lag behind the trainer's copying and never run out of it.
            huge = Pushing(daemon, huge_count, 4)
            small = Pushed(daemon, "small", tensors(small_count, TENSOR_COUNT))
            daemon.wait_quiet()
            alone, beside = [], []
            for _ in rounds(3 if quick else 9, 30):
                alone.append(lags(small, 3 if quick else 100))
                with huge:
                    beside.append(lags(small, 3 if quick else 100))
            small.close()
            huge.close()
        name = f"push until applied, {small_count / 1e6:.0f} M parameters beside {huge_count / 1e6:.0f} M"
        label = f"{workers} worker{'s' if workers > 1 else ''}"
        for what, figure, goal in (("", statistics.median, Goal(most=2.0)), (", mean", statistics.fmean, None)):
            here, there = ([1e3 * figure(times) for times in some] for some in (beside, alone))
            found.append(compared("fair", f"{name}, {label}{what}", "ms", here, "alone", there, goal))
    return found


def lags(model: Pushed, count: int) -> List[float]:
    """Seconds of so many pushes until they were applied: enough for several of the huge one's, and its pauses."""
    times = []
    for _ in range(count):
        model.step += 1
        begun = time.perf_counter()
        model.trainer.push(model.step, model.tensors, wait=True, timeout=60)
        times.append(time.perf_counter() - begun)
    return times


class Pushing:
    """A model that is pushed as fast as the daemon takes it, from a process of its own, while it is entered."""

    def __init__(self, daemon: Daemon, count: int, profiles: int):
        context = multiprocessing.get_context("spawn")
        self._running, self._ended, self._pushed = context.Event(), context.Event(), context.Semaphore(0)
        arguments = (daemon.url, count, profiles, self._running, self._ended, self._pushed)
        self._process = context.Process(target=push_on, args=arguments, daemon=True)
        self._process.start()
        with self:
            pass

    def __enter__(self) -> "Pushing":
        while self._pushed.acquire(block=False):
            pass
        self._running.set()
        # The first may be one from before.
        if not (self._pushed.acquire(timeout=60) and self._pushed.acquire(timeout=60)):
            raise RuntimeError("the huge model's first pushes have taken two minutes")
        return self

    def __exit__(self, *_: object) -> None:
        self._running.clear()
        time.sleep(1)  # until what was pushed last has been applied, and longer than that

    def close(self) -> None:
        self._ended.set()
        self._running.set()
        self._process.join()


def push_on(url: str, count: int, profiles: int, running, ended, pushed) -> None:
    given = tensors(count, TENSOR_COUNT)
    names = {f"p{i}": f"yolo:decay=0.{'9' * (i + 3)}" for i in range(profiles)}
    with emad.Client(url, timeout=60) as client:
        trainer = client.trainer("huge", given, profiles=names, resume="never")
        step = 0
        while running.wait() and not ended.is_set():
            step += 1
            trainer.push(step, given, timeout=60)
            pushed.release()
        trainer.close()


def flat(quick: bool) -> List[Row]:
    """Cost of a parameter, over models of growing size, and over growing numbers of tensors."""
    million = 10**6
    sizes = (1, 4) if quick else (1, 5, 25, 100, 268)
    counts = (1, 100) if quick else (1, 100, 1000, 10000)
    found = []
    by_size = {f"{size} M parameters": (size * million, 100) for size in sizes}
    by_count = {f"{count} tensor{'s' if count > 1 else ''}": (sizes[-1] if quick else 25, count) for count in counts}
    by_count = {name: (size * million, count) for name, (size, count) in by_count.items()}
    for cases in (by_size, by_count):
        with Daemon(slots=2, stages=1) as daemon:
            found += flat_rows(daemon, cases, 2 if quick else 9)
    with Daemon(slots=2, stages=1) as daemon:
        found += trainer_rows(daemon, (1, 4) if quick else (1, 8, 64), (4 if quick else 64) * million, 2 if quick else 9)
    return found


def trainer_rows(daemon: Daemon, counts: Tuple[int, ...], total: int, round_count: int) -> List[Row]:
    """Cost of a parameter when as many of them are shared out to more trainers, each with a model of its own."""
    teams = {
        f"{count} trainer{'s' if count > 1 else ''}": [
            Pushed(daemon, f"{count}-{index}", tensors(total // count, 100)) for index in range(count)
        ]
        for count in counts
    }
    daemon.wait_quiet()
    figures: Dict[str, List[float]] = {name: [] for name in teams}
    for _ in rounds(round_count + 1, 15):
        for name, team in teams.items():
            figures[name].append(1e9 * sum(model.push()[0] for model in team) / total)
    for team in teams.values():
        for model in team:
            model.close()
    best = min(figures, key=lambda name: statistics.median(figures[name][1:]))
    return [
        compared("flat", f"update: {name}", "ns/parameter", figures[name][1:], f"best: {best}", figures[best][1:], FLAT)
        for name in teams
    ]


def flat_rows(daemon: Daemon, cases: Dict[str, tuple], round_count: int) -> List[Row]:
    models = {name: Pushed(daemon, name.replace(" ", "-"), tensors(*case)) for name, case in cases.items()}
    daemon.wait_quiet()
    updates: Dict[str, List[float]] = {name: [] for name in cases}
    wholes: Dict[str, List[float]] = {name: [] for name in cases}
    for _ in rounds(round_count + 1, 15):
        for name, model in models.items():
            count = cases[name][0]
            # As many pushes as make up a good part of the largest model's, so that small ones are not all noise.
            pushes = [model.push() for _ in range(max(1, min(20, 50_000_000 // count)))]
            updates[name].append(1e9 * statistics.median(push[0] for push in pushes) / count)
            wholes[name].append(1e9 * statistics.median(push[1] for push in pushes) / count)
    for model in models.values():
        model.close()
    found = []
    for what, figures in (("update", updates), ("push until applied", wholes)):
        best = min(figures, key=lambda name: statistics.median(figures[name][1:]))
        for name in cases:
            found.append(compared("flat", f"{what}: {name}", "ns/parameter", figures[name][1:], f"best: {best}",
                                  figures[best][1:], FLAT))  # fmt: skip
    return found
