"""Takes over averages from other libraries, and gives them back.

::

    loaded = emad.migrate.load("last.pt", trust=True)    # <emad.migrate.Loaded yolo: tensors 349, updates 81234, ...>
    emad.migrate.start(client, "run42/net", loaded)      # the daemon's average goes on from it

    with client.view("run42/net") as view:
        reference.load_state_dict(emad.migrate.export(view, "averaged-model"))

The kinds of states are those of `python3 -m emad.migrate --help`, which does the same from the command line.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import pickle
import re
import sys
import zipfile
from pathlib import Path
from typing import Any, Dict, List, Mapping, NoReturn, Optional, Sequence, Union

import torch

from ._client import Client
from ._errors import ArgumentError, Error
from ._layouts import LAYOUTS, Layout, Loaded, diffusers_schedule, named
from ._modules import canonical_name, unwrap
from ._view import View

__all__ = ["Loaded", "export", "load", "save", "start"]

_COUNTED_IN_TENSORS = ("averaged-model", "ema-pytorch")  # the kinds whose count is a tensor as well

_DIFFUSERS_WEIGHTS = ("diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.bin")


def load(
    path_or_object: Any, kind: str = "auto", *, module: Optional[torch.nn.Module] = None, trust: bool = False
) -> Loaded:
    """Reads the average out of a file, a folder, or the state that a library's state_dict() gave.

    kind: how it is stored; "auto" finds it out by the keys. ArgumentError names the keys and the known kinds.
    module: the model. The states of torch_ema and diffusers hold lists of parameters, in the order of
    module.parameters(); without it they are called param.0, param.1, ...
    trust: may the file run code? A pickled module, as in the checkpoints of YOLO, can only be loaded by running what
    the file says. Without it such a file raises an ArgumentError.
    The tensors are not copied and stay as they are stored; whole files are loaded to the CPU.
    """
    layout = _layout(kind, ("auto", "safetensors"))
    if isinstance(path_or_object, (str, os.PathLike)):
        loaded = _load_path(Path(path_or_object), layout, kind, module, trust)
    else:
        state = path_or_object
        if not isinstance(state, Mapping) and callable(getattr(state, "state_dict", None)):
            state = state.state_dict()
        loaded = _load_state(state, layout, module)
    if module is not None:
        buffers = {canonical_name(name) for name, _ in unwrap(module).named_buffers()}
        loaded.buffers = frozenset(buffers.intersection(loaded.tensors))
    return loaded


def export(
    source: Union[View, Loaded, Mapping[str, torch.Tensor]],
    kind: str,
    *,
    module: Optional[torch.nn.Module] = None,
    updates: Optional[int] = None,
    schedule: Optional[str] = None,
) -> Any:
    """The state that another library's load_state_dict() takes; of kind "yolo" a checkpoint's part.

    source: an open view, whose values are copied, what load() gave, or names and tensors.
    module: the model. It gives the states their names, to torch_ema and diffusers their order, to what the average does
    not hold (buffers) its values, and to ema_pytorch the online model.
    updates, schedule: where the source does not tell, or to be told otherwise. torch_ema and diffusers store the values
    of their schedules, so that another average needs one of theirs here.
    """
    layout = _layout(kind)
    assert layout is not None
    return layout.write(_average_of(source, updates, schedule), module)


def save(
    source: Union[View, Loaded, Mapping[str, torch.Tensor]],
    kind: str,
    path: Union[str, "os.PathLike[str]"],
    *,
    module: Optional[torch.nn.Module] = None,
    updates: Optional[int] = None,
    schedule: Optional[str] = None,
) -> None:
    """Writes what export() makes with torch.save; of kind "safetensors" a file as emad itself writes them."""
    if _layout(kind, ("safetensors",)) is not None:
        torch.save(export(source, kind, module=module, updates=updates, schedule=schedule), path)
        return
    from safetensors.torch import save_file  # the package needs it for nothing else

    average = _average_of(source, updates, schedule)
    facts = {"emad.updates": average.updates, "emad.step": average.step, "emad.schedule": average.schedule}
    metadata = {"format": "pt", **{key: str(value) for key, value in facts.items() if value is not None}}
    # Each with memory of its own: tied weights share theirs, which the format cannot tell.
    save_file({name: tensor.cpu().contiguous().clone() for name, tensor in average.tensors.items()}, path, metadata)


def start(
    client: Client,
    model: str,
    loaded: Loaded,
    profile: Optional[str] = None,
    step: Optional[int] = None,
    *,
    updates: Optional[int] = None,
    resume: str = "never",
    attributes: Optional[Mapping[str, Any]] = None,
) -> int:
    """Starts a model at the daemon whose average is the loaded one, for a training to continue.

    Returns the step at which it stands; the training's pushes must name later ones, as those of the drop-ins do.

    profile: "ema=yolo:decay=0.9999", the average's name and schedule; None: "ema" with the loaded schedule.
    step: the trainer's step of the average; None: the loaded one, else the count of updates, as the drop-ins count.
    updates: how often it has been updated, where the state does not tell.
    resume="never" replaces a model of that name.
    """
    count = loaded.updates if updates is None else updates
    if count is None:
        raise ArgumentError("the state does not tell how often the average was updated; name it: updates= (--updates)")
    if profile is None:
        if loaded.schedule is None:
            raise ArgumentError(
                "the state does not tell the average's schedule; name it: profile= (--profile) ema=...:decay=..."
            )
        profile = f"ema={loaded.schedule}"
    if step is None:
        step = count if loaded.step is None else loaded.step
    with client.trainer(
        model,
        loaded.tensors,
        profiles=[profile],
        attributes=attributes,
        start_step=step,
        resume=resume,
        buffers=loaded.buffers,
    ) as trainer:
        trainer.seed(profile.partition("=")[0], loaded.tensors, updates=count, step=step)
    return step


def _kinds(more: Sequence[str] = ()) -> List[str]:
    return [*more, *(layout.kind for layout in LAYOUTS)]


def _layout(kind: str, more: Sequence[str] = ()) -> Optional[Layout]:
    """None for one of more."""
    plain = kind.replace("_", "-")
    if plain in more:
        return None
    for layout in LAYOUTS:
        if layout.kind == plain:
            return layout
    raise ArgumentError(f"the kind {kind!r} is not known; there are {', '.join(_kinds(more))}")


def _load_state(state: Any, layout: Optional[Layout], module: Optional[torch.nn.Module]) -> Loaded:
    if not isinstance(state, Mapping):
        raise TypeError(f"the state is a {type(state).__qualname__}; what a state_dict() gives is accepted")
    for candidate in LAYOUTS if layout is None else [layout]:
        if candidate.matches(state):
            return candidate.read(state, module)
    keys = [str(key) for key in list(state)[:12]]
    more = f" and {len(state) - len(keys)} more" if len(state) > len(keys) else ""
    known = "; ".join(f"{one.kind}: {one.text}" for one in ([layout] if layout else LAYOUTS))
    raise ArgumentError(
        f"the layout of the state is not {'that of ' + layout.kind if layout else 'known'}: its keys are "
        f"{', '.join(keys) or 'none'}{more}; known is {known}"
    )


def _load_path(
    path: Path, layout: Optional[Layout], kind: str, module: Optional[torch.nn.Module], trust: bool
) -> Loaded:
    if path.is_dir():
        if layout is not None and layout.kind != "diffusers":
            raise ArgumentError(f"'{path}' is a folder, which is never of the kind {kind}")
        return _load_folder(path)
    if _is_safetensors(path):
        return _load_safetensors(path, layout, kind, module)
    if kind == "safetensors":
        raise ArgumentError(f"'{path}' is not a safetensors file")
    return _load_state(_load_pickle(path, trust), layout, module)


def _is_safetensors(path: Path) -> bool:
    with open(path, "rb") as file:
        return file.read(9)[8:] == b"{"  # behind the header's length; a pickle or an archive has none there


def _load_safetensors(
    path: Path, layout: Optional[Layout], kind: str, module: Optional[torch.nn.Module]
) -> Loaded:
    """A file with nothing but tensors, which may be the state of another library all the same."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}
    except SafetensorError as error:
        raise ArgumentError(f"'{path}' is damaged: {error}") from error
    if layout is None and kind == "auto" and "emad.schedule" not in metadata:
        layout = next((one for one in LAYOUTS if one.kind in _COUNTED_IN_TENSORS and one.matches(tensors)), None)
    if layout is not None:
        return _load_state(tensors, layout, module)
    return _with_metadata(Loaded(named(tensors), "safetensors"), metadata)


def _with_metadata(average: Loaded, metadata: Mapping[str, str]) -> Loaded:
    """What emad writes beside the tensors."""
    for key in ("updates", "step"):
        if f"emad.{key}" in metadata:
            setattr(average, key, int(metadata[f"emad.{key}"]))
    average.schedule = metadata.get("emad.schedule")
    return average


def _load_folder(path: Path) -> Loaded:
    """What diffusers' EMAModel.save_pretrained() writes."""
    try:
        configuration = json.loads((path / "config.json").read_text())
    except (OSError, ValueError) as error:
        raise ArgumentError(f"'{path}' is not a folder of EMAModel.save_pretrained(): {error}") from error
    tensors: Dict[str, torch.Tensor] = {}
    for file in _weight_files(path):
        tensors.update(_load_path(file, None, "auto", None, False).tensors)
    if "optimization_step" not in configuration:
        raise ArgumentError(f"'{path / 'config.json'}' has no 'optimization_step': no average was saved there")
    updates = int(configuration["optimization_step"])
    return Loaded(tensors, "diffusers", updates, schedule=diffusers_schedule(configuration))


def _weight_files(path: Path) -> List[Path]:
    for name in _DIFFUSERS_WEIGHTS:
        if (path / name).exists():
            return [path / name]
        index = path / f"{name}.index.json"  # of a large model, in several files
        if index.exists():
            return [path / part for part in sorted(set(json.loads(index.read_text())["weight_map"].values()))]
    raise ArgumentError(f"'{path}' has neither {' nor '.join(_DIFFUSERS_WEIGHTS)}")


def _load_pickle(path: Path, trust: bool) -> Any:
    try:
        with _harmless():
            return torch.load(path, map_location="cpu", weights_only=not trust)
    except pickle.UnpicklingError as error:
        unsafe = re.search(r"Unsupported (?:global: GLOBAL|class) (\S+)", str(error))
        if trust or not (unsafe or zipfile.is_zipfile(path)):
            raise ArgumentError(f"'{path}' is not a file of torch.save, or damaged") from error
        raise ArgumentError(
            f"'{path}' holds {f'a {unsafe[1]}' if unsafe else 'more than tensors'}. Loading objects of Python classes "
            "runs code that the file's author chose: if you trust the author, load it with trust=True (--trust)"
        ) from error
    except (ModuleNotFoundError, AttributeError) as error:
        raise ArgumentError(
            f"'{path}' holds objects of classes that cannot be imported ({error}): put the training's source folder "
            "on PYTHONPATH"
        ) from error
    except (RuntimeError, EOFError) as error:  # a damaged archive, an empty file
        raise ArgumentError(f"'{path}' is not a file of torch.save, or damaged: {error}") from error


def _harmless() -> Any:
    """A context in which plain classes that checkpoints often hold are loaded without trust."""
    if not hasattr(torch.serialization, "safe_globals"):  # torch before 2.5
        return contextlib.nullcontext()
    return torch.serialization.safe_globals([argparse.Namespace])


def _average_of(source: Any, updates: Optional[int], schedule: Optional[str]) -> Loaded:
    if isinstance(source, View):
        copies = {name: tensor.clone() for name, tensor in source.state_dict().items()}
        average = _with_metadata(Loaded(named(copies), "view", source.updates, source.step), source.image_metadata)
        source.check()
    elif isinstance(source, Loaded):
        average = Loaded(source.tensors, source.kind, source.updates, source.step, source.schedule, source.buffers)
    elif isinstance(source, Mapping):
        average = Loaded(named(source), "state-dict")
    else:
        raise TypeError(f"the source is a {type(source).__qualname__}; a view, a Loaded or a state_dict is accepted")
    if updates is not None:
        average.updates = updates
    if schedule is not None:
        average.schedule = schedule
    return average


# The command line


def _parser() -> argparse.ArgumentParser:
    kinds = "".join(f"  {layout.kind:15} {layout.text}\n" for layout in LAYOUTS)
    parser = argparse.ArgumentParser(
        prog="python3 -m emad.migrate",
        description="Takes over the averaged weights that another library has stored. Without --model and --to it\n"
        "only shows what FILE holds.",
        epilog=f"""kinds, found out by themselves unless --kind names one:
  safetensors     of any origin; emad's own files tell count and schedule too
{kinds}
examples:
  python3 -m emad.migrate last.pt                            # what is in it?
  python3 -m emad.migrate last.pt --trust --model run42/net  # the daemon goes on from it
  python3 -m emad.migrate swa.pt --model run42/net --profile ema=averaged-model:decay=0.999
  python3 -m emad.migrate net-ema.safetensors --to timm -o net-ema.pt

Then let the training say name="run42/net", resume="adapt" (emad.torch.ModelEMA and its siblings): it continues that
average, also where its weights are of another dtype than FILE's.
'emactl explain' lists the schedules that --profile and --schedule may name. EMAD_SOCKET says where the daemon is.

exit status: 0 done, 1 it failed (the sentence says why), 2 the command line is wrong""",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("file", metavar="FILE", help="a file, or a folder of EMAModel.save_pretrained()")
    parser.add_argument("--kind", default="auto", help="how FILE is stored (auto)")
    parser.add_argument("--trust", action="store_true", help="FILE may run code: needed for pickled modules, as YOLO's")
    parser.add_argument("--model", metavar="NAME", help="start this model at the daemon; one of that name is replaced")
    parser.add_argument("--profile", metavar="NAME=SCHEDULE", help="its average, where FILE does not tell the schedule")
    parser.add_argument("--updates", metavar="N", type=int, help="how often it was updated, where FILE does not tell")
    parser.add_argument("--step", metavar="N", type=int, help="the trainer's step (that of FILE, else --updates)")
    parser.add_argument("--socket", metavar="URL", help="where the daemon is, instead of EMAD_SOCKET")
    parser.add_argument("--to", metavar="KIND", help="write the state of another library")
    parser.add_argument("-o", "--output", metavar="FILE", help="where --to writes it")
    parser.add_argument("--schedule", metavar="SCHEDULE", help="for --to diffusers, torch-ema, safetensors")
    return parser


def _describe(loaded: Loaded) -> str:
    unknown = "not told"
    elements = sum(tensor.numel() for tensor in loaded.tensors.values())
    dtypes = sorted({str(tensor.dtype).rpartition(".")[2] for tensor in loaded.tensors.values()})
    facts: Dict[str, Any] = {
        "kind": loaded.kind,
        "tensors": f"{len(loaded.tensors)} ({elements} elements; {', '.join(dtypes)})",
        "updates": unknown if loaded.updates is None else loaded.updates,
        "step": unknown if loaded.step is None else loaded.step,
        "schedule": loaded.schedule or unknown,
    }
    return "\n".join(f"{key:9} {value}" for key, value in facts.items())


def _run(options: argparse.Namespace) -> None:
    loaded = load(options.file, options.kind, trust=options.trust)
    if options.updates is not None:
        loaded.updates = options.updates
    if options.to:
        save(loaded, options.to, options.output, schedule=options.schedule)
        print(f"{options.output}: {len(loaded.tensors)} tensors as {options.to}")
    if options.model:
        with Client(options.socket) as client:
            step = start(client, options.model, loaded, options.profile, options.step)
        print(f"{options.model}: {len(loaded.tensors)} tensors, update {loaded.updates}, step {step}")
    if not options.to and not options.model:
        print(_describe(loaded))


def main(arguments: Optional[Sequence[str]] = None) -> int:
    """The command line; returns the exit status."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if bool(options.to) != bool(options.output):
        parser.error("--to KIND and -o FILE belong together")
    try:
        _run(options)
    except (Error, OSError, ImportError, TypeError, ValueError) as error:
        print(f"emad.migrate: {error}", file=sys.stderr)
        return 1
    return 0


def _command() -> NoReturn:
    sys.exit(main())


if __name__ == "__main__":
    _command()
