"""emactl watch and Client.watch, with trainers, evaluations and daemons that come and go."""

import json
import os
import select
import signal
import subprocess
import threading
import time

import pytest

numpy = pytest.importorskip("numpy")
emad = pytest.importorskip("emad")

NO_INPUT = 66


class Trainer:
    """A model that is trained step by step."""

    def __init__(self, url, name, profiles=None):
        self.client = emad.Client(url)
        self.state = {"w": numpy.zeros(16, numpy.float32)}
        self.trainer = self.client.trainer(name, self.state, profiles=profiles or {"ema": "constant:decay=0.5"})

    def push(self, step):
        self.state["w"] = self.state["w"] + 1
        self.trainer.push(step, self.state, wait=True)

    def close(self):
        self.trainer.close()
        self.client.close()


@pytest.fixture
def trainer(daemon, name):
    opened = Trainer(daemon.url, name)
    yield opened
    opened.close()


class Watch:
    """emactl watch with its lines as they come."""

    def __init__(self, emactl, url, *arguments):
        self.process = subprocess.Popen(
            [emactl, "watch", "--socket", url, *map(str, arguments)], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            bufsize=0, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        self.read = b""

    def line(self, seconds=30):
        while b"\n" not in self.read:
            assert select.select([self.process.stdout], [], [], seconds)[0], "no line came"
            chunk = os.read(self.process.stdout.fileno(), 65536)
            assert chunk, f"it ended: {self.process.stderr.read()!r}"
            self.read += chunk
        line, self.read = self.read.split(b"\n", 1)
        return line.decode()

    def object(self):
        return json.loads(self.line())

    def end(self, number=None):
        if number is not None:
            self.process.send_signal(number)
        rest, errors = self.process.communicate(timeout=30)
        return self.process.returncode, (self.read + rest).decode(), errors.decode()


@pytest.fixture
def watch(emactl, daemon):
    running = []

    def start(*arguments, url=daemon.url):
        running.append(Watch(emactl, url, *arguments))
        return running[-1]

    yield start
    for each in running:
        each.process.kill()
        each.process.communicate()


def test_each_version_is_a_line_as_it_comes(watch, trainer, name):
    trainer.push(1)
    seen = watch(name, "--json")
    assert seen.object()["step"] == 1
    for step in (2, 3, 7):
        trainer.push(step)
        line = seen.object()
        assert (line["event"], line["model"], line["profile"]) == ("version", name, "ema")
        assert (line["step"], line["decay"], line["missed"]) == (step, 0.5 ** (4 if step == 7 else 1), 0)
        assert line["lag"] == 0 and line["drift"] > 0
    code, rest, errors = seen.end(signal.SIGINT)
    assert (code, rest, errors) == (-signal.SIGINT, "", "")


def test_a_person_gets_a_table(watch, trainer, name):
    trainer.push(1)
    seen = watch(name, "--until-step", 2)
    assert seen.line().split() == ["STEP", "VERSION", "UPDATES", "DECAY", "DRIFT", "LAG", "MISSED"]
    assert seen.line().split()[:4] == ["1", "2", "1", "0.5"]
    trainer.push(2)
    assert seen.line().split()[0] == "2"
    assert seen.end() == (0, "", "")


def test_what_is_not_there_is_told_at_once(watch, trainer, name):
    assert watch("no/such").end()[0] == NO_INPUT
    assert watch(f"{name}:nosuch").end()[0] == NO_INPUT
    code, _, errors = watch(name, "--exec", "true", "--dir", "/nonexistent").end()
    assert code == NO_INPUT and "/nonexistent is no directory" in errors


def test_a_model_that_is_removed_ends_it(watch, trainer, name):
    trainer.push(1)
    seen = watch(name, "--json")
    seen.object()
    trainer.client.remove(name)
    code, _, errors = seen.end()
    assert code == NO_INPUT and "has been removed" in errors or "no-model" in errors


def test_evaluations_run_at_their_steps_with_a_file(watch, trainer, name, tmp_path):
    """Each finds its values in a file of its own, and in its environment."""
    trainer.push(1)
    record = tmp_path / "it's a record"
    command = f"printf '%s ' {{step}} {{version}} {{model}} {{profile}} \"$EMAD_STEP\" >>'{tmp_path}'/\"it's a record\"; ls {{file}}"
    directory = tmp_path / "$(touch oops) 'd"
    directory.mkdir()
    seen = watch(name, "--every", 10, "--exec", command, "--dir", directory, "--keep", 2, "--json", "-u", 35)
    for step in (9, 10, 11, 25, 40):
        if step in (10, 25, 40):
            trainer.push(step)
            line = seen.object()
            assert (line["event"], line["step"], line["exit"], line["signal"]) == ("run", step, 0, None)
            assert os.path.dirname(line["file"]) == str(directory) and line["elapsed_us"] > 0
        else:
            trainer.push(step)
    code, rest, errors = seen.end()
    assert (code, rest) == (0, "") and "3 runs" not in errors
    words = record.read_text().split()
    assert words[:5] == ["10", "4", name, "ema", "10"] and words[5::5] == ["25", "40"]
    assert sorted(os.listdir(directory)) == [f"{name}.ema.{step:020}.safetensors" for step in (25, 40)]
    assert sorted(os.listdir(tmp_path)) == sorted([record.name, directory.name])


def test_the_file_is_the_average_of_its_step(watch, trainer, name, tmp_path, run_emactl):
    trainer.push(1)
    seen = watch(name, "--exec", "true", "--dir", tmp_path, "--until-step", 1, "--json")
    path = seen.object()["file"]
    assert run_emactl("diff", path, name).returncode == 0
    document = json.loads(run_emactl("verify", path, "--json").stdout)
    assert document["is_good"] and document["metadata"]["emad.step"] == "1"


@pytest.fixture
def run_emactl(emactl, daemon):
    def run(*arguments):
        return subprocess.run(
            [emactl, "--socket", daemon.url, *map(str, arguments)], capture_output=True, text=True, timeout=60,
            check=False, stdin=subprocess.DEVNULL,
        )  # fmt: skip

    return run


def test_never_two_at_once_and_the_newest_due_one_next(watch, trainer, name, tmp_path):
    """Every run holds a lock; while the first is kept waiting, versions pass."""
    trainer.push(1)
    fifo = tmp_path / "go"
    os.mkfifo(fifo)
    command = f"mkdir '{tmp_path}/lock' || exit 9; echo begun; read x <'{fifo}'; rmdir '{tmp_path}/lock'"
    seen = watch(name, "--exec", command, "--dir", tmp_path, "--until-step", 6)
    assert seen.line() == "begun"
    for step in range(2, 7):
        trainer.push(step)
    fifo.write_text("go\n")
    assert seen.line().startswith("step 1, version 2: exit 0 after ")
    assert seen.line() == "begun"
    fifo.write_text("go\n")
    assert seen.line().startswith("step 6, version 7: exit 0 after ")
    assert seen.end()[0] == 0


def test_failures_are_told_and_do_not_stop_it(watch, trainer, name, tmp_path):
    trainer.push(1)
    seen = watch(name, "--exec", "kill -9 $$", "--dir", tmp_path, "--json", "--until-step", 2)
    line = seen.object()
    assert (line["exit"], line["signal"]) == (None, signal.SIGKILL)
    trainer.push(2)
    assert seen.object()["step"] == 2
    assert seen.end()[0] == 1
    seen = watch(name, "--exec", "exit 7", "--dir", tmp_path, "--stop-on-error")
    assert seen.line().startswith("step 2, version 3: exit 7 after ")
    code, _, errors = seen.end()
    assert code == 1 and "1 runs, 1 of them failed" in errors


@pytest.mark.parametrize("times", [1, 2])
def test_an_interrupt_reaches_the_command_which_is_waited_for(watch, trainer, name, tmp_path, times):
    """Twice: one that does not want to end is killed."""
    trainer.push(1)
    trap = "trap 'echo told; exit 5' INT" if times == 1 else "trap '' INT"
    seen = watch(name, "--exec", f"{trap}; echo begun; while :; do sleep 0.1; done", "--dir", tmp_path)
    assert seen.line() == "begun"
    for _ in range(times):
        seen.process.send_signal(signal.SIGINT)
        time.sleep(0.3)  # two signals at once are one
    code, rest, errors = seen.end()
    assert code == -signal.SIGINT
    expected = "told\nstep 1, version 2: exit 5 after " if times == 1 else "step 1, version 2: signal 9 (Killed) after "
    assert rest.startswith(expected), rest


def test_a_command_reads_nothing_and_its_pipes_end_it(watch, trainer, name, tmp_path):
    trainer.push(1)
    seen = watch(name, "--exec", "cat; yes | head -1", "--dir", tmp_path, "--until-step", 1)
    assert seen.line() == "y"
    assert seen.end()[0] == 0


def test_a_reader_that_goes_away_ends_it(watch, trainer, name):
    trainer.push(1)
    seen = watch(name)
    seen.line()
    seen.process.stdout.close()
    for step in (2, 3):
        trainer.push(step)
    assert seen.process.wait(30) == 0


def test_it_outlives_the_daemon(watch, own_daemon, name):
    """A restart, after which the trainer brings the model back."""
    training = Trainer(own_daemon.url, name)
    training.push(1)
    seen = watch(name, "--json", url=own_daemon.url)
    assert seen.object()["step"] == 1
    training.close()
    own_daemon.kill()
    own_daemon.start(state="")
    training = Trainer(own_daemon.url, name)
    for step in range(2, 4):
        training.push(step)
    lines = [seen.object()]
    while lines[-1]["step"] < 3:
        lines.append(seen.object())
    training.close()
    assert seen.end(signal.SIGTERM)[0] == -signal.SIGTERM


# ---- Python -------------------------------------------------------------------------------------------------------


def test_python_yields_views_of_what_is_due(daemon, trainer, name):
    trainer.push(1)
    with emad.Client(daemon.url) as client:
        seen = []
        views = client.watch(name, every=10, until_step=35)
        for step in (5, 10, 20, 35):
            trainer.push(step)
            if step >= 10:
                view = next(views)
                seen.append((view.step, float(view["w"][0])))
                view.check()
        assert [step for step, _ in seen] == [10, 20, 35]
        assert seen[0][1] < seen[1][1] < seen[2][1]
        with pytest.raises(StopIteration):
            next(views)


def test_python_closes_each_view(daemon, trainer, name):
    trainer.push(1)
    with emad.Client(daemon.url) as client:
        for view in client.watch(name, until_step=1):
            kept = view
        with pytest.raises(emad.ClosedError):
            kept.check()
        for view in client.watch(name):
            kept = view
            break
        del view
        with pytest.raises(emad.ClosedError):
            kept.check()


def test_python_waits_for_a_version_in_another_thread(daemon, trainer, name):
    trainer.push(1)
    with emad.Client(daemon.url) as client:
        views = client.watch(name)
        assert next(views).step == 1
        timer = threading.Timer(0.2, lambda: trainer.push(2))
        timer.start()
        assert next(views).step == 2
        timer.join()


def test_python_gives_up_when_it_is_told_to(daemon, trainer, name):
    trainer.push(1)
    with emad.Client(daemon.url) as client:
        with pytest.raises(emad.NoModelError):
            next(client.watch("no/such"))
        with pytest.raises(ValueError):
            client.watch(name, every=0)
        views = client.watch(name, timeout=0.3)
        next(views)
        with pytest.raises(emad.TimeoutError):
            next(views)


def test_python_outlives_the_daemon_and_tells_a_removal(own_daemon, name):
    training = Trainer(own_daemon.url, name)
    training.push(1)
    with emad.Client(own_daemon.url) as client:
        views = client.watch(name, timeout=60)
        assert next(views).step == 1
        training.close()
        own_daemon.kill()
        own_daemon.start(state="")

        def train():
            again = Trainer(own_daemon.url, name)
            for step in range(2, 5):
                again.push(step)
            again.close()

        timer = threading.Timer(0.3, train)
        timer.start()
        while (view := next(views)).step < 4:
            pass
        timer.join()
        view.check()
        client.remove(name)
        with pytest.raises(emad.NoModelError):
            next(views)


def test_python_notices_that_training_went_back(daemon, trainer, name, monkeypatch):
    from emad import _watch

    monkeypatch.setattr(_watch, "SLICE_SECONDS", 0.2)
    trainer.push(10)
    trainer.push(20)
    with emad.Client(daemon.url) as client:
        views = client.watch(name)
        assert next(views).step == 20
        trainer.trainer.close()
        trainer.trainer = trainer.client.trainer(
            name, trainer.state, profiles={"ema": "constant:decay=0.5"}, start_step=11, rewind="continue"
        )
        trainer.push(12)
        assert next(views).step == 12
