"""The alerts and the Grafana dashboard: right by Prometheus' own tools, and about metrics that there are."""

import json
import re
import shutil
import subprocess

import pytest

from conftest import ROOT, Web

FOLDER = ROOT / "daemon" / "monitoring"
needs_promtool = pytest.mark.skipif(not shutil.which("promtool"), reason="promtool is not installed (Debian: prometheus)")


def names_in(text: str) -> set:
    return set(re.findall(r"\bemad_[a-z_]+\b", text))


@needs_promtool
def test_the_rules_are_valid_and_fire_when_they_should():
    for command in (
        ["check", "rules", FOLDER / "emad.rules.yml"],
        ["test", "rules", ROOT / "tests" / "monitoring" / "emad.rules.test.yml"],
    ):
        done = subprocess.run(["promtool", *command], capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stdout + done.stderr


def test_what_they_name_is_among_the_metrics(web: Web):
    text = web.request("/metrics", Accept="text/plain").text.decode()
    there = set(re.findall(r"^# TYPE (\S+) ", text, re.M))
    rules = "\n".join(
        line for line in (FOLDER / "emad.rules.yml").read_text().splitlines() if line.strip().startswith("expr:")
    )
    dashboard = json.loads((FOLDER / "grafana.json").read_text())
    expressions = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    expressions += [variable["query"]["query"] for variable in dashboard["templating"]["list"][1:]]
    named = names_in(rules) | names_in("\n".join(expressions))
    assert len(named) > 20
    assert {re.sub(r"_bucket$", "", name) for name in named} <= there


def test_panels_have_a_place_of_their_own():
    taken = set()
    for panel in json.loads((FOLDER / "grafana.json").read_text())["panels"]:
        place = panel["gridPos"]
        cells = {(x, y) for x in range(place["x"], place["x"] + place["w"]) for y in range(place["y"], place["y"] + place["h"])}
        assert not cells & taken and max(x for x, _ in cells) < 24, panel["title"]
        taken |= cells
