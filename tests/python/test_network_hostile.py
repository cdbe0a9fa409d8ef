"""Peers on the network that are slow, greedy, deaf or of another protocol: they are ended, and nobody else notices."""

import contextlib
import os
import random
import resource
import socket
import struct
import threading
import time

import numpy as np
import pytest
from certificates import Authority
from conftest import Web, port_of
from test_network import free_port, running, works
from wire import BODY_MAX, HANDSHAKE, HEADER_MAX, Peer, frame, message, pack

import emad

MEBI = 1 << 20
CHUNK = MEBI
HALF = {"ema": "constant:decay=0.5"}
BUSY = -10013


class Open:
    """A daemon with every kind of listener."""

    def __init__(self, directory, daemon, ports, authority):
        self.daemon, self.authority = daemon, authority
        self.plain, self.secret = (("127.0.0.1", port) for port in ports)
        self.url = f"tcp://127.0.0.1:{ports[0]}"
        self.web = Web(daemon)

    def counter(self, name):
        """As Prometheus gets it."""
        text = self.web.request("/metrics").text.decode()
        return next(int(line.split()[1]) for line in text.splitlines() if line.startswith(f"emad_{name}_total "))

    def memory_kibibytes(self, what):
        with open(f"/proc/{self.daemon.process.pid}/status") as status:
            return next(int(line.split()[1]) for line in status if line.startswith(f"{what}:"))

    def sockets(self):
        folder = f"/proc/{self.daemon.process.pid}/fd"
        found = 0
        for name in os.listdir(folder):
            try:
                found += os.readlink(f"{folder}/{name}").startswith("socket:")
            except FileNotFoundError:
                pass
        return found


@pytest.fixture
def opened(tmp_path, request):
    authority = Authority(tmp_path / "authority")
    certificate, key = authority.sign("daemon")
    ports = free_port(), free_port()
    settings = (
        f"[network]\nlisten=tcp://127.0.0.1:{ports[0]} tls+tcp://127.0.0.1:{ports[1]}\nanonymous=push\n"
        f"tls-certificate={certificate}\ntls-key={key}\n{request.param.get('network', '')}"
        f"[http]\nhttp-listen=127.0.0.1:0\nhttp-timeout=1s\n[limits]\n{request.param['limits']}"
    )
    with running(tmp_path / "run", settings) as daemon:
        yield Open(tmp_path, daemon, ports, authority.certificate)
        assert daemon.process.poll() is None, daemon.log()


class Service:
    """Others, who want to be served meanwhile: on this host, over the network, and by HTTP."""

    def __init__(self, opened):
        self.opened, self.calls, self.longest, self.error = opened, 0, 0.0, None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self):
        values = {"w": np.ones(3 * CHUNK // 4, np.float32)}  # three chunks
        try:
            with emad.Client(self.opened.daemon.url, 20) as local, emad.Client(self.opened.url, 20) as remote:
                with local.trainer("near", values, profiles=HALF) as near, remote.trainer("far", values, profiles=HALF) as far:
                    step = 0
                    while not self._stop.is_set():
                        step += 1
                        begun = time.monotonic()
                        near.push(step, values, wait=True)
                        far.push(step, values, wait=True)
                        remote.view("far").close()
                        assert self.opened.web.request("/readyz").status == 200
                        self.longest = max(self.longest, time.monotonic() - begun)
                        self.calls += 1
        except BaseException as error:  # noqa: B036
            self.error = error

    def __enter__(self):
        self._thread.start()
        return self

    def served(self):
        """Waits until it has been once."""
        due = time.monotonic() + 30
        while self.calls == 0 and self.error is None and time.monotonic() < due:
            time.sleep(0.01)

    def __exit__(self, *_):
        self.served()
        self._stop.set()
        self._thread.join()
        assert self.error is None, self.error
        assert self.calls > 0


LIMITS = "receiving-max=64M\nreplies-max=32M\n"


@pytest.mark.parametrize(
    "opened", [{"limits": LIMITS + "connections-max=300\nmessage-timeout=6s\n"}], indirect=True
)
def test_two_hundred_peers_at_the_limit_fit_into_little_memory(opened):
    """Each has the largest header and half of the largest body on the way. The daemon has 192 MiB of addresses for that."""
    with Service(opened) as service:
        service.served()
        before = opened.memory_kibibytes("VmRSS")
        most = opened.memory_kibibytes("VmSize") * 1024 + 192 * MEBI
        resource.prlimit(opened.daemon.process.pid, resource.RLIMIT_AS, (most, most))
        calls = service.calls
        head = message("hello", agent="")
        head = message("hello", agent="a" * (HEADER_MAX + 4 - len(head)))
        assert len(head) == HEADER_MAX + 4
        half = bytes(BODY_MAX // 2)
        peers = [Peer(opened.plain) for _ in range(200)]
        left = {}
        for peer in peers:
            peer.socket.sendall(frame(head, announced_bytes=len(head) + BODY_MAX))
            peer.socket.setblocking(False)
            left[peer] = memoryview(half)
        begun = time.monotonic()
        # On a busy machine it takes longer until somebody's body is well on its way.
        while time.monotonic() < begun + 1.5 or (
            min(map(len, left.values())) >= len(half) - 8 * MEBI and time.monotonic() < begun + 5
        ):
            for peer in peers:
                try:
                    left[peer] = left[peer][peer.socket.send(left[peer]) :]
                except OSError:
                    pass
        assert opened.memory_kibibytes("VmRSS") - before < 160 * 1024
        assert min(map(len, left.values())) < len(half) - 8 * MEBI, "nobody's body was taken"
        # Whoever found no room in time is told the limit, and both numbers.
        refused = 0
        due = time.monotonic() + 15
        for peer in peers:
            peer.socket.settimeout(max(0.1, due - time.monotonic()))
            try:
                answer = peer.hear()
            except ConnectionError:
                continue  # it found room, at once or late, and was ended at the deadline of its body
            assert answer["status"] == BUSY
            assert f"a message body of {BODY_MAX} bytes does not fit now" in answer["error"]
            assert f"of {64 * MEBI} bytes (receiving-max) are in use for other bodies" in answer["error"]
            refused += 1
            peer.close()
        assert refused >= 50
        assert service.calls > calls
    assert service.longest < 15
    assert opened.memory_kibibytes("VmHWM") - before < 160 * 1024
    works(emad.Client(opened.url, 20))


def manifest(count):
    """Of one tensor of so many float32."""
    return b"\x91\x95\xa1w\x01\x00\x91" + pack(count) + b"\xc0"


class Trainer(Peer):
    """One that has a stage, and sends chunks by hand."""

    def __init__(self, address, count):
        super().__init__(address)
        self.who = {"model": "slow", "rank": 0, "client": 99}
        answer = self.ask("register", manifest(count), sequence=1, world=1, profiles=["ema=constant:decay=0.5"], **self.who)
        assert answer["status"] == 0, answer
        self.who["epoch"] = answer["epoch"]
        assert self.ask("claim", **self.who)["status"] == 0
        self.stage = self.ask("reserve", model="slow", rank=0, epoch=self.who["epoch"])["stage"]

    def chunk(self, body):
        return message("chunk", body, sequence=2, stage=self.stage, offset=0, **self.who)


@pytest.mark.parametrize(
    "opened", [{"limits": "handshake-timeout=1s\nmessage-timeout=1s\n", "network": "keepalive=60s\n"}], indirect=True
)
def test_peers_that_are_slow_are_ended_at_their_deadlines(opened):
    """No handshake, half of one, silence in TLS and behind it, half a body, half a chunk; and HTTP byte by byte."""
    body = message("list", agent="a" * 1000)
    count = CHUNK // 4
    values = np.arange(count, dtype=np.float32).tobytes()
    with Service(opened) as service:
        before, timeouts = opened.counter("violations"), opened.counter("http_timeouts")
        trainer = Trainer(opened.plain, count)
        trainer.socket.sendall(frame(trainer.chunk(values))[: CHUNK // 2])
        slow = {
            "no handshake": Peer(opened.plain, greets=False),
            "half a handshake": Peer(opened.plain, greets=False),
            "silence instead of TLS": Peer(opened.secret, greets=False),
            "silence behind TLS": Peer(opened.secret, greets=False, authority=opened.authority),
            "half a message": Peer(opened.plain),
            "half a message behind TLS": Peer(opened.secret, authority=opened.authority),
            "half a chunk": trainer,
        }
        slow["half a handshake"].socket.sendall(HANDSHAKE[:4])
        for what in ("half a message", "half a message behind TLS"):
            slow[what].socket.sendall(frame(body)[:500])
        page = opened.web.connect()
        page.settimeout(0)
        begun, ended = time.monotonic(), {}
        request = iter(b"GET / HTTP/1.1\r\nX: " + b"y" * 10000)
        # A byte now and then, so that silence alone would end nobody.
        dribbling = ("half a message", "half a message behind TLS")
        while len(ended) < len(slow) + 1:
            assert time.monotonic() - begun < 20, slow.keys() - ended.keys()
            for what, peer in slow.items():
                if what not in ended and peer.closes(0.01):
                    ended[what] = time.monotonic() - begun
                elif what in dribbling and what not in ended:
                    with contextlib.suppress(OSError):
                        peer.socket.sendall(b"a")
            try:
                page.send(bytes([next(request)]))
                if page.recv(100) == b"":
                    ended["http"] = time.monotonic() - begun
            except BlockingIOError:
                pass
            except OSError:
                ended["http"] = time.monotonic() - begun
            time.sleep(0.05)
        assert all(seconds < 15 for seconds in ended.values()), ended
        assert all(seconds > 0.7 for seconds in ended.values()), ended
        assert opened.counter("violations") - before >= len(slow)
        assert opened.counter("http_timeouts") > timeouts
    assert service.longest < 15
    # The stage that half a chunk lay in takes the whole one, on another connection.
    again = Peer(opened.plain)
    again.socket.sendall(frame(trainer.chunk(values)))
    assert again.hear()["missing"] == len(values)
    pushed = again.ask("push", sequence=2, step=1, stage=trainer.stage, chunked=True, wait=True, **trainer.who)
    assert pushed["status"] == 0 and pushed["outcome"] == "started", pushed
    with emad.Client(opened.url) as client, client.view("slow") as view:
        assert view["w"].tobytes() == values


@pytest.mark.parametrize(
    "opened", [{"limits": LIMITS + "lease-min=500ms\nmessage-timeout=3s\n", "network": "keepalive=60s\n"}], indirect=True
)
def test_readers_that_never_read_hold_nothing_up(opened):
    """Fifty ask for all of an image, again and again, and never read an answer; four do so by HTTP."""
    count = 4 * MEBI
    with emad.Client(opened.daemon.url) as local:
        with local.trainer("net", {"w": np.zeros(count, np.float32)}, profiles=HALF) as trainer:
            trainer.push(1, {"w": np.ones(count, np.float32)}, wait=True)
            with Service(opened) as service:
                service.served()
                before, violations = opened.memory_kibibytes("VmRSS"), opened.counter("violations")
                readers = [Peer(opened.plain, receive_bytes=4096) for _ in range(50)]
                for number, reader in enumerate(readers, 1):
                    assert reader.ask("lease", model="net", lease=number)["status"] == 0
                    fetches = b"".join(
                        frame(message("fetch", lease=number, offset=i % 16 * MEBI, count=MEBI)) for i in range(200)
                    )
                    reader.socket.setblocking(False)
                    try:
                        reader.socket.send(fetches)
                    except BlockingIOError:
                        pass
                loads = [opened.web.connect() for _ in range(4)]
                for load in loads:
                    load.sendall(b"GET /v1/models/net/ema.safetensors HTTP/1.1\r\nHost: localhost\r\n\r\n")
                assert sum(row["leases"] for row in local.show("net")["slots"]) >= 50
                trainer.push(2, {"w": np.full(count, 2, np.float32)}, wait=True)
                # The last slot that is free: then updates need the memory, and get it when lease-min is over.
                other = Peer(opened.plain)
                assert other.ask("lease", model="net", lease=1000)["step"] == 2
                begun = time.monotonic()
                for step in range(3, 12):
                    trainer.push(step, {"w": np.full(count, step, np.float32)}, wait=True)
                assert time.monotonic() - begun < 20
                gone = 54 - sum(row["leases"] for row in local.show("net")["slots"])
                assert gone >= 50 and opened.counter("leases_revoked") + opened.counter("downloads_cut") > 0
                other.close()
                assert opened.memory_kibibytes("VmHWM") - before < 128 * 1024
                # Those whose answers have filled replies-max are ended at the deadline; the others got small refusals.
                due = time.monotonic() + 20
                while opened.counter("violations") - violations < 25:
                    assert time.monotonic() < due, opened.counter("violations") - violations
                    time.sleep(0.1)
                for peer in (*readers, *loads):
                    peer.close()
            assert service.longest < 15
            with local.view("net") as view:
                assert view.step == 11


@pytest.mark.parametrize("opened", [{"limits": "handshake-timeout=1s\n"}], indirect=True)
def test_storms_of_resets_and_of_other_protocols_pass(opened):
    seed = int(os.environ.get("EMAD_TEST_SEED", random.randrange(1 << 32)))
    print(f"EMAD_TEST_SEED={seed}")
    chance = random.Random(seed)
    said = [
        b"", b"\0SP", HANDSHAKE, HANDSHAKE + frame(message("list")), HANDSHAKE + frame(message("list"))[:30],
        b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", b"GET /metrics HTTP/1.1\r\n", b"SSH-2.0-OpenSSH_9.2\r\n",
        bytes.fromhex("16030100a5010000a10303") + bytes(64), b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", bytes(4096), b"\xff" * 64,
    ]
    address_of_page = ("127.0.0.1", port_of(opened.daemon))
    works(emad.Client(opened.url), "before")
    before = opened.sockets()
    with Service(opened) as service:
        for number in range(600):
            address = (opened.plain, opened.secret, address_of_page)[number % 3]
            with socket.create_connection(address, 10) as peer:
                try:
                    peer.sendall(chance.choice(said))
                    if chance.randrange(3):
                        # Closing it sends a reset.
                        peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                except OSError:
                    pass
    assert service.longest < 15
    due = time.monotonic() + 20
    while opened.sockets() > before:
        assert time.monotonic() < due
        time.sleep(0.05)
    works(emad.Client(opened.url), "after")
    works(emad.Client(f"tls+tcp://localhost:{opened.secret[1]}", tls_ca=opened.authority), "secret")
