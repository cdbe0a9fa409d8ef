"""The README's examples on profiles, steps and guards do what it says."""

import os
import re
import shlex
import subprocess
from pathlib import Path

import torch

README = (Path(__file__).parents[2] / "README.md").read_text()
SECTION = README.split("\n## Profiles, steps and guards\n")[1].split("\n## ")[0]


class Network(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = torch.nn.Linear(2, 3)
        self.lora_a = torch.nn.Linear(3, 3)
        self.norm = torch.nn.BatchNorm1d(3)
        self.head = torch.nn.Linear(3, 1)


def test_the_examples_run_in_the_order_in_which_they_stand(client, daemon, emactl, tmp_path):
    names = {"c": client, "model": Network(), "loss": 0.5}
    environment = {**os.environ, "EMAD_SOCKET": daemon.url, "PATH": f"{emactl.parent}:{os.environ['PATH']}"}
    blocks = re.findall(r"```(\w+)\n(.*?)```", SECTION, re.S)
    assert [language for language, _ in blocks] == ["python", "python", "sh", "python", "sh"]
    reports = []
    for language, text in blocks:
        if language == "python":
            exec(text, names)
            reports.append(names["trainer"].report)
            assert names["trainer"].flush().refused_count == 0
            continue
        client.export("run42/net", "ema", tmp_path / "net-ema.safetensors")
        for line in text.splitlines():
            done = subprocess.run(shlex.split(line), env=environment, cwd=tmp_path, capture_output=True, text=True)
            assert done.returncode == 0, f"{line}: {done.stderr}"
    assert reports[0].startswith("ema: ") and "2 by drop=head.*" in reports[0] and "2 by average=lora_*" in reports[0]
    assert names["trainer"].last_step == 90
    with client.view("run42/net") as view:
        assert view.metadata == {"epoch": 3}
    with client.view("run43/net") as view:
        assert view.updates == 120000
    names["trainer"].close()
    client.remove("run42/net")
    client.remove("run43/net")
