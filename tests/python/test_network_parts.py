"""Parts of averages: some tensors, another dtype, ranges of bytes. The same calls give the same here and elsewhere."""

import ctypes
import io
import json
import os
import random
import subprocess
import threading

import numpy as np
import pytest
import torch
from proxy import Proxy
from test_network import CHUNK, free_port, running

import emad

DTYPES = [None, "f64", "f32", "f16", "bf16", *(["f8_e4m3", "f8_e5m2"] if hasattr(torch, "float8_e4m3fn") else [])]
PROFILES = {"ema": "constant:decay=0.5;copy=kept.*", "slow": "constant:decay=0.9;drop=kept.*"}


def state(step):
    """Every dtype, some empty, some of several chunks; what is copied is kept as it is pushed."""
    generator = torch.Generator().manual_seed(step)

    def normal(*shape):
        return torch.randn(*shape, generator=generator)

    tensors = {
        "head.weight": normal(1000, 300),
        "head.bias": normal(1000),
        "body.double": normal(7, 9).double() * 1e4,
        "body.weight": normal(900, 1000),
        "body.none": normal(0, 4),
        "kept.half": normal(300).half(),
        "kept.brain": normal(301).bfloat16(),
        "count": torch.tensor(step),
        "flags": torch.tensor([True, False, True]),
        "w[0]": normal(3),
        "w0": normal(2),
    }
    for layer in range(40):
        tensors[f"layers.{layer}.weight"] = normal(50, layer)
        tensors[f"layers.{layer}.bias"] = normal(layer)
    return tensors


@pytest.fixture(scope="module")
def daemon(tmp_path_factory):
    port = free_port()
    directory = tmp_path_factory.mktemp("parts") / "run"
    with running(directory, f"[network]\nlisten=tcp://127.0.0.1:{port}\nanonymous=push\n") as daemon:
        daemon.port = port
        with emad.Client(daemon.url) as client:
            with client.trainer("net", state(0), profiles=PROFILES, attributes={"é": [1]}) as trainer:
                for step in range(1, 4):
                    trainer.push(step, state(step), wait=True)
        yield daemon


@pytest.fixture(scope="module")
def proxy(daemon):
    proxy = Proxy(daemon.port)
    yield proxy
    proxy.close()


@pytest.fixture(params=["here", "elsewhere"])
def client(request, daemon, proxy):
    with emad.Client(daemon.url if request.param == "here" else proxy.url) as client:
        yield client


def raw(tensor):
    return tensor.contiguous().view(torch.uint8).numpy().tobytes() if tensor.numel() and tensor.dim() else repr(tensor)


def assert_same(found, expected):
    assert list(sorted(found)) == list(sorted(expected))
    for name in expected:
        one, other = found.tensor(name), expected.tensor(name)
        assert (one.dtype, one.shape) == (other.dtype, other.shape), name
        assert raw(one) == raw(other), name
    assert (found.step, found.version, found.updates, found.decay) == (
        expected.step, expected.version, expected.updates, expected.decay,
    )  # fmt: skip
    assert found.attributes == expected.attributes == {"é": [1]}
    assert len(found) == len(expected) == len(list(found))


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_converted_view_is_that_of_this_host_to_the_last_bit(daemon, proxy, profile, dtype):
    with emad.Client(daemon.url) as here, emad.Client(proxy.url) as there:
        with here.view("net", profile, dtype=dtype) as expected, there.view("net", profile, dtype=dtype) as found:
            assert_same(found, expected)


def test_random_selections_are_the_same_here_and_elsewhere(daemon, proxy):
    seed = int(os.environ.get("EMAD_TEST_SEED", random.randrange(1 << 32)))
    print(f"EMAD_TEST_SEED={seed}")
    generator = random.Random(seed)
    names = list(state(0))
    with emad.Client(daemon.url) as here, emad.Client(proxy.url) as there:
        for _ in range(30):
            tensors = generator.sample(names, generator.randrange(1, len(names)))
            dtype = generator.choice(DTYPES)
            with here.view("net", dtype=dtype, tensors=tensors) as expected:
                with there.view("net", dtype=dtype, tensors=tensors) as found:
                    assert set(expected) == set(tensors)
                    assert_same(found, expected)


@pytest.mark.parametrize(
    "tensors, expected",
    [
        ("head.weight", {"head.weight"}),
        ("head.*", {"head.weight", "head.bias"}),
        (["*.bias", "count"], {"head.bias", "count", *(f"layers.{layer}.bias" for layer in range(40))}),
        ("layers.[1-3].weight", {"layers.1.weight", "layers.2.weight", "layers.3.weight"}),
        ("w?", {"w0"}),
        ("w[0]", {"w[0]"}),  # a name before it is a pattern
        ("w[0-9]", {"w0"}),
        ("body.none", {"body.none"}),
        (["head.bias", "head.bias", "head.b*"], {"head.bias"}),
        ([], set()),
    ],
)
def test_a_view_has_the_tensors_that_were_named(client, tensors, expected):
    with client.view("net", tensors=tensors) as view, client.view("net") as whole:
        assert set(view) == expected
        assert len(view) == len(expected)
        for name in expected:
            assert raw(view.tensor(name)) == raw(whole.tensor(name))
        assert set(view.state_dict()) == expected
        assert "body.weight" not in view
        with pytest.raises(KeyError):
            view["body.weight"]
        assert view.image_metadata["emad.profile"] == "ema"


@pytest.mark.parametrize(
    "tensors, sentence",
    [
        ("haed.weight", "model 'net' has no tensor 'haed.weight' in this profile; the nearest is 'head.weight'"),
        (["head.*", "bdy.*"], "model 'net' has no tensor that matches 'bdy.*' in this profile; the nearest is 'body."),
        ("*.wieght", "model 'net' has no tensor that matches '*.wieght' in this profile; the nearest is 'head.weight'"),
    ],
)
def test_names_that_mean_nothing_are_told_the_nearest(client, tensors, sentence):
    with pytest.raises(emad.SystemCallError) as error:
        client.view("net", tensors=tensors)
    assert sentence in str(error.value)


def test_a_view_of_one_dtype_is_read_in_no_other(client):
    """What came shorter has lost what another dtype would want."""
    with client.view("net", dtype="bf16", tensors="count") as view:
        buffer = ctypes.create_string_buffer(8)
        for dtype in (0, 4):  # as the view was opened
            view._library.emad_view_read(view._handle, 0, dtype, buffer, 8)
        assert int.from_bytes(buffer.raw, "little") == 3
        assert view._library.emad_view_read(view._handle, 0, 3, buffer, 8) == -10018
        assert b"was opened as BF16, and is asked for F16" in view._library.emad_error()


def test_a_watch_copies_what_is_named(daemon, proxy):
    with emad.Client(proxy.url) as client:
        before = proxy.returned
        for view in client.watch("net", until_step=3, dtype="bf16", tensors=iter(["head.bias"])):
            assert (view.step, list(view), view.tensor("head.bias").dtype) == (3, ["head.bias"], torch.bfloat16)
        assert proxy.returned - before < 50000


def test_what_a_profile_drops_is_not_there(client):
    with pytest.raises(emad.SystemCallError, match="no tensor that matches 'kept"):
        client.view("net", "slow", tensors="kept.*")


def returned(proxy, **options):
    with emad.Client(proxy.url) as client:
        client.ping()
        before = proxy.returned
        with client.view("net", **options) as view:
            list(view)
        return proxy.returned - before


def test_float32_comes_as_bf16_in_half_of_the_bytes(daemon, proxy):
    values = {"w": np.random.default_rng(7).standard_normal(4 * CHUNK, np.float32)}
    with emad.Client(daemon.url) as client, client.trainer("large", values, profiles={"ema": "constant:decay=0.5"}):
        pass
    counts = {}
    with emad.Client(proxy.url) as client:
        for dtype in (None, "f64", "f32", "bf16", "f8_e4m3"):
            before = proxy.returned
            client.view("large", dtype=dtype).close()
            counts[dtype] = proxy.returned - before
    assert counts[None] > 16 * CHUNK
    # What gets longer is widened here.
    assert counts["f64"] <= counts["f32"] <= counts[None]
    assert 0.49 < counts["bf16"] / counts["f32"] < 0.51
    assert 0.24 < counts["f8_e4m3"] / counts["f32"] < 0.26


def test_nothing_travels_but_the_header_and_the_tensors_that_were_named(proxy):
    header = returned(proxy, tensors=[])
    assert header < 20000
    for tensors, bytes_ in (("head.bias", 4000), ("head.*", 1204000), (["body.double", "count"], 512)):
        found = returned(proxy, tensors=tensors) - header
        assert bytes_ <= found < bytes_ * 1.01 + 500, tensors
    assert 602000 <= returned(proxy, tensors="head.*", dtype="bf16") - header < 610000


def test_many_small_tensors_come_with_few_requests(daemon, proxy):
    """More of them than one request may name, and none beside another."""
    values = {f"{layer}.{kind}": np.full(3, layer, np.float32) for layer in range(2500) for kind in ("bias", "weight")}
    with emad.Client(daemon.url) as here, here.trainer("many", values, profiles={"ema": "constant:decay=0.5"}):
        for dtype in (None, "bf16"):
            before = here.status()["counters"]["chunks_sent"]
            with emad.Client(proxy.url) as there:
                with there.view("many", dtype=dtype, tensors="*.bias") as found:
                    assert len(found) == 2500
                    for layer in range(0, 2500, 7):
                        assert (found.tensor(f"{layer}.bias") == torch.full((3,), layer).to(found.tensor("0.bias").dtype)).all()
            # Three for the tensors, and one for the header.
            assert here.status()["counters"]["chunks_sent"] - before == 4


def test_a_part_is_of_one_version_while_training_goes_on(daemon, proxy):
    """Every element is its step: a mixture would show."""

    def whole(step):
        return {"a": np.full(700_000, step, np.float32), "b": np.full(3, step, np.float64), "c": np.full(9, step, np.float32)}

    stop = threading.Event()
    with emad.Client(daemon.url) as local, local.trainer("race", whole(0), profiles={"last": "constant:decay=0"}) as trainer:

        def train():
            step = 0
            while not stop.is_set():
                step += 1
                trainer.push(step, whole(step), wait=True)

        thread = threading.Thread(target=train)
        thread.start()
        try:
            with emad.Client(proxy.url) as client:
                for turn in range(40):
                    with client.view("race", dtype=DTYPES[1 + turn % 2], tensors=["a", "b"]) as view:
                        for name in ("a", "b"):
                            assert (view[name] == view.step).all()
        finally:
            stop.set()
            thread.join()


def test_ranges_of_bytes_are_those_of_the_file(daemon, proxy, tmp_path):
    file = tmp_path / "net.safetensors"
    with emad.Client(daemon.url) as here, emad.Client(proxy.url) as there:
        here.export("net", "ema", file)
        whole = file.read_bytes()
        size = there.read_image("net", count=0).image_bytes
        assert size == len(whole)
        for offset, count in ((0, 8), (1, 1), (size - 5, 5), (12345, 2 * CHUNK + 7), (0, size), (size, 0)):
            for client in (here, there):
                part = client.read_image("net", "ema", offset=offset, count=count)
                assert part.data == whole[offset : offset + count]
                assert (part.step, part.updates, part.image_bytes) == (3, 3, size)
        before = proxy.returned
        there.read_image("net", offset=5000, count=3000)
        assert 3000 <= proxy.returned - before < 3500
        for client in (here, there):
            for offset, count in ((size, 1), (0, size + 1), (2**64 - 1, 2)):
                with pytest.raises(emad.ArgumentError, match=f"the image has {size}"):
                    client.read_image("net", offset=offset, count=count)
            with pytest.raises(emad.NoModelError):
                client.read_image("nothing", count=0)
            with pytest.raises(emad.TimeoutError):
                client.read_image("net", count=0, min_step=4, timeout=0.1)


def test_a_daemon_that_ends_while_a_part_is_copied_is_told(tmp_path):
    port = free_port()
    with running(tmp_path / "run", f"[network]\nlisten=tcp://127.0.0.1:{port}\nanonymous=push\n") as daemon:
        values = {"w": np.ones(4 * CHUNK, np.float32), "v": np.ones(5, np.float32)}
        with emad.Client(daemon.url) as client, client.trainer("net", values, profiles={"ema": "constant:decay=0.5"}):
            pass
        proxy = Proxy(port)
        with emad.Client(proxy.url, timeout=1) as client:
            client.ping()
            counting = proxy.returned

            def die():
                while proxy.returned < counting + 3 * CHUNK:
                    pass
                daemon.kill()

            thread = threading.Thread(target=die)
            thread.start()
            with pytest.raises((emad.AwayError, emad.TimeoutError)):
                for _ in range(20):
                    client.view("net", dtype="bf16", tensors="w").close()
            thread.join()
        proxy.close()


def test_emactl_watch_fetches_no_tensor(proxy, emactl):
    environment = {**os.environ, "EMAD_SOCKET": proxy.url}
    before = proxy.returned
    done = subprocess.run(
        [emactl, "watch", "net", "--until-step", "3", "--json"], env=environment, capture_output=True, timeout=30
    )
    assert json.loads(done.stdout.splitlines()[0])["step"] == 3
    assert proxy.returned - before < 60000


def test_emactl_get_fetches_one_tensor(daemon, proxy, emactl):
    with emad.Client(daemon.url) as client, client.view("net") as view:
        expected = view["head.bias"]
    environment = {**os.environ, "EMAD_SOCKET": proxy.url}

    def get(*arguments):
        before = proxy.returned
        done = subprocess.run([emactl, "get", *arguments], env=environment, capture_output=True, timeout=30)
        return done, proxy.returned - before

    done, byte_count = get("net", "head.bias", "--npy")
    assert np.array_equal(np.load(io.BytesIO(done.stdout)), expected)
    # That one and the header, of an image of several megabytes.
    assert byte_count < 4000 + 20000
    done, byte_count = get("net:slow", "head.bias", "--json")
    assert json.loads(done.stdout)["elements"] == 1000
    assert byte_count < 4000 + 20000
    done, _ = get("net", "haed.bias")
    assert done.returncode != 0
    assert b"no tensor 'haed.bias' in this profile; the nearest is 'head.bias'" in done.stderr
