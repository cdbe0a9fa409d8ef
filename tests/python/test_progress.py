"""Progress bars of what takes long: how much, how fast, how long still; and nothing of them where nobody looks."""

import re
import subprocess

import numpy
import pytest
from conftest import DaemonProcess, on_terminal
from proxy import Proxy
from test_network import free_port

import emad

BAR = re.compile(r"\r\x1b\[K\[=*>? *\] +(\d+) %  (\S+ \S+) of (\S+ \S+)  \S+ \S+/s  \S+ \S+ left")
ELEMENTS = 4_000_000


@pytest.fixture
def slow(tmp_path):
    """A daemon whose disk is slow, and a slow way to it; a model of 15 MiB in it."""
    port = free_port()
    process = DaemonProcess(
        tmp_path, f"[checkpoint]\ncheckpoint-bandwidth=16M\n[network]\nlisten=tcp://127.0.0.1:{port}\nanonymous=push\n"
    )
    process.start()
    proxy = Proxy(port, pause_s=0.02)
    process.far = proxy.url
    with emad.Client(process.url) as client:
        tensors = {"w": numpy.arange(ELEMENTS, dtype=numpy.float32)}
        with client.trainer("net", tensors, profiles={"ema": "constant:decay=0.5"}) as trainer:
            trainer.push(1, tensors, wait=True)
    yield process
    proxy.close()
    process.kill()


def seen(printed: str) -> list:
    """The percentages that were shown; what is left on the screen is behind the last wipe."""
    bars = BAR.findall(printed)
    assert bars, printed
    assert all(whole.startswith("15.") for _, _, whole in bars)
    shares = [int(share) for share, _, _ in bars]
    assert any(earlier < later for earlier, later in zip(shares, shares[1:])), shares
    return shares


def test_a_checkpoint_shows_how_far_it_is(slow, emactl):
    printed, code = on_terminal(emactl, "--socket", slow.url, "checkpoint", "net")
    assert code == 0
    seen(printed)
    assert printed.rsplit("\r\x1b[K", 1)[-1] == "net is on disk as of step 1\r\n"


def test_all_checkpoints_together_are_one_bar(slow, emactl):
    printed, code = on_terminal(emactl, "--socket", slow.url, "checkpoint")
    assert code == 0
    seen(printed)
    assert printed.rsplit("\r\x1b[K", 1)[-1] == "all models are on disk\r\n"


def test_what_comes_over_a_network_shows_how_far_it_is(slow, emactl, tmp_path):
    file = tmp_path / "net.safetensors"
    printed, code = on_terminal(emactl, "--socket", slow.far, "export", "net", "-o", file, "--timeout", "60")
    assert code == 0
    seen(printed)
    assert printed.rsplit("\r\x1b[K", 1)[-1].startswith(f"{file}: ")
    for command in (["get", "net", "w"], ["diff", "net", file]):
        printed, code = on_terminal(emactl, "--socket", slow.far, *command, "--timeout", "60")
        assert code == 0
        seen(printed)


def test_an_import_over_a_network_shows_how_far_it_is(slow, emactl, tmp_path):
    file = tmp_path / "net.safetensors"
    subprocess.run([emactl, "--socket", slow.url, "export", "net", "-o", file], check=True, capture_output=True)
    printed, code = on_terminal(emactl, "--socket", slow.far, "import", "other", file, "--timeout", "60")
    assert code == 0, printed
    seen(printed)
    assert "other: 1 tensors" in printed.rsplit("\r\x1b[K", 1)[-1]


def test_nothing_is_drawn_where_it_is_not_wanted(slow, emactl):
    for options in (["--quiet"], ["--json"]):
        assert "\x1b" not in on_terminal(emactl, "--socket", slow.far, "get", "net", "w", *options)[0]
