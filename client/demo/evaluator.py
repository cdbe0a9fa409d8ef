"""The demo's second process: reads the averaged weights out of the daemon's shared memory while they are being trained.

evaluator.py MODEL STEP...: waits for a version of each step or a later one, measures its accuracy on the test images
and prints a line of JSON. EMAD_SOCKET says where the daemon is.
"""

import json
import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "python"))

import emad  # noqa: E402
from network import Network, accuracy, digits  # noqa: E402

WAIT_SECONDS = 300


def evaluate(client, model, step, network, test):
    """One line: the version that was read, and how well it does."""
    while True:
        try:
            with client.view(model, min_step=step, timeout=WAIT_SECONDS) as view:
                network.load_state_dict(view.state_dict())
                view.check()
                found = {"version": view.version, "step": view.step, "published": view.published}
        except emad.RevokedError:
            continue  # a newer version needed the memory: read that one
        return {**found, "accuracy": accuracy(network, *test)}


def main():
    torch.set_num_threads(1)
    model, steps = sys.argv[1], [int(step) for step in sys.argv[2:]]
    _, test = digits()
    network = Network()
    with emad.Client() as client:
        print(json.dumps({"ready": True}), flush=True)
        for step in steps:
            print(json.dumps(evaluate(client, model, step, network, test)), flush=True)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
