"""
What downloads cost: how fast they are, and what updates lose meanwhile. The requests are made by wrk.
"""

import os
import re
import shutil
import socket
import subprocess
import sys
import threading
from typing import List

from stand import Daemon, Pushed, Row, compared, rounds, seconds_of, tensors

DOWNLOADS = 2  # at once


def rows(quick: bool) -> List[Row]:
    if not shutil.which("wrk"):
        print("bench: http: left out: wrk is not installed (Debian: wrk)", file=sys.stderr)
        return []
    count = (1 << 20) if quick else (1 << 26)
    with Daemon(http=True) as daemon:
        port = int(re.search(r"HTTP at 127\.0\.0\.1:(\d+)", daemon.log()).group(1))
        model = Pushed(daemon, "model", tensors(count, 100))
        model.push()
        daemon.wait_quiet()
        image = f"http://127.0.0.1:{port}/v1/models/model/p0.safetensors"
        found = download(quick, port, 4 * count) + beside(quick, model, image)
        found += small(quick, port)
        model.close()
    return found


def received(connection: socket.socket) -> int:
    buffer = bytearray(1 << 20)
    total = 0
    while count := connection.recv_into(buffer):
        total += count
    connection.close()
    return total


def download(quick: bool, port: int, byte_count: int) -> List[Row]:
    """One download, against sendfile of as many bytes."""

    def ours() -> None:
        connection = socket.create_connection(("127.0.0.1", port))
        connection.sendall(b"GET /v1/models/model/p0.safetensors HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        assert received(connection) >= byte_count

    memory = os.memfd_create("bench")
    os.posix_fallocate(memory, 0, byte_count)

    def send(listener: socket.socket) -> None:
        connection, _ = listener.accept()
        sent = 0
        while sent < byte_count:
            sent += os.sendfile(connection.fileno(), memory, sent, byte_count - sent)
        connection.close()

    def theirs() -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            sender = threading.Thread(target=send, args=[listener])
            sender.start()
            assert received(socket.create_connection(listener.getsockname())) == byte_count
            sender.join()

    ours_rates, theirs_rates = [], []
    for _ in rounds(2 if quick else 9, 30):
        ours_rates.append(byte_count / 1e9 / seconds_of(ours))
        theirs_rates.append(byte_count / 1e9 / seconds_of(theirs))
    os.close(memory)
    return [compared("http", f"download of {byte_count >> 20} MiB", "GB/s", ours_rates, "sendfile", theirs_rates)]


def beside(quick: bool, model: Pushed, url: str) -> List[Row]:
    """Updates while averages are downloaded without a pause, and alone."""
    busy, alone = [], []
    for _ in rounds(2 if quick else 9, 60):
        wrk = subprocess.Popen(
            ["wrk", "-t1", f"-c{DOWNLOADS}", "-d600s", url], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        busy.append([model.push() for _ in range(3)])
        wrk.kill()
        wrk.wait()
        alone.append([model.push() for _ in range(3)])
    found = []
    for index, what in enumerate(("update", "push until applied")):
        values, peers = ([1e3 * sorted(times[index] for times in each)[1] for each in side] for side in (busy, alone))
        found.append(compared("http", f"{what}, while {DOWNLOADS} downloads run", "ms", values, "alone", peers))
    return found


def small(quick: bool, port: int) -> List[Row]:
    found = []
    for path in ("/healthz", "/v1/models", "/metrics"):
        done = subprocess.run(
            ["wrk", "-t1", "-c8", "-d1s" if quick else "-d3s", f"http://127.0.0.1:{port}{path}"],
            capture_output=True, text=True, check=True,
        )
        rate = float(re.search(r"Requests/sec:\s*([0-9.]+)", done.stdout).group(1))
        found.append(Row("http", f"requests of {path}, 8 connections", "1/s", rate, rounds=1))
    return found
