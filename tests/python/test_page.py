"""The page in a real browser: it shows what there is, whatever it is called, and breaks none of its own rules."""

import html
import os
import re
import shutil
import subprocess

import numpy
import pytest

import emad
from conftest import Web

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
PROFILES = {"ema": "constant:decay=0.5", "slow": "constant:decay=0.9"}
HOSTILE = "<img src=x onerror=document.title='owned'>\"'</script><script>document.title='owned'</script>"

pytestmark = pytest.mark.skipif(not BROWSER, reason="no browser is installed (Debian: chromium)")


def browse(web: Web, tmp_path, *options: str, fragment: str = "") -> tuple:
    """The page after some rounds, as markup, and what the browser had to say."""
    done = subprocess.run(
        [
            BROWSER, "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
            f"--user-data-dir={tmp_path / 'browser'}", "--enable-logging=stderr", "--virtual-time-budget=9000", *options,
            "--dump-dom", f"http://127.0.0.1:{web.port}/{fragment}",
        ],
        capture_output=True, text=True, timeout=120, env={**os.environ, "HOME": str(tmp_path)},
    )
    if done.returncode != 0 or "<html" not in done.stdout:
        pytest.skip(f"the browser does not run here: {done.stderr[-500:]}")
    return done.stdout, [line for line in done.stderr.splitlines() if ":CONSOLE" in line]


@pytest.fixture
def models(served, name):
    tensors = {HOSTILE: numpy.ones(1000, "float32"), "plain": numpy.ones(10, "float32")}
    with emad.Client(served.url) as client:
        trainers = [
            client.trainer(f"{name}/{part}", tensors, profiles=PROFILES, attributes={"note": HOSTILE})
            for part in ("first", "second")
        ]
        for step in range(1, 4):
            for trainer in trainers:
                trainer.push(step, {key: value * step for key, value in tensors.items()}, metadata={"note": HOSTILE})
                trainer.flush()
        yield
        for trainer in trainers:
            trainer.close()
        for part in ("first", "second"):
            client.remove(f"{name}/{part}")


def test_it_shows_models_averages_and_versions(web, models, name, tmp_path):
    page, console = browse(web, tmp_path, fragment=f"#{name}%2Fsecond")
    assert not console, console
    body = page.split("</head>", 1)[1]
    assert re.search(r'id="state"[^>]*>live<', body)
    assert f"{name}/first" in body and re.search(rf'id="h-one"[^>]*>{re.escape(name)}/second<', body)
    assert f'href="/v1/models/{name}%2Fsecond/slow.safetensors"' in body
    assert "constant:decay=0.5" in body
    # Plots of something, and the words for those who do not see them.
    assert len(re.findall(r'<path d="M[^"]*L', body)) >= 3
    assert re.search(r'id="drift-now"[^>]*>ema [0-9.]+ %, slow [0-9.]+ %<', body)


def test_a_checkpoint_that_fails_and_a_refusal_are_said(web, served, models, name, tmp_path):
    place = served.directory / "state" / "checkpoints" / f"{name}%first"
    place.parent.mkdir(exist_ok=True)
    place.touch()
    with emad.Client(served.url) as client:
        with pytest.raises(emad.Error):
            client.checkpoint(f"{name}/first")
        tensors = {HOSTILE: numpy.ones(1000, "float32"), "plain": numpy.full(10, numpy.nan, "float32")}
        with client.trainer(f"{name}/first", tensors, profiles=PROFILES, start_step=3) as trainer:
            trainer.push(4, tensors)
            with pytest.raises(emad.RefusedError):
                trainer.flush()
        page, console = browse(web, tmp_path, fragment=f"#{name}%2Ffirst")
    place.unlink()
    assert not console, console
    trouble = re.search(r'<p[^>]*id="trouble"([^>]*)>(.*?)</p>', page)
    assert 'role="alert"' in trouble.group(0) and "hidden" not in trouble.group(1)
    assert f"{name}/first cannot be written to disk: " in trouble.group(2)
    assert "holds 10 NaN or infinite values" in page.split('id="ranks"', 1)[1].split("</tbody>", 1)[0]


def test_tables_stay_tables_to_a_screen_reader_however_they_are_laid_out(web, models, name, tmp_path):
    page, console = browse(web, tmp_path, "--window-size=390,844", fragment=f"#{name}%2Fsecond")
    assert not console, console
    assert page.count('role="table"') == page.count("<table") >= 5
    for row in re.findall(r"<tr.*?</tr>", page.split('id="profiles"', 1)[1].split("</tbody>", 1)[0], re.S):
        assert row.startswith('<tr role="row"')
        # What names a number is beside it where the head of the table is out of sight.
        assert re.findall(r'<th [^>]*role="rowheader"[^>]*data-label="Profile"', row)
        assert re.findall(r'<td [^>]*role="cell"[^>]*data-label="Drift"', row)


def test_names_become_text_and_nothing_else(web, models, name, tmp_path):
    page, console = browse(web, tmp_path, fragment=f"#{name}%2Ffirst")
    assert not console, console
    assert "<title>emad</title>" in page and "owned</title>" not in page
    assert "<img" not in page
    movers = page.split('id="movers"', 1)[1].split("</tbody>", 1)[0]
    cell = re.search(r"<th[^>]*>(.*?)</th>", movers, re.S).group(1)
    assert html.unescape(cell) == HOSTILE


def test_a_fragment_that_names_no_model_shows_another(web, models, tmp_path):
    page, console = browse(web, tmp_path, fragment="#%3Cscript%3Ealert(1)%3C/script%3E")
    assert not console, console
    assert "alert(1)" not in page.split("<main", 1)[1].split("</main", 1)[0]


def contrast(one: str, other: str) -> float:
    """WCAG 2.2's ratio of two colours."""

    def luminance(colour: str) -> float:
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        parts = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2]

    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def test_colours_can_be_told_from_their_ground(web):
    page = web.request("/").text.decode()
    themes = [dict(re.findall(r"--(\w+): (#[0-9a-f]{6})", block)) for block in re.findall(r":root \{(.*?)\}", page, re.S)]
    assert len(themes) == 2 and themes[0].keys() == themes[1].keys()
    for theme in themes:
        for ground in ("card", "ground", "hover", "chosen"):
            for ink in ("ink", "quiet", "mark", "bad"):
                assert contrast(theme[ink], theme[ground]) >= 4.5, (ink, ground)
        for line in range(6):
            assert contrast(theme[f"s{line}"], theme["card"]) >= 3
