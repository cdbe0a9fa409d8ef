"""What averages of low-precision weights are worth: a long run beside exact arithmetic."""

import numpy as np
import torch

DECAY = 0.9999
CALLS = 100_000


def drifting_weights(count, width):
    """bfloat16 weights that wander from 1 to 1.4 with the noise of training on top; one row a call."""
    generator = torch.Generator().manual_seed(5)
    drift = 1 + 0.4 * torch.linspace(0, 1, count)[:, None]
    return (drift + 0.02 * torch.randn(count, width, generator=generator)).to(torch.bfloat16)


def exact_average(start, rows, decay):
    """The same recurrence in float64."""
    average = start.double().numpy().copy()
    for row in rows.double().numpy():
        average *= decay
        average += (1 - decay) * row
    return average


def test_a_hundred_thousand_bfloat16_weights_keep_their_average(client, name):
    rows = drifting_weights(CALLS, 16)
    start = torch.ones(16, dtype=torch.bfloat16)
    weights = {"w": start.clone()}
    profiles = {"ema": f"constant:decay={DECAY}", "double": f"constant:decay={DECAY},precision=f64"}
    with client.trainer(name, weights, profiles=profiles) as trainer:
        for call in range(1, CALLS + 1):
            weights["w"].copy_(rows[call - 1])
            trainer.push(call, weights)
        flushed = trainer.flush(timeout=60)
        assert (flushed.step, flushed.refused_count) == (CALLS, 0)
    expected = exact_average(start, rows, DECAY)
    assert 1.3 < expected.min() and expected.max() < 1.4
    with client.view(name, "ema") as view:
        assert view.updates == CALLS
        assert view.tensor("w").dtype == torch.float32
        np.testing.assert_allclose(view["w"], expected, rtol=2e-5)
    with client.view(name, "double") as view:
        np.testing.assert_allclose(view["w"], expected, rtol=1e-13)

    in_place = start.clone()  # what an average in the weights' own type becomes: nothing
    for row in rows:
        in_place.lerp_(row, 1 - DECAY)
    assert torch.equal(in_place, start)


def test_decays_near_one_need_double_precision(client, name):
    """Each update is below half a unit in the last place of float32: such a shadow never moves."""
    decay, calls = 0.999999, 2000
    weights = {"w": torch.full((8,), 1.01)}
    profiles = {"single": f"constant:decay={decay}", "double": f"constant:decay={decay},precision=f64"}
    with client.trainer(name, {"w": torch.ones(8)}, profiles=profiles) as trainer:
        for call in range(1, calls + 1):
            trainer.push(call, weights)
        trainer.flush()
    with client.view(name, "single") as view:
        assert (view["w"] == 1).all()
    with client.view(name, "double") as view:
        target = float(np.float32(1.01))
        assert view["w"].dtype == np.float64
        np.testing.assert_allclose(view["w"], target + (1 - target) * decay**calls, rtol=1e-14)
        assert (view["w"] > 1.0000199).all()
