"""Trainers and readers that share no memory with the daemon: tcp, TLS, tokens."""

import contextlib
import os
import re
import signal
import socket
import subprocess
import time

import numpy as np
import pytest
from certificates import Authority
from conftest import BUILD, DaemonProcess

import emad

HALF = {"ema": "constant:decay=0.5"}
CHUNK = 1 << 20
TOKENS = {
    "reader": ("reader-" + "r" * 32, "read"),
    "trainer": ("trainer-" + "t" * 32, "push"),
    "operator": ("operator-" + "o" * 32, "admin"),
}


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


def values(count, step):
    """A snapshot whose every element depends on the step."""
    return {
        "w": np.random.default_rng(step).standard_normal(count, np.float32),
        "n": np.full(3, step, np.int64),
    }


@contextlib.contextmanager
def running(directory, settings):
    directory.mkdir()
    daemon = DaemonProcess(directory, settings)
    daemon.start()
    try:
        yield daemon
    finally:
        daemon.kill()


@pytest.fixture
def plain(tmp_path):
    """A daemon at a tcp address of this host where everybody may push."""
    port = free_port()
    with running(tmp_path / "run", f"[network]\nlisten=tcp://127.0.0.1:{port}\nanonymous=push\n") as daemon:
        daemon.tcp = f"tcp://127.0.0.1:{port}"
        yield daemon


@pytest.fixture
def token_files(tmp_path):
    """The daemon's file, and a file for each client."""
    files = {name: tmp_path / f"{name}.token" for name in TOKENS}
    for name, (token, _) in TOKENS.items():
        files[name].write_text(token + "\n")
    files["daemon"] = tmp_path / "tokens"
    lines = (f"{name} {token} {kind}\n" for name, (token, kind) in TOKENS.items())
    files["daemon"].write_text("# who is who\n\n" + "".join(lines))
    files["daemon"].chmod(0o600)
    return files


def logged(daemon, text, count=1):
    """Waits for a line of the log: it is written beside the answers, by another thread."""
    due = time.monotonic() + 30
    while daemon.log().count(text) < count:
        assert time.monotonic() < due, daemon.log()
        time.sleep(0.01)


def reload(daemon, said="was read again"):
    """Has it read its files again, and waits until it has said so."""
    before = len(daemon.log())
    daemon.signal(signal.SIGHUP)
    due = time.monotonic() + 30
    while said not in daemon.log()[before:]:
        assert time.monotonic() < due
        time.sleep(0.01)


def refused(daemon):
    """What the daemon says when it does not start."""
    with pytest.raises(RuntimeError) as error:
        daemon.start()
    return str(error.value)


@pytest.mark.parametrize("count", [0, 1, CHUNK // 4 - 7, CHUNK // 4 - 6, CHUNK // 4 - 5, 3 * CHUNK // 4, 2_000_003])
def test_the_same_pushes_make_the_same_average_to_the_last_bit(plain, count):
    local, remote = emad.Client(plain.url), emad.Client(plain.tcp)
    with local.trainer("here", values(count, 0), profiles=HALF) as here:
        with remote.trainer("there", values(count, 0), profiles=HALF) as there:
            for step in range(1, 5):
                here.push(step, values(count, step), wait=True)
                there.push(step, values(count, step), wait=True)
            with local.view("here") as expected, remote.view("there") as copied, local.view("there") as shared:
                assert (copied.step, copied.updates, copied.decay) == (4, expected.updates, expected.decay)
                assert copied.published == shared.published
                assert copied.version == shared.version
                for name in ("w", "n"):
                    assert copied[name].tobytes() == expected[name].tobytes()
                    assert shared[name].tobytes() == expected[name].tobytes()


def test_a_copied_view_outlives_its_model_and_its_daemon(plain):
    with emad.Client(plain.tcp) as client:
        with client.trainer("net", values(50, 0), profiles=HALF) as trainer:
            trainer.push(1, values(50, 1), wait=True)
        view = client.view("net")
        with emad.Client(plain.url) as local:
            with local.view("net") as shared:
                expected = shared["w"].tobytes()
            local.remove("net")
        plain.kill()
        assert view["w"].tobytes() == expected
        view.close()


def test_the_pusher_s_thread_sends_in_the_background(plain):
    with emad.Client(plain.tcp) as client, client.trainer("net", values(700_000, 0), profiles=HALF) as trainer:
        for step in range(1, 7):
            trainer.push(step, values(700_000, step))
        trainer.flush()
        with client.view("net", min_step=6) as view:
            assert view.step == 6
            assert view["n"].tolist() == [6, 6, 6]


def test_a_daemon_that_ends_between_two_pushes_is_found_again(plain):
    with emad.Client(plain.tcp) as client, client.trainer("net", values(400_000, 0), profiles=HALF) as trainer:
        trainer.push(1, values(400_000, 1), wait=True)
        plain.kill()
        plain.start()
        trainer.push(2, values(400_000, 2), wait=True)
        with client.view("net") as view:
            assert view["n"].tolist() == [2, 2, 2]


def test_admin_is_left_to_nobody_without_a_token(plain):
    with emad.Client(plain.tcp) as client, client.trainer("net", values(5, 0), profiles=HALF):
        with pytest.raises(emad.SystemCallError, match="without a token may not admin"):
            client.remove("net")


def test_other_hosts_are_not_listened_to_without_tokens(tmp_path):
    directory = tmp_path / "run"
    directory.mkdir()
    daemon = DaemonProcess(directory, f"[network]\nlisten=tcp://0.0.0.0:{free_port()}\n")
    assert "without token-file= nobody could tell who they are" in refused(daemon)


@pytest.mark.parametrize("anonymous", ["none", "read", "push"])
def test_what_who_may(tmp_path, token_files, anonymous):
    """Every client against every class of requests."""
    port = free_port()
    settings = f"[network]\nlisten=tcp://127.0.0.1:{port}\ntoken-file={token_files['daemon']}\nanonymous={anonymous}\n"
    classes = ["none", "read", "push", "admin"]
    with running(tmp_path / "run", settings) as daemon, emad.Client(daemon.url) as owner:
        for who in (None, *TOKENS):
            granted = classes.index(anonymous)
            if who:
                granted = max(granted, classes.index(TOKENS[who][1]))
            with owner.trainer("net", values(5, 0), profiles=HALF) as trainer:
                trainer.push(1, values(5, 1), wait=True)
            with emad.Client(f"tcp://127.0.0.1:{port}", token_file=token_files[who] if who else None) as client:
                asks = {
                    "read": lambda: client.view("net").close(),
                    "push": lambda: client.trainer("mine", values(5, 0), profiles=HALF).close(),
                    "admin": lambda: client.remove("net"),
                }
                for kind, ask in asks.items():
                    if classes.index(kind) <= granted:
                        ask()
                        continue
                    with pytest.raises(emad.SystemCallError, match=f"may not {kind}"):
                        ask()


def test_an_unknown_token_is_refused_at_once(tmp_path, token_files):
    port = free_port()
    wrong = tmp_path / "wrong"
    wrong.write_text(TOKENS["operator"][0][:-1] + "x")
    settings = f"[network]\nlisten=tcp://127.0.0.1:{port}\ntoken-file={token_files['daemon']}\n"
    with running(tmp_path / "run", settings):
        with pytest.raises(emad.SystemCallError, match="does not know this token"):
            emad.Client(f"tcp://127.0.0.1:{port}", token_file=wrong)


@pytest.mark.parametrize(
    "text, mode, complaint",
    [
        ("a " + "x" * 15 + " read", 0o600, "line 1: the token of 'a' has 15 bytes"),
        ("a " + "x" * 16 + " all", 0o600, "line 1: the class of 'a' is 'all'"),
        ("\na b", 0o600, "line 2: NAME TOKEN CLASS is wanted"),
        ("a " + "x" * 16 + " read", 0o604, "can be read or written by everybody"),
        ("", 0o600, "is empty"),
    ],
)
def test_a_token_file_that_is_wrong_ends_the_start(tmp_path, text, mode, complaint):
    directory = tmp_path / "run"
    directory.mkdir()
    tokens = tmp_path / "tokens"
    tokens.write_text(text)
    tokens.chmod(mode)
    settings = f"[network]\nlisten=tcp://127.0.0.1:{free_port()}\ntoken-file={tokens}\n"
    assert complaint in refused(DaemonProcess(directory, settings))


class Secure:
    """A daemon at a tls+tcp address, with tokens, and the files that clients need."""

    def __init__(self, tmp_path, token_files, mutual=False):
        self.authority = Authority(tmp_path / "authority")
        self.other = Authority(tmp_path / "other")
        self.certificate, self.key = self.authority.sign("daemon")
        self.tokens = token_files
        self.port = free_port()
        self.url = f"tls+tcp://localhost:{self.port}"
        ca = f"tls-ca={self.authority.certificate}\n" if mutual else ""
        self.settings = (
            f"[network]\nlisten=tls+tcp://0.0.0.0:{self.port}\ntoken-file={token_files['daemon']}\n"
            f"tls-certificate={self.certificate}\ntls-key={self.key}\n{ca}"
        )

    def client(self, **options):
        options = {"tls_ca": self.authority.certificate, "token_file": self.tokens["trainer"], **options}
        return emad.Client(self.url, options.pop("timeout", 10), **options)


def works(client, name="net"):
    with client, client.trainer(name, values(600_000, 0), profiles=HALF) as trainer:
        trainer.push(1, values(600_000, 1), wait=True)
        trainer.push(2, values(600_000, 2), wait=True)
        with client.view(name) as view:
            assert view["n"].tolist() == [2, 2, 2]


def test_everything_goes_over_tls(tmp_path, token_files):
    secure = Secure(tmp_path, token_files)
    with running(tmp_path / "run", secure.settings):
        works(secure.client())


@pytest.mark.alone
def test_small_requests_do_not_wait_for_tcp_s_timers(tmp_path, token_files):
    """Parts of a request that wait for an acknowledgement of those before them cost 40 ms each time."""
    secure = Secure(tmp_path, token_files)
    with running(tmp_path / "run", secure.settings), secure.client() as client:
        took = []
        for _ in range(20):
            begun = time.monotonic()
            client.ping()
            took.append(time.monotonic() - begun)
        assert sorted(took)[10] < 0.02, took


def test_a_daemon_s_certificate_must_be_right(tmp_path, token_files):
    secure = Secure(tmp_path, token_files)
    with running(tmp_path / "run", secure.settings) as daemon:
        for number, wrong in enumerate(({"tls_ca": secure.other.certificate}, {"tls_name": "elsewhere"}), 1):
            with pytest.raises(emad.SystemCallError, match="TLS came to nothing.*EMAD_TLS_CA, and for this name"):
                secure.client(**wrong)
            logged(daemon, "came to nothing: Cryptographic error (it gave up because of our certificate", number)
            works(secure.client(), f"net{number}")
        assert re.search(r"warning: a TLS connection from 127\.0\.0\.1:\d+ came to nothing", daemon.log())


def test_a_daemon_s_certificate_may_not_have_expired(tmp_path, token_files):
    secure = Secure(tmp_path, token_files)
    secure.authority.sign("daemon", days=-1)
    with running(tmp_path / "run", secure.settings) as daemon:
        with pytest.raises(emad.SystemCallError, match="TLS came to nothing.*is the daemon's certificate valid"):
            secure.client()
        logged(daemon, "it gave up because of our certificate")
        # The same listener, when it has a better one.
        secure.authority.sign("daemon")
        reload(daemon)
        works(secure.client())


def test_clients_certificates_are_asked_for(tmp_path, token_files):
    """Each that is wrong is refused with the reason in the log, and the right one let in afterwards."""
    secure = Secure(tmp_path, token_files, mutual=True)
    good = dict(zip(("tls_certificate", "tls_key"), secure.authority.sign("client")))
    expired = dict(zip(("tls_certificate", "tls_key"), secure.authority.sign("expired", days=-1)))
    foreign = dict(zip(("tls_certificate", "tls_key"), secure.other.sign("foreign")))
    judged = "its certificate is expired, of another authority than tls-ca=, or not that of its key"
    matrix = {
        "none": ({}, "its certificate is missing", "wants no certificate of ours"),
        "expired": (expired, judged, "and ours from an authority that it knows|takes our certificate"),
        "of another authority": (foreign, judged, "and ours from an authority that it knows|takes our certificate"),
        "of another key": ({**good, "tls_key": foreign["tls_key"]}, judged, "takes our certificate .* and its key"),
    }
    with running(tmp_path / "run", secure.settings) as daemon:
        for number, (what, (wrong, reason, sentence)) in enumerate(matrix.items()):
            before = daemon.log().count(reason)
            with pytest.raises(emad.Error, match=sentence):
                secure.client(timeout=1, **wrong)
            logged(daemon, reason, before + 1)
            works(secure.client(**good), f"net{number}")
        with emad.Client(daemon.url) as local:
            assert local.status()["counters"]["violations"] >= len(matrix), what


def test_certificates_and_tokens_are_read_again(tmp_path, token_files):
    secure = Secure(tmp_path, token_files)
    with running(tmp_path / "run", secure.settings) as daemon:
        with secure.client() as before:
            daemon.configuration.write_text(secure.settings)
            certificate, key = secure.other.sign("newer")
            secure.certificate.write_bytes(certificate.read_bytes())
            secure.key.write_bytes(key.read_bytes())
            lines = [f"{name} {TOKENS[name][0]} read\n" for name in ("reader", "trainer")]
            token_files["daemon"].write_text("".join(lines))
            reload(daemon)
            assert before.list() == {"models": []}
            with pytest.raises(emad.SystemCallError, match="'trainer' may not push"):
                before.trainer("net", values(5, 0), profiles=HALF)
        with pytest.raises(emad.SystemCallError, match="TLS came to nothing"):
            secure.client()
        with pytest.raises(emad.SystemCallError, match="does not know this token"):
            secure.client(tls_ca=secure.other.certificate, token_file=token_files["operator"])
        with secure.client(tls_ca=secure.other.certificate, token_file=token_files["reader"]) as reader:
            assert reader.list() == {"models": []}


def test_files_that_cannot_be_used_leave_all_as_it_was(tmp_path, token_files):
    secure = Secure(tmp_path, token_files)
    with running(tmp_path / "run", secure.settings) as daemon:
        for file in (secure.certificate, secure.key, token_files["daemon"]):
            before = file.read_bytes()
            file.write_text("nonsense")
            reload(daemon, "the configuration stays as it was")
            works(secure.client(), file.name)
            file.write_bytes(before)


def test_other_protocols_and_silence_do_not_stop_a_tls_listener(tmp_path, token_files):
    secure = Secure(tmp_path, token_files)
    with running(tmp_path / "run", secure.settings + "[limits]\nhandshake-timeout=200ms\n"):
        for greeting in (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"\0SP\0\0\x30\0\0", b"SSH-2.0-x\r\n", b"\x16\x03\x01", b""):
            with socket.create_connection(("127.0.0.1", secure.port), 5) as peer:
                peer.sendall(greeting)
                with contextlib.suppress(ConnectionError):
                    while peer.recv(4096):
                        pass
        works(secure.client())


def test_peers_at_the_limit_are_turned_away_and_the_daemon_goes_on(tmp_path):
    """Forty that say nothing, in front of eight places: they make room after their time, and hold no memory."""
    port = free_port()
    settings = (
        f"[network]\nlisten=tcp://127.0.0.1:{port}\nanonymous=push\n[limits]\nconnections-max=8\nhandshake-timeout=300ms\n"
    )
    with running(tmp_path / "run", settings) as daemon:
        peers = [socket.create_connection(("127.0.0.1", port), 5) for _ in range(40)]
        works(emad.Client(f"tcp://127.0.0.1:{port}", 10))
        for peer in peers:
            peer.close()
        with emad.Client(daemon.url) as local:
            assert local.status()["counters"]["connections_refused"] > 0


def test_other_protocols_do_not_stop_a_tcp_listener(plain):
    port = int(plain.tcp.rsplit(":", 1)[1])
    for greeting in (b"GET / HTTP/1.1\r\n\r\n", b"SSH-2.0-x\r\n", bytes.fromhex("16030100a5010000a10303"), b"\0SP\0\0\x31\0\0"):
        with socket.create_connection(("127.0.0.1", port), 5) as peer:
            peer.sendall(greeting)
            with contextlib.suppress(ConnectionError):
                while peer.recv(4096):
                    pass
    # A message that says it has 2^62 bytes, and half a handshake.
    for greeting in (b"\0SP\0\0\x30\0\0\x40" + bytes(7) + b"\x80\0\0\1", b"\0SP"):
        with socket.create_connection(("127.0.0.1", port), 5) as peer:
            peer.sendall(greeting)
    works(emad.Client(plain.tcp))


def test_emactl_works_over_the_network(plain):
    with emad.Client(plain.tcp) as client, client.trainer("net", values(5, 0), profiles=HALF) as trainer:
        trainer.push(1, values(5, 1), wait=True)
    environment = {**os.environ, "EMAD_SOCKET": plain.tcp}
    program = os.environ.get("EMACTL", str(BUILD / "emactl"))
    file = plain.directory / "net.safetensors"
    for command in (["ping"], ["status"], ["list"], ["show", "net"], ["export", "net", "-o", str(file)]):
        subprocess.run([program, *command], env=environment, check=True, capture_output=True, timeout=30)
    assert file.stat().st_size > 0


# ---- addresses that are none ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("url", ["tcp://no..name:7474", "tls+tcp://no..name:7474"])
def test_a_name_that_has_no_address_is_said_to_have_none(tmp_path, url):
    authority = Authority(tmp_path / "authority").certificate if url.startswith("tls") else None
    with pytest.raises(emad.AwayError, match=f"no address is known for the name, or no such port, in {re.escape(url)}"):
        emad.Client(url, 1, tls_ca=authority)


def test_a_port_at_which_nobody_listens_is_said_to_be_silent():
    with pytest.raises(emad.AwayError, match="no daemon answers at .*: see that emad runs there and listens"):
        emad.Client(f"tcp://127.0.0.1:{free_port()}", 1)


def test_an_address_that_cannot_be_listened_at_ends_the_start_with_the_reason(tmp_path):
    directory = tmp_path / "run"
    directory.mkdir()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        url = f"tcp://127.0.0.1:{taken.getsockname()[1]}"
        daemon = DaemonProcess(directory, f"[network]\nlisten={url}\nanonymous=push\n")
        assert f"cannot listen at {url}: Address in use (another program does, or another emad)" in refused(daemon)
        assert daemon.process.returncode == 69
    # What was in the way has gone: the same daemon starts.
    daemon.start()
    works(emad.Client(url))
    daemon.kill()
    (tmp_path / "token").write_text("a " + "x" * 16 + " read")
    (tmp_path / "token").chmod(0o600)
    for address in ("192.0.2.1:7474", "no..name:7474"):
        daemon.configuration.write_text(f"[network]\nlisten=tcp://{address}\ntoken-file={tmp_path}/token\n")
        assert "this host has no such address, or the name has none" in refused(daemon)
