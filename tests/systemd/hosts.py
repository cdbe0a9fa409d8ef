#!/usr/bin/env python3
"""
The README's section on other hosts, followed by its letter on two of them, in network namespaces: one with the service
under a systemd of its own (host.sh), and one for trainer and evaluator that shares nothing with it but the cable. What
stands in the section's blocks is what is run. Exit status 77, with a reason, where there can be no such hosts.

The steps build on each other and run in this order.
"""
import contextlib
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import time

import machine

ADDRESSES = {"averages.example": "10.252.7.1", "away.example": "10.252.7.2"}
NETWORKS = {"averages": f"emad-averages-{os.getpid()}", "away": f"emad-away-{os.getpid()}"}

README = open(os.path.join(machine.ROOT, "README.md"), encoding="utf-8").read()
SECTION = README.split("\n## Trainers and evaluators on other hosts\n")[1].split("\n## ")[0]
BLOCKS = [
    (language, re.sub(r"^   ", "", text, flags=re.M))
    for language, text in re.findall(r"^   ```(\w+)\n(.*?)^   ```", SECTION, re.S | re.M)
]
CERTIFICATES, SETTINGS, UNIT, START, INSTALL, TRAIN, EVALUATE = (text for _, text in BLOCKS)

# What `sudo` and `scp` are to a test that is root already, and where there is no ssh.
SUDO = '#!/bin/sh\nexec "$@"\n'
SCP = '#!/bin/sh\nfor last; do :; done\nwhile [ $# -gt 1 ]; do [ "$1" = -p ] || cp -p "$1" "$AWAY"; shift; done\n'

# The README's example of a training script, with a model and something to do.
TRAINING = """
import torch

import emad.torch

torch.manual_seed(0)
model = torch.nn.Linear(100, 10)
opt = torch.optim.SGD(model.parameters(), lr=0.01)
ema = emad.torch.ModelEMA(model, decay=0.9999, tau=2000, optimizer=opt, name="run42/net")
for _ in range(3000):
    loss = model(torch.randn(8, 100)).square().mean()
    opt.zero_grad()
    loss.backward()
    opt.step()
    ema.update(model)
with ema.average_parameters(model):
    torch.save(model.state_dict(), "averaged.pt")
ema.save("best.safetensors")
"""

# Reads the file as anybody would who has no library for it.
EVALUATION = """
import json, struct, sys

path, step = sys.argv[1], int(sys.argv[3])
with open(path, "rb") as file:
    header = json.loads(file.read(struct.unpack("<Q", file.read(8))[0]))
assert int(header["__metadata__"]["emad.step"]) == step, header["__metadata__"]
assert header["weight"]["shape"] == [10, 100]
print(step, path, flush=True)
"""


def run(*command):
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        print(f"skipped: {' '.join(command)}: {done.stderr.strip()}")
        sys.exit(77)


@contextlib.contextmanager
def cable():
    """Two namespaces, and what connects them."""
    if os.geteuid() != 0 or not shutil.which("ip"):
        print("skipped: hosts in namespaces need root, and ip (iproute2)")
        sys.exit(77)
    try:
        for name in NETWORKS.values():
            run("ip", "netns", "add", name)
        ends = [("averages.example", NETWORKS["averages"]), ("away.example", NETWORKS["away"])]
        run("ip", "-n", ends[0][1], "link", "add", "cable", "type", "veth", "peer", "name", "cable", "netns", ends[1][1])
        for host, name in ends:
            run("ip", "-n", name, "addr", "add", f"{ADDRESSES[host]}/24", "dev", "cable")
            run("ip", "-n", name, "link", "set", "cable", "up")
            run("ip", "-n", name, "link", "set", "lo", "up")
        yield
    finally:
        for name in NETWORKS.values():
            subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)


class Away:
    """The host of trainer and evaluator: nothing of emad is on it but what the README's commands put there."""

    MOUNTS = """
        set -e
        for place in etc usr/local; do
            copy=$1/${place//\\//-}
            mkdir -p "$copy" "$copy.work"
            mount -t overlay overlay -o "lowerdir=/$place,upperdir=$copy,workdir=$copy.work" "/$place"
        done
        cp "$1"/../hosts /etc/hosts
        cp "$1"/../sudo /usr/local/bin/
        echo ready
        exec sleep 300
    """

    def __init__(self, folder):
        self.home = os.path.join(folder, "away")
        mounts = os.path.join(folder, "mounts")
        for each in (self.home, mounts):
            os.mkdir(each)
        with open(os.path.join(folder, "hosts"), "w", encoding="utf-8") as hosts:
            hosts.writelines(f"{address} {name}\n" for name, address in ADDRESSES.items())
        with open(os.path.join(folder, "sudo"), "w", encoding="utf-8") as sudo:
            sudo.write(SUDO)
        os.chmod(os.path.join(folder, "sudo"), 0o755)
        run("mount", "-t", "tmpfs", "tmpfs", mounts)
        self._mounts = mounts
        self.process = subprocess.Popen(
            ["nsenter", f"--net=/run/netns/{NETWORKS['away']}", "unshare", "--mount", "bash", "-c", self.MOUNTS, "bash", mounts],
            stdout=subprocess.PIPE, text=True,
        )
        assert self.process.stdout.readline() == "ready\n"

    def open(self, script, folder=None, **environment):
        """A shell there. The interpreter is the one that runs this."""
        path = f"{os.path.dirname(sys.executable)}:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        return subprocess.Popen(
            ["nsenter", "-t", str(self.process.pid), "--mount", "--net", "bash", "-ec", f"cd {folder or self.home}\n{script}"],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
            env={"PATH": path, "LANG": "C.UTF-8", "HOME": self.home, "PYTHONPATH": f"{self.home}/site", **environment},
        )

    def run(self, script, seconds=120, **environment):
        process = self.open(script, **environment)
        try:
            output, errors = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            raise
        assert process.returncode == 0, f"{script}: {process.returncode}: {output}{errors}"
        return output

    def close(self):
        self.process.kill()
        self.process.wait()
        subprocess.run(["umount", self._mounts], check=False)


away = None


def has(module):
    return importlib.util.find_spec(module) is not None


# ---- the steps -------------------------------------------------------------------------------------------------------


def the_section_is_as_it_is_read_here(_host):
    assert [language for language, _ in BLOCKS] == ["sh", "ini", "ini", "sh", "sh", "sh", "sh"]


def the_service_runs_as_the_quick_start_left_it(host):
    host.run("systemd-sysusers")
    host.run("systemctl", "daemon-reload")
    host.run("systemctl", "enable", "--now", "emad")
    host.ping()


def certificates_and_tokens_are_made(host):
    for name, text in (("sudo", SUDO), ("scp", SCP)):
        host.write(f"/usr/local/bin/{name}", text)
        host.run("chmod", "755", f"/usr/local/bin/{name}")
    # The folder is there on both sides: what scp copies lies where the other host finds it.
    host.run("env", f"AWAY={host.folder}/away", "bash", "-ec",
             f"mkdir /tmp/keys && cd /tmp/keys\n{CERTIFICATES}")
    files = host.run("stat", "-c", "%n:%U:%G:%a", "/etc/emad/tokens", "/etc/emad/daemon.key", "/etc/emad/daemon.crt").stdout
    assert files.split() == [
        "/etc/emad/tokens:root:emad:640", "/etc/emad/daemon.key:root:emad:640", "/etc/emad/daemon.crt:root:root:644",
    ], files
    assert sorted(os.listdir(away.home)) == ["ca.crt", "evaluator.token", "trainer.token"]


def clients_install_what_they_need(_host):
    built = f"export BUILD={machine.BUILD}\n" if machine.BUILD != "release" else ""
    commands, pip = INSTALL.strip().rsplit("\n", 1)
    process = away.open(built + commands, folder=machine.ROOT)
    output, errors = process.communicate(timeout=120)
    assert process.returncode == 0, output + errors
    assert pip == "pip install client/python"
    shutil.copytree(os.path.join(machine.ROOT, "client/python/emad"), f"{away.home}/tree/client/python/emad",
                    ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(os.path.join(machine.ROOT, "client/python/pyproject.toml"), f"{away.home}/tree/client/python")
    if not has("pip") or not has("setuptools"):
        # Where the package is taken from is all that pip would change.
        shutil.copytree(f"{away.home}/tree/client/python/emad", f"{away.home}/site/emad")
        return "this interpreter has no pip with setuptools: the package is copied"
    # Without the network that pip would get setuptools from.
    away.run(f"cd tree; {sys.executable} -m {pip} --no-index --no-build-isolation --no-deps --target {away.home}/site")
    return None


def the_network_is_opened(host):
    away.run("! emactl --timeout 1 ping", EMAD_SOCKET="tls+tcp://averages.example:7475", EMAD_TLS_CA="ca.crt")
    host.write("/etc/emad/emad.conf.d/network.conf", SETTINGS)
    host.write("/etc/systemd/system/emad.service.d/override.conf", UNIT)
    host.run("systemctl", "daemon-reload")  # which `systemctl edit` does by itself
    host.run("bash", "-ec", START)
    assert host.property("ActiveState") == "active"
    host.ping()


def a_trainer_pushes_and_an_evaluator_follows(host):
    if not has("torch"):
        return "this interpreter has no PyTorch"
    for name, text in (("train.py", TRAINING), ("evaluate.py", EVALUATION)):
        with open(os.path.join(away.home, name), "w", encoding="utf-8") as file:
            file.write(text)
    trainer = away.open(TRAIN, OMP_NUM_THREADS="1")
    host.wait("a registration", lambda: "run42/net" in host.run("emactl", "list").stdout or trainer.poll() is not None)
    watch = away.open(EVALUATE)
    try:
        output, errors = trainer.communicate(timeout=120)
        assert trainer.returncode == 0, output + errors
        assert "answered in" in output and os.path.exists(f"{away.home}/averaged.pt"), output
        seen = []
        due = time.monotonic() + 30
        while not seen or seen[-1] != 3000:
            assert time.monotonic() < due and watch.poll() is None, (seen, watch.communicate())
            line = watch.stdout.readline()
            if found := re.match(r"(\d+) \S+\.safetensors$", line):
                seen.append(int(found.group(1)))
        assert seen == sorted(seen) and len(seen) <= 3, seen
    finally:
        os.killpg(watch.pid, 15)
        watch.communicate()
    # What the evaluator got is what is served on the daemon's host, and what the trainer has saved.
    host.run("emactl", "export", "run42/net", "-o", "/tmp/here.safetensors")
    away.run("emactl export run42/net -o there.safetensors", **evaluator())
    here = host.run("sha256sum", "/tmp/here.safetensors").stdout.split()[0]
    assert away.run("sha256sum there.safetensors").split()[0] == here
    return None


def evaluator():
    names = dict(re.findall(r"(EMAD_\w+)=(\S+)", EVALUATE))
    assert names.keys() == {"EMAD_SOCKET", "EMAD_TLS_CA", "EMAD_TOKEN_FILE"}
    return names


def an_evaluator_may_only_read(host):
    refused = away.run("emactl remove run42/net 2>&1 || echo refused", **evaluator())
    assert "may not admin" in refused and "refused" in refused, refused
    assert "run42/net" in host.run("emactl", "list").stdout or not has("torch")


def other_tokens_come_with_a_reload(host):
    host.run("bash", "-ec", "sed -i s/^evaluator/auditor/ /etc/emad/tokens && systemctl reload emad")
    away.run("emactl ping && emactl list", **evaluator())


def networks_that_were_not_named_are_not_let_in(host):
    """The service manager drops their packets: to a client the daemon is silent, and it is told where to look."""
    host.write("/etc/systemd/system/emad.service.d/override.conf", UNIT.replace("10.0.0.0/8", "192.0.2.0/24"))
    host.run("systemctl", "daemon-reload")
    host.run("systemctl", "restart", "emad")
    said = away.run("emactl --timeout 1 ping 2>&1 || :", **evaluator())
    if "emad 0" in said:
        return "this kernel does not filter by address for a service"
    assert "IPAddressAllow=" in said or "no daemon answers" in said, said
    return None


TESTS = (
    the_section_is_as_it_is_read_here, the_service_runs_as_the_quick_start_left_it, certificates_and_tokens_are_made,
    clients_install_what_they_need, the_network_is_opened, a_trainer_pushes_and_an_evaluator_follows,
    an_evaluator_may_only_read, other_tokens_come_with_a_reload, networks_that_were_not_named_are_not_let_in,
)


if __name__ == "__main__":
    with cable(), machine.installed(network=NETWORKS["averages"]) as HOST:
        away = Away(HOST.folder)
        try:
            HOST.write("/etc/hosts", "".join(f"{address} {name}\n" for name, address in ADDRESSES.items()))
            STATUS = machine.run_all(HOST, TESTS)
        finally:
            away.close()
    sys.exit(STATUS)
