"""Classes of other libraries. A test that wants one which is not installed is skipped, and says so."""

import importlib.util

import pytest


def library(name):
    return pytest.importorskip(name, reason=f"{name} is not installed: tests/setup.sh gets it from PyPI")


def torch_ema_class():
    return library("torch_ema").ExponentialMovingAverage


def ema_pytorch_class():
    return library("ema_pytorch").EMA


def timm_class():
    """ModelEmaV3 out of the one file that it is in: the rest of timm wants torchvision."""
    timm = importlib.util.find_spec("timm")
    if timm is None:
        pytest.skip("timm is not installed: tests/setup.sh gets it from PyPI")
    path = f"{timm.submodule_search_locations[0]}/utils/model_ema.py"
    spec = importlib.util.spec_from_file_location("timm_model_ema", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.ModelEmaV3


def diffusers_class():
    try:
        from diffusers.training_utils import EMAModel
    except (ImportError, RuntimeError) as error:
        pytest.skip(f"diffusers is not installed ({error})")
    return EMAModel
