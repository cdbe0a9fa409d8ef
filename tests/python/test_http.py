"""The daemon's HTTP side: what it answers to whom, and that nothing that comes by it disturbs the averages."""

import base64
import http.client
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import threading
import time
import urllib.parse

import numpy
import pytest

import emad
from conftest import BUILD, HTTP_SETTINGS, DaemonProcess, Web

PROFILES = {"ema": "constant:decay=0.5", "slow": "constant:decay=0.9"}


@pytest.fixture
def trainer(served, name):
    """A trainer of a model of its own, "NAME/net", that has pushed ones and then zeros."""
    with emad.Client(served.url) as client:
        with client.trainer(f"{name}/net", values(1), profiles=PROFILES) as opened:
            opened.push(1, values(1))
            opened.push(2, values(0))
            opened.flush()
            yield opened
        client.remove(f"{name}/net")


def values(value: float, elements: int = 1000) -> dict:
    return {"w": numpy.full(elements, value, "float32"), "v": numpy.full((3, 5), value, "float32")}


def image_path(model: str, profile: str = "ema") -> str:
    return f"/v1/models/{urllib.parse.quote(model, safe='')}/{profile}.safetensors"


def tensors_of(data: bytes) -> dict:
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + size])
    kinds = {"F32": "float32"}
    return {
        name: numpy.frombuffer(data[8 + size :][slice(*row["data_offsets"])], kinds[row["dtype"]]).reshape(row["shape"])
        for name, row in header.items()
        if name != "__metadata__"
    }


# ---- what there is ---------------------------------------------------------------------------------------------------


def test_it_tells_that_it_lives_and_is_ready(web):
    assert web.json("/healthz") == {"status": "alive"}
    assert web.json("/readyz") == {"status": "ready"}


def test_models_are_shown_as_emactl_shows_them(web, served, trainer, emactl, name):
    model = f"{name}/net"
    for command, path in (
        (["show", model], f"/v1/models/{model}"),
        (["show", model], f"/v1/models/{urllib.parse.quote(model, safe='')}"),
    ):
        done = subprocess.run(
            [emactl, *command, "--json"],
            env={**os.environ, "EMAD_SOCKET": served.url}, capture_output=True, text=True, check=True,
        )
        assert json.loads(done.stdout) == web.json(path)
    rows = [row for row in web.json("/v1/models")["models"] if row["model"] == model]
    assert [row["profiles"] for row in rows] == [["ema", "slow"]]
    assert web.json("/v1/status")["counters"]["http_requests"] > 0
    short = web.json(f"/v1/models/{model}?tensors=0")
    assert short["tensors"] == 2 and short["step"] == 2


def test_the_tensors_that_moved_most_come_first(web, trainer, name):
    trainer.push(3, values(2))
    trainer.flush()
    profiles = {row["name"]: row for row in web.json(f"/v1/models/{name}/net?tensors=0")["profiles"]}
    movers = profiles["ema"]["movers"]
    assert [row["tensor"] for row in movers] == ["w", "v"]
    # The snapshot of twos was this far from the average of one and zero.
    assert movers[0]["drift"] == pytest.approx(1.5 * 1000**0.5) and movers[1]["drift"] == pytest.approx(1.5 * 15**0.5)
    assert movers[0]["value_norm"] == pytest.approx(2 * 1000**0.5)


def test_an_average_is_what_a_view_shows(web, served, trainer, name):
    model = f"{name}/net"
    with emad.Client(served.url) as client, client.view(model, "slow") as view:
        step = view.step
    response = web.request(image_path(model, "slow"))
    assert response.status == 200
    assert int(response.headers["X-Emad-Step"]) == step == 2
    assert response.headers["Accept-Ranges"] == "bytes"
    assert response.headers["Content-Disposition"] == f'attachment; filename="{name}-net-slow-2.safetensors"'
    for tensor in tensors_of(response.text).values():
        assert numpy.allclose(tensor, 0.9)


def test_the_safetensors_library_and_emactl_read_a_download(web, served, trainer, emactl, name, tmp_path):
    path = tmp_path / "net.safetensors"
    path.write_bytes(web.request(image_path(f"{name}/net")).text)
    subprocess.run([emactl, "verify", path], check=True, capture_output=True)
    safetensors = pytest.importorskip("safetensors.numpy")
    assert numpy.allclose(safetensors.load_file(path)["w"], 0.5)


@pytest.mark.skipif(not shutil.which("curl"), reason="curl is not installed")
def test_curl_loads_and_resumes(web, trainer, name, tmp_path):
    url = f"http://127.0.0.1:{web.port}{image_path(f'{name}/net')}"
    whole = web.request(image_path(f"{name}/net")).text
    path = tmp_path / "net.safetensors"
    path.write_bytes(whole[:1234])
    subprocess.run(["curl", "-sS", "--fail", "-C", "-", "-o", path, url], check=True, timeout=60)
    assert path.read_bytes() == whole


# ---- ranges and conditions -------------------------------------------------------------------------------------------


def test_ranges_are_the_bytes_they_name(web, trainer, name):
    path = image_path(f"{name}/net")
    whole = web.request(path).text
    size = len(whole)
    for text, first, last in (
        ("0-0", 0, 0), ("0-99", 0, 99), (f"{size - 1}-", size - 1, size - 1), ("-7", size - 7, size - 1),
        (f"5-{size * 9}", 5, size - 1), (f"-{size * 9}", 0, size - 1), ("4096-8191", 4096, 8191),
    ):
        response = web.request(path, Range=f"bytes={text}")
        assert response.status == 206, text
        assert response.headers["Content-Range"] == f"bytes {first}-{last}/{size}"
        assert response.text == whole[first : last + 1], text
    for text in ("bytes=0-1,5-6", "bytes=9-3", "bytes=", "bytes=x-", "lines=1-2", "bytes=1-2x"):
        response = web.request(path, Range=text)
        assert response.status == 200 and response.text == whole, text
    for text in (f"bytes={size}-", "bytes=-0", "bytes=99999999999999999999999-"):
        response = web.request(path, Range=text)
        assert response.status == 416 and response.headers["Content-Range"] == f"bytes */{size}", text
        assert "bytes" in json.loads(response.text)["message"]


def test_head_says_what_get_would_without_holding_anything(web, trainer, name):
    path = image_path(f"{name}/net")
    whole, head = web.request(path), web.request(path, "HEAD")
    assert head.status == 200 and head.text == b""
    for header in ("Content-Length", "ETag", "Content-Type", "X-Emad-Version"):
        assert head.headers[header] == whole.headers[header]
    assert web.request(path, "HEAD", Range="bytes=0-9").status == 200
    assert all(row["leases"] == 0 for row in settled(web, name)["slots"])


def settled(web, name: str) -> dict:
    """The model once no download is under way any more; the last of them ends after its last byte has come."""
    end = time.monotonic() + 20
    while True:
        model = web.json(f"/v1/models/{name}/net?tensors=0")
        if not any(row["holders"]["downloads"] for row in model["slots"]):
            return model
        assert time.monotonic() < end, model["slots"]


def test_tags_tell_versions_and_profiles_apart(web, trainer, name):
    path, model = image_path(f"{name}/net"), f"{name}/net"
    tag = web.request(path).headers["ETag"]
    assert tag != web.request(image_path(model, "slow")).headers["ETag"]
    same = web.request(path, If_None_Match=f'"other", W/{tag}')
    assert same.status == 304 and same.text == b"" and same.headers["ETag"] == tag
    assert same.headers["Content-Length"] == web.request(path, "HEAD").headers["Content-Length"]
    assert web.request(path, If_None_Match='"other"').status == 200
    assert web.request(path, If_Match=tag).status == 200
    assert web.request(path, If_Match=f"W/{tag}").status == 412
    assert web.request(path, Range="bytes=0-9", If_Range=tag).status == 206
    trainer.push(3, values(2))
    trainer.flush()
    assert web.request(path, If_None_Match=tag).status == 200
    stale = web.request(path, If_Match=tag)
    assert stale.status == 412 and "newest" in json.loads(stale.text)["message"]
    other = web.request(path, Range="bytes=0-9", If_Range=tag)
    assert other.status == 200 and len(other.text) > 10
    assert other.headers["ETag"] != tag


# ---- errors ----------------------------------------------------------------------------------------------------------


def test_what_there_is_not_is_said_in_a_sentence(web, trainer, name):
    model = f"{name}/net"
    for path, status, error, part in (
        ("/nowhere", 404, "ENOENT", "/v1/models/MODEL/PROFILE.safetensors"),
        ("/v1/models/", 404, "ENOENT", "there is nothing at"),
        ("/v1/models/none", 404, "no-model", "there is no model 'none'; there are: "),
        (image_path(model, "fast"), 404, "no-profile", "it has: ema, slow"),
        ("/v1/models/a%2", 400, "name", "hexadecimal"),
        ("/v1/models/a%00b", 400, "name", ""),
        ("/v1/models/" + "a" * 300, 400, "name", "200 bytes"),
        ("/v1/models/../../etc/passwd", 400, "name", ""),
        (f"/v1/models/{model}//ema.safetensors", 400, "name", ""),
    ):
        answer = web.json(path, status)
        assert answer["error"] == error and part in answer["message"], answer
    for method in ("POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE"):
        response = web.request("/v1/models", method)
        assert response.status == 405 and response.headers["Allow"] == "GET, HEAD"
        assert method in json.loads(response.text)["message"]


def test_names_with_dots_and_slashes_are_told_apart(web, served, name):
    long = f"{name}/ema.safetensors"
    with emad.Client(served.url) as client:
        with client.trainer(name, values(1), profiles=PROFILES) as short, client.trainer(long, values(1)) as other:
            for each in (short, other):
                each.push(1, values(1))
                each.flush()
            assert web.request(f"/v1/models/{long}").headers["ETag"] is not None
            assert web.json(f"/v1/models/{urllib.parse.quote(long, safe='')}")["model"] == long
            assert web.json(f"/v1/models/{name}")["model"] == name
        client.remove(name)
        client.remove(long)


# ---- who may ask -----------------------------------------------------------------------------------------------------


def test_a_page_of_another_name_cannot_read(web):
    for host, status in (
        ("evil.example", 421), ("localhost.evil.example", 421), ("localhost", 200), ("LOCALHOST:1", 200),
        ("127.0.0.1:9464", 200), ("[::1]:9464", 200), ("1.2.3.4", 200),
    ):
        response = web.request("/v1/models", Host=host)
        assert response.status == status, host
        assert "Access-Control-Allow-Origin" not in response.headers
    assert web.request("/healthz", Host="evil.example").status == 200


def test_with_a_token_nothing_but_life_is_told_without_it(tmp_path):
    token, other = "a-token-of-some-length", "another-token-of-some-length"
    path = tmp_path / "token"
    path.write_text(token + "\n")
    path.chmod(0o600)
    process = DaemonProcess(tmp_path, f"{HTTP_SETTINGS}http-token-file={path}\n")
    process.start()
    try:
        web = Web(process)
        assert web.request("/healthz").status == web.request("/readyz").status == 200
        for target in ("/", "/metrics", "/v1/status", "/v1/models", "/v1/models/a/b.safetensors", "/nowhere"):
            response = web.request(target)
            assert response.status == 401, target
            assert any(value.startswith("Bearer") for value in response.headers.get_all("WWW-Authenticate"))
            assert web.request(target, Authorization=f"Bearer {token[:-1]}").status == 401
            assert web.request(target, Authorization=f"Bearer {token}x").status == 401
            assert web.request(target, Authorization="Bearer " + "x" * 5000).status == 401
            assert web.request(target, Authorization=f"Bearer {token}").status in (200, 404)
        assert "http-token-file" in web.json("/metrics", 401)["message"]
        basic = "Basic " + base64.b64encode(f"me:{token}".encode()).decode()
        assert web.request("/metrics", Authorization=basic, Host="any.example").status == 200
        # Another token comes with a reload; one that cannot be used leaves the one before.
        path.write_text(other)
        process.signal(1)
        wait_until(lambda: web.request("/metrics", Authorization=f"Bearer {other}").status == 200)
        assert web.request("/metrics", Authorization=f"Bearer {token}").status == 401
        path.write_text("short")
        process.signal(1)
        wait_until(lambda: "stays as it was" in process.log())
        assert "16 to 256 are allowed" in process.log()
        assert web.request("/metrics", Authorization=f"Bearer {other}").status == 200
        assert token not in process.log() and other not in process.log()
    finally:
        process.kill()


def wait_until(condition, seconds: float = 30):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_lists_of_readers_close_what_has_no_users(tmp_path):
    process = DaemonProcess(tmp_path, f"{HTTP_SETTINGS}[access]\nread-users={os.getuid()}\n")
    process.start()
    try:
        answer = Web(process).json("/v1/models", 403)
        assert "http-token-file" in answer["message"]
        assert Web(process).request("/healthz").status == 200
    finally:
        process.kill()


@pytest.mark.parametrize(
    "text, mode, part",
    [
        ("short\n", 0o600, "16 to 256 are allowed"),
        ("x" * 300, 0o600, "16 to 256 are allowed"),
        ("a token with blanks in it", 0o600, "character 2 of its first line"),
        ("a-token-of-some-length", 0o644, "everybody may read it"),
        (None, 0, "No such file"),
    ],
)
def test_a_token_that_cannot_be_used_is_an_error_at_the_start(tmp_path, text, mode, part):
    path = tmp_path / "token"
    if text is not None:
        path.write_text(text)
        path.chmod(mode)
    process = DaemonProcess(tmp_path, f"{HTTP_SETTINGS}http-token-file={path}\n")
    with pytest.raises(RuntimeError, match="ended"):
        process.start()
    assert part in process.log()


def test_a_credential_of_systemd_is_the_token_where_nothing_else_is_said(tmp_path):
    program = os.environ.get("EMAD_DAEMON", str(BUILD / "emad"))

    def effective(*options: str) -> str:
        done = subprocess.run(
            [program, "--config", "-/nowhere", *options, "--print-config", "--json"],
            env={**os.environ, "CREDENTIALS_DIRECTORY": str(tmp_path)}, capture_output=True, text=True, check=True,
        )
        rows = json.loads(done.stdout)["settings"]
        return next(row["value"] for row in rows if row["key"] == "http-token-file")

    assert effective() == ""
    (tmp_path / "http.token").write_text("a-token-of-some-length")
    assert effective() == str(tmp_path / "http.token")
    assert effective("--http-token-file", "/another") == "/another"


def test_a_port_that_is_taken_is_an_error_at_the_start(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        process = DaemonProcess(tmp_path, f"[http]\nhttp-listen=127.0.0.1:{taken.getsockname()[1]}\n")
        with pytest.raises(RuntimeError, match="ended"):
            process.start()
    assert "Address already in use" in process.log() and "port 0" in process.log()
    assert process.process.returncode == 69


HAND_OVER = """
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.environ["LISTEN_PID"] = str(os.getpid())
os.execv(sys.argv[2], sys.argv[2:])
"""


def test_a_socket_that_is_handed_over_is_served(tmp_path):
    (tmp_path / "run").mkdir()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        process = subprocess.Popen(
            [
                sys.executable, "-c", HAND_OVER, str(listener.fileno()),
                os.environ.get("EMAD_DAEMON", str(BUILD / "emad")), "--runtime-dir", tmp_path / "run",
                "--config", "-/nowhere",
            ],
            pass_fds=[listener.fileno()], env={**os.environ, "LISTEN_FDS": "1", "LISTEN_FDNAMES": "http"},
            stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )
        try:
            # The connection waits in the socket until the daemon is there.
            connection = http.client.HTTPConnection(*listener.getsockname(), timeout=30)
            connection.request("GET", "/healthz")
            assert connection.getresponse().status == 200
            connection.close()
        finally:
            process.terminate()
            assert process.wait(30) == 0


def test_metrics_are_what_prometheus_and_openmetrics_want(web, trainer, name):
    classic = web.request("/metrics", Accept="text/plain")
    assert classic.headers["Content-Type"].startswith("text/plain; version=0.0.4")
    modern = web.request("/metrics", Accept="application/openmetrics-text; version=1.0.0")
    assert modern.headers["Content-Type"].startswith("application/openmetrics-text; version=1.0.0")
    assert modern.text.endswith(b"# EOF\n")
    assert f'emad_model_step{{model="{name}/net"}} 2\n'.encode() in modern.text
    status = web.json("/v1/status")["counters"]
    for counter in status:
        shown = counter[:-3] + "_seconds" if counter.endswith("_us") else counter
        assert f"\nemad_{shown}_total ".encode() in classic.text
    assert len(status) > 30


@pytest.mark.skipif(not shutil.which("promtool"), reason="promtool is not installed (Debian: prometheus)")
def test_promtool_finds_nothing_wrong(web, trainer):
    text = web.request("/metrics", Accept="*/*").text  # as curl asks
    done = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True, timeout=60)
    assert done.returncode == 0 and not done.stdout + done.stderr, done.stdout + done.stderr


def test_the_official_parser_reads_the_metrics(web, trainer, name):
    parser = pytest.importorskip("prometheus_client.openmetrics.parser")
    families = {family.name: family for family in parser.text_string_to_metric_families(
        web.request("/metrics", Accept="application/openmetrics-text").text.decode())}
    assert families["emad_pushes_applied"].type == "counter"
    assert families["emad_update_duration_seconds"].type == "histogram"
    assert families["emad_apply_bytes"].unit == "bytes"
    models = {sample.labels["model"] for sample in families["emad_model_step"].samples}
    assert f"{name}/net" in models


# ---- hostile and slow clients ----------------------------------------------------------------------------------------


def test_bytes_of_other_protocols_harm_nobody(web):
    for data in (
        b"SSH-2.0-OpenSSH_9.2\r\n", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(64), b"\x00" * 4096,
        b"GET / HTTP/9.9\r\n\r\n", b"GET " + b"/" * 100000 + b" HTTP/1.1\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\n" + b"X: y\r\n" * 5000 + b"\r\n", b"\r\n" * 2000, b"GET\r\n\r\n",
        b"GET /metrics HTTP/1.1\r\nContent-Length: -5\r\n\r\n", b"GET /v1/models/%ff%fe HTTP/1.1\r\nHost: 1.1.1.1\r\n\r\n",
        b"GET /metrics HTTP/1.1\r\nHost: 1.1.1.1\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n",
        b"\x00SP\x00\x00\x31\x00\x00", b"GET /healthz HTTP/1.1\r\nHost: 1.1.1.1\r\nAuthorization: Basic !!!\r\n\r\n",
    ):
        with web.connect() as connection:
            try:
                connection.sendall(data)
                connection.shutdown(socket.SHUT_WR)
                connection.settimeout(5)
                while connection.recv(65536):
                    pass
            except OSError:
                pass  # closed as soon as it was seen what it is
        assert web.json("/healthz") == {"status": "alive"}
    for _ in range(200):
        with web.connect() as connection:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            connection.sendall(b"GET /metrics HTTP/1.1\r\nHost: 1.1.1.1\r\n\r\n")
    assert web.json("/readyz") == {"status": "ready"}


def test_requests_that_come_on_one_connection_are_answered_in_turn(web, trainer, name):
    connection = http.client.HTTPConnection("127.0.0.1", web.port, timeout=30)
    whole = web.request(image_path(f"{name}/net")).text
    for _ in range(20):
        for path, method, status in (
            (image_path(f"{name}/net"), "GET", 200), ("/metrics", "HEAD", 200), ("/nowhere", "GET", 404),
            (image_path(f"{name}/net"), "GET", 304), (image_path(f"{name}/net"), "HEAD", 200),
        ):
            connection.request(method, path, headers={"If-None-Match": "*"} if status == 304 else {})
            response = connection.getresponse()
            body = response.read()
            assert response.status == status
            assert (method != "HEAD" and status != 304) or body == b""
            assert not (path.endswith(".safetensors") and body) or body == whole
    connection.close()


def test_silent_and_slow_clients_are_closed(tmp_path):
    process = DaemonProcess(tmp_path, f"{HTTP_SETTINGS}http-timeout=1s\nhttp-connections-max=8\n")
    process.start()
    try:
        web = Web(process)
        silent, slow = web.connect(), web.connect()
        end = time.monotonic() + 60
        slow.settimeout(0.3)
        closed = False
        # A byte at a time would keep a connection for ever if only silence counted.
        for byte in b"GET / HTTP/1.1\r\nX: " + b"y" * 10000:
            try:
                slow.sendall(bytes([byte]))
                closed = slow.recv(100) == b""
            except TimeoutError:
                pass
            except ConnectionError:
                closed = True
            if closed:
                break
            assert time.monotonic() < end
        assert closed
        assert silent.recv(100) == b""
        # All places are taken by clients that say nothing: the next ones come in when those have gone.
        crowd = [web.connect() for _ in range(20)]
        assert web.json("/healthz") == {"status": "alive"}
        for connection in crowd:
            connection.close()
        with emad.Client(process.url) as client:
            assert client.status()["counters"]["http_timeouts"] >= 1
    finally:
        process.kill()


# ---- downloads and updates -------------------------------------------------------------------------------------------

ELEMENTS = 8 << 20


def download_begin(web, path: str, receive_bytes: int = 4096) -> socket.socket:
    """A download of which nothing has been read yet."""
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
    connection.settimeout(60)
    connection.connect(("127.0.0.1", web.port))
    connection.sendall(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n".encode())
    return connection


def read_rest(connection: socket.socket) -> bytes:
    data = bytearray()
    try:
        while part := connection.recv(1 << 20):
            data += part
    except ConnectionError:
        pass
    return bytes(data)


def test_a_reader_that_hangs_holds_updates_up_for_lease_min_alone_and_is_cut(served, web, name):
    with emad.Client(served.url) as client:
        with client.trainer(name, values(1, ELEMENTS), profiles=PROFILES) as trainer:
            trainer.push(1, values(1, ELEMENTS))
            trainer.flush()
            hanging = [download_begin(web, image_path(name))]
            assert hanging[0].recv(12) == b"HTTP/1.1 200"
            # With three slots the second reader of another version takes the last that is free.
            trainer.push(2, values(2, ELEMENTS))
            trainer.flush()
            hanging.append(download_begin(web, image_path(name)))
            assert hanging[1].recv(12) == b"HTTP/1.1 200"
            before = time.monotonic()
            for step in range(3, 8):
                trainer.push(step, values(step, ELEMENTS))
            trainer.flush()
            assert time.monotonic() - before < 20
            assert web.json(f"/v1/models/{name}?tensors=0")["step"] == 7
            size = int(web.request(image_path(name), "HEAD").headers["Content-Length"])
            # The older one gave its slot; then there was room again.
            assert len(read_rest(hanging[0])) < size
            for connection in hanging:
                connection.close()
        wait_until(lambda: client.status()["counters"]["downloads_cut"] >= 1)
        client.remove(name)


def test_downloads_under_updates_are_whole_or_cut(served, web, name):
    """Every value of a version is the same, so a mixture would be seen."""
    elements = 4 << 20
    stop = threading.Event()
    seen = {"whole": 0, "cut": 0, "steps": set()}

    def download():
        while not stop.is_set():
            connection = download_begin(web, image_path(name), 1 << 20)
            data = read_rest(connection)
            connection.close()
            head, body = data.split(b"\r\n\r\n", 1)
            size = int(re.search(rb"Content-Length: (\d+)", head).group(1))
            if len(body) < size:
                seen["cut"] += 1
                continue
            assert len(body) == size
            array = tensors_of(body)["w"]
            assert array.min() == array.max(), "two versions in one body"
            seen["whole"] += 1
            seen["steps"].add(int(re.search(rb"X-Emad-Step: (\d+)", head).group(1)))

    with emad.Client(served.url) as client:
        with client.trainer(name, values(1, elements), profiles={"ema": "constant:decay=0.5"}) as trainer:
            trainer.push(1, values(1, elements))
            trainer.flush()
            failures = []

            def guarded():
                try:
                    download()
                except BaseException as error:  # noqa: B036
                    failures.append(error)

            threads = [threading.Thread(target=guarded) for _ in range(3)]
            for thread in threads:
                thread.start()
            step = 2
            end = time.monotonic() + 60
            while not failures and (len(seen["steps"]) < 5 or step < 60) and time.monotonic() < end:
                trainer.push(step, values(step, elements))
                step += 1
            stop.set()
            for thread in threads:
                thread.join()
            assert not failures, failures
            assert seen["whole"] > 0 and len(seen["steps"]) > 1, seen
        client.remove(name)


@pytest.mark.alone
@pytest.mark.skipif(not shutil.which("wrk"), reason="wrk is not installed (Debian: wrk)")
def test_requests_under_load_are_answered_and_updates_go_on(tmp_path):
    """Downloads take bandwidth from updates, tests/bench/rows_http.py says how much, and nothing else."""
    process = DaemonProcess(tmp_path, HTTP_SETTINGS)
    process.start()
    try:
        base = f"http://127.0.0.1:{Web(process).port}"
        with emad.Client(process.url) as client:
            with client.trainer("net", values(0, ELEMENTS), profiles=PROFILES) as trainer:

                def pushes(first: int) -> float:
                    """The median of the times of ten."""
                    times = []
                    for step in range(first, first + 10):
                        begun = time.monotonic()
                        assert trainer.push(step, values(step, ELEMENTS), wait=True).outcome in ("started", "applied")
                        times.append(time.monotonic() - begun)
                    return sorted(times)[5]

                pushes(1)
                alone = pushes(11)
                load = [
                    subprocess.Popen(
                        ["wrk", "-t1", f"-c{count}", "-d3s", "--timeout", "10s", base + path],
                        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                    )
                    for path, count in ((image_path("net"), 2), ("/metrics", 4), ("/v1/models/net", 4), ("/healthz", 4))
                ]
                beside, step = [], 21
                while any(each.poll() is None for each in load):
                    beside.append(pushes(step))
                    step += 10
                for each in load:
                    report = each.communicate()[0]
                    assert each.returncode == 0 and "Non-2xx" not in report, report
                    assert "Socket errors" not in report and int(re.search(r"(\d+) requests in", report).group(1)) > 0, report
                # Two processors are shared with four wrk here: a wide bound, which waiting for a download would miss.
                assert sorted(beside)[len(beside) // 2] < 10 * alone + 0.5, (alone, beside)
                counters = client.status()["counters"]
                assert counters["http_failed"] == counters["downloads_cut"] == counters["http_timeouts"] == 0, counters
        assert process.stop() == 0
    finally:
        process.kill()


def test_a_download_of_a_removed_model_ends(served, web, name):
    with emad.Client(served.url) as client:
        with client.trainer(name, values(1, ELEMENTS)) as trainer:
            trainer.push(1, values(1, ELEMENTS))
            trainer.flush()
        profile = web.json(f"/v1/models/{name}?tensors=0")["profiles"][0]["name"]
        connection = download_begin(web, image_path(name, profile))
        assert connection.recv(12) == b"HTTP/1.1 200"
        ended = client.status()["counters"]["downloads_ended"]
        client.remove(name)
        wait_until(lambda: client.status()["counters"]["downloads_ended"] > ended)
        connection.close()


def test_the_end_does_not_wait_for_downloads(tmp_path):
    process = DaemonProcess(tmp_path, HTTP_SETTINGS)
    process.start()
    web = Web(process)
    with emad.Client(process.url) as client:
        with client.trainer("net", values(1, ELEMENTS), profiles=PROFILES) as trainer:
            trainer.push(1, values(1, ELEMENTS))
            trainer.flush()
    connections = [download_begin(web, image_path("net")) for _ in range(5)]
    assert connections[0].recv(12) == b"HTTP/1.1 200"
    before = time.monotonic()
    assert process.stop() == 0
    assert time.monotonic() - before < 15
