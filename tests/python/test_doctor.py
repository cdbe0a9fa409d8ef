"""emactl doctor about [http] and [network]: the settings that the daemon runs with, or would start with."""

import json
import os
import socket
import subprocess

import pytest

from certificates import Authority
from conftest import DaemonProcess


def doctor(emactl, process: DaemonProcess) -> dict:
    """Its checks, by their names."""
    done = subprocess.run(
        [emactl, "doctor", "--json", "--timeout", "5", "--socket", process.url], capture_output=True, text=True, timeout=60,
    )
    assert done.returncode in (0, 1) and not done.stderr, done.stderr
    return {check["name"]: check for check in json.loads(done.stdout)["checks"]}


@pytest.fixture
def process(tmp_path):
    process = DaemonProcess(tmp_path)
    yield process
    if process.process:
        process.kill()


def port_free() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


def test_addresses_tokens_and_certificates_of_a_running_daemon(emactl, process, tmp_path):
    authority = Authority(tmp_path / "authority")
    certificate, key = authority.sign("daemon", days=20)
    token, tokens = tmp_path / "http.token", tmp_path / "tokens"
    token.write_text("t" * 32 + "\n")
    tokens.write_text(f"trainer {'p' * 32} push\n")
    for secret in (token, tokens):
        secret.chmod(0o640)
    http, tls, plain = port_free(), port_free(), port_free()
    process.configuration.write_text(
        f"[http]\nhttp-listen=127.0.0.1:{http}\nhttp-token-file={token}\n"
        f"[network]\nlisten=tls+tcp://127.0.0.1:{tls} tcp://0.0.0.0:{plain}\n"
        f"tls-certificate={certificate}\ntls-key={key}\ntoken-file={tokens}\n"
    )
    process.start()
    checks = doctor(emactl, process)
    for name in ("HTTP", "HTTP token", "tokens", "TLS key"):
        assert checks[name]["verdict"] == "ok", checks[name]
    assert checks["network"]["verdict"] == "warn" and "not encrypted" in checks["network"]["text"]
    assert checks["certificate"]["verdict"] == "warn" and "ends in" in checks["certificate"]["text"]
    assert str(certificate) in checks["certificate"]["fix"]

    token.chmod(0o644)
    assert doctor(emactl, process)["HTTP token"]["fix"] == f"sudo chmod o= {token}"
    token.chmod(0o640)
    authority.sign("daemon", days=0)
    checks = doctor(emactl, process)
    assert checks["HTTP token"]["verdict"] == "ok" and checks["certificate"]["verdict"] == "fail"

    process.configuration.write_text("[http]\nhttp-listen=somewhere\n")
    checks = doctor(emactl, process)
    assert checks["settings"]["verdict"] == "fail" and "--check-config" in checks["settings"]["fix"]


def test_an_address_that_was_set_after_the_start_is_not_there(emactl, process):
    process.start()
    process.configuration.write_text(f"[http]\nhttp-listen=127.0.0.1:{port_free()}\n")
    check = doctor(emactl, process)["HTTP"]
    assert check["verdict"] == "fail" and "Connection refused" in check["text"] and "restart" in check["fix"]


@pytest.mark.skipif(os.geteuid() != 0, reason="writes /etc/emad/emad.conf in a mount namespace of its own: root alone may")
def test_a_port_that_is_taken_is_found_while_the_daemon_is_away(emactl, process, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        settings = tmp_path / "etc"
        settings.mkdir()
        (settings / "emad.conf").write_text(f"[daemon]\nruntime-dir={tmp_path}\n[http]\nhttp-listen=127.0.0.1:{port}\n")
        script = 'mount -t tmpfs none /etc && mkdir /etc/emad && cp "$1" /etc/emad/ && shift && exec "$@"'
        done = subprocess.run(
            ["unshare", "--mount", "sh", "-c", script, "sh", settings / "emad.conf", emactl, "doctor", "--json",
             "--timeout", "0.2", "--socket", process.url],
            capture_output=True, text=True, timeout=60,
        )
        if "unshare" in done.stderr or "mount" in done.stderr:
            pytest.skip(done.stderr)
        checks = {check["name"]: check for check in json.loads(done.stdout)["checks"]}
    assert checks["HTTP"]["verdict"] == "fail" and f"port {port} of" in checks["HTTP"]["text"]
    assert f"sport = :{port}" in checks["HTTP"]["fix"]
