"""A checkpoint as a file: written whole or not at all, read without running code, and never believed about files."""

import io
import os
import re
import warnings
import zipfile
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.plugins.io import TorchCheckpointIO
from torch import Tensor
from torch.serialization import get_unsafe_globals_in_checkpoint

from linreg.safety.allowed import import_allowed, public_path, python_numbers
from linreg.safety.safe_yaml import MAX_DEPTH
from linreg.system.atomic import atomic_write
from linreg.system.errors import InputError, RunError, given, one_line
from linreg.system.messages import UNSAFE_PICKLE

FORMAT = 1  # of a checkpoint; the next number when an older linreg could not read it
MAX_VALUES = 1_000_000  # of hyperparameters, a vocabulary among them
CONTENT = {"class_path": str, "state_dict": dict}


def read_checkpoint(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Reads a checkpoint of this template, on the CPU and without unpickling code; InputError says what it is not."""
    if not str(path) or "\0" in str(path):
        raise InputError(f"--ckpt_path {str(path)!r}: the path of a checkpoint file is expected")
    if "://" in str(path):
        raise InputError(f"{path}: a checkpoint is read from a local file only; download it first")
    if not Path(path).is_file():
        found = "a folder or the like, and no" if Path(path).exists() else "no such"
        raise InputError(f"{path}: {found} checkpoint file; a run leaves best.ckpt and last.ckpt in its checkpoints/")
    try:
        with zipfile.ZipFile(path) as archive:
            if any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist()):
                raise InputError(f"{path} is no checkpoint of this template: it is packed")  # gigabytes, perhaps
            if broken := archive.testzip():
                raise InputError(f"{path} is damaged (at {broken}); take another checkpoint of the run")
        with warnings.catch_warnings(), torch.sparse.check_sparse_tensor_invariants():  # or an index may lead anywhere
            warnings.simplefilter("ignore")  # of a damaged pickle; what matters of it is an error
            checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except InputError:
        raise
    except Exception as error:
        if any(sign in str(error) for sign in UNSAFE_PICKLE):
            raise InputError(f"{path} holds objects that are not safe to load; load only what you trust") from None
        found = f"{path} is no whole checkpoint, or a damaged one ({one_line(error)})"
        raise InputError(f"{found}; take another one of the run") from None
    _check_content(path, checkpoint)
    return checkpoint


def _check_content(path: str | os.PathLike[str], checkpoint: Any) -> None:
    """InputError for a file of another program, or of a newer version of this one."""
    if not isinstance(checkpoint, dict) or not all(isinstance(checkpoint.get(k), t) for k, t in CONTENT.items()):
        raise InputError(f"{path} is no checkpoint of this template")
    version, ours = str(checkpoint.get("pytorch-lightning_version")), lightning.__version__
    if checkpoint.get("format", FORMAT) not in range(FORMAT + 1):
        raise InputError(f"{path} was written by a newer version of this template; update linreg to read it")
    theirs, known = ([int(part) for part in re.findall(r"\d{1,6}", each)[:2]] for each in (version, ours))
    if theirs > known:
        raise InputError(f"{path} was written by Lightning {version}, and this is {ours}; update lightning to read it")
    weights, settings = checkpoint["state_dict"], checkpoint.setdefault("hyper_parameters", {})
    is_whole = re.fullmatch(r"2\.\d+[\w.+]*", version) is not None
    is_whole &= all(isinstance(checkpoint.get(name, ""), str) for name in ("config", "run", "file"))
    tensors = (value for name, value in weights.items() if not str(name).endswith("_extra_state"))
    is_whole &= all(isinstance(value, Tensor) and is_stored(value) for value in tensors)
    is_whole &= isinstance(settings, dict) and _count(settings, MAX_VALUES) >= 0
    if not is_whole or not all(isinstance(name, str) for name in (*weights, *settings)):
        raise InputError(f"{path} is a checkpoint of this template with parts that are missing or of another kind")


def is_stored(value: Tensor) -> bool:
    """Whether a file holds as many numbers as a tensor has: one that is repeated takes memory once it is copied."""
    if value.layout == torch.sparse_coo:
        return is_stored(value._indices()) and is_stored(value._values())
    size = value.untyped_storage().nbytes() if value.layout == torch.strided and not value.is_meta else 0
    return size >= value.numel() * value.element_size()


def _count(value: Any, most: int, depth: int = MAX_DEPTH) -> int:
    """How many more values than those in nested lists and dicts there may be; negative if there are too many."""
    if isinstance(value, dict | list | tuple) and most >= 0:
        for inner in value.values() if isinstance(value, dict) else value:
            most = _count(inner, most, depth - 1) if depth else -1
            if most < 0:
                break
    return most - 1


def load_model(path: str | os.PathLike[str]) -> LightningModule:
    """The trained model of a checkpoint, whichever its class, ready to predict."""
    checkpoint = read_checkpoint(path)
    class_path = public_path(checkpoint["class_path"])
    name = class_path.rpartition(".")[2]
    try:
        cls = import_allowed(class_path, str(path))
    except (ImportError, AttributeError) as error:
        raise InputError(f"{path} holds a {class_path}, which cannot be imported from here: {error}") from None
    if not isinstance(cls, type) or not issubclass(cls, LightningModule):
        raise InputError(f"{path} holds a {class_path}, which is no LightningModule")
    with given(f"{path} holds no {name} that could be made again"):
        check_sizes(cls, checkpoint)
        own: Any = {"_class_path": class_path} if "_class_path" in checkpoint["hyper_parameters"] else {}  # no alias
        model = cls.load_from_checkpoint(Path(path), map_location="cpu", weights_only=True, **own).eval()
        check_numbers(in_saved_precision(model, path), checkpoint["state_dict"])
        columns = checkpoint.get("columns")
        if isinstance(columns, dict) and not hasattr(model, "feature_names"):  # which knows nothing of its table
            names = {"feature_names": columns["features"], "target_names": columns["targets"]}
            vars(model).update(names | {"levels": columns.get("levels", {})})
        return model


def in_saved_precision(model: Any, path: Any) -> Any:
    """The model of a checkpoint, in float64 where its weights there are: of a run with --precision 64-true."""
    is_file = isinstance(path, str | os.PathLike) and os.path.isfile(path)
    saved = torch.load(path, "cpu", weights_only=True, mmap=True)["state_dict"] if is_file else {}
    if any(getattr(saved.get(k), "dtype", None) == torch.float64 != v.dtype for k, v in model.named_parameters()):
        model.double().load_state_dict(saved, strict=False)
    return model


def check_sizes(cls: type, checkpoint: dict[str, Any]) -> None:
    """InputError for hyperparameters that do not fit the weights; found without the memory that they would need."""
    settings = {k: v for k, v in checkpoint["hyper_parameters"].items() if not k.startswith("_")}
    columns = checkpoint.get("columns")
    for side, names in columns.items() if isinstance(columns, dict) else ():
        if isinstance(names, list) and settings.get(f"num_{side}", len(names)) != len(names):
            raise InputError(f"the checkpoint has {len(names)} {side}, which its hyperparameters contradict")
    try:
        with torch.device("meta"):
            made = cls(**settings)
    except Exception:  # a constructor that looks at its numbers, or one that only fails; the real one will say
        return
    state, buffers, lazy = made.state_dict(), dict(made.named_buffers()), torch.nn.parameter.is_lazy
    may_grow = {k for k, v in state.items() if lazy(v) or (k in buffers and v.numel() < MAX_VALUES)}
    expected, saved = (
        {name: name in may_grow or getattr(value, "shape", None) for name, value in state.items()}
        for state in (state, checkpoint["state_dict"])
    )
    if expected != saved:
        raise InputError(f"the weights of the checkpoint are not those of a {cls.__name__} with its hyperparameters")


def check_numbers(model: LightningModule, state: dict[str, Tensor]) -> None:
    """Refuses a state that would be loaded into a model without a word, and is none.

    Raises:
        InputError: for complex weights where the model has real ones, since torch drops the imaginary part.
        RunError: for weights that are no numbers, of a training that has diverged.
    """
    weights = dict(model.named_parameters())
    for name, value in model.state_dict().items():
        if not isinstance(value, Tensor) or not isinstance(state.get(name), Tensor):
            continue
        if value.is_complex() != state[name].is_complex():
            raise InputError(f"the checkpoint's {name} is of another kind of numbers; take another checkpoint")
        if name in weights and state[name].isnan().any():  # a buffer may be NaN from its beginning
            raise RunError(f"the checkpoint's {name} is nan: its training had diverged; take an earlier checkpoint")


def packed(content: Any) -> io.BytesIO:
    """What a file of some content would hold."""
    torch.save(content, buffer := io.BytesIO())
    buffer.seek(0)
    return buffer


class CheckpointFile(TorchCheckpointIO):
    """Makes a checkpoint in memory before it touches the disk, loads none that holds code, removes only its own."""

    folder: Path | None = None  # that of the run, where it has one

    def __init__(self) -> None:
        self.own: set[Path] = set()  # what this run wrote, in this process or, as ``own_checkpoint`` has found, before

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        path = Path(path)
        content = checkpoint | {"format": FORMAT, "file": path.name}
        with given("the checkpoint"):
            buffer = packed(content)
        if names := get_unsafe_globals_in_checkpoint(buffer):  # of numpy's numbers perhaps, as of a rate by np.cos
            content = {key: part if key == "state_dict" else python_numbers(part) for key, part in content.items()}
            names = get_unsafe_globals_in_checkpoint(buffer := packed(content))
        if names:
            part = next(name for name, each in content.items() if get_unsafe_globals_in_checkpoint(packed(each)))
            what = f"{', '.join(sorted(names, key=len)[:2])} in its {part!r}, and could not be read again"
            raise InputError(f"the checkpoint would hold {what}; save numbers, texts, lists and tensors only")
        for folder in path.absolute().parents if self.folder else ():
            if folder.is_symlink() and folder.is_relative_to(Path(self.folder or "").absolute() / "checkpoints"):
                raise InputError(f"{folder} is a link, which leads out of the run's folder; remove it")
        is_there = self.folder is None or self.folder.is_dir()  # a run whose folder was taken away does not come back
        path.parent.mkdir(parents=is_there, exist_ok=True)
        atomic_write(path, buffer.getbuffer())
        self.own.add(path.absolute())

    def load_checkpoint(self, path: Any, *args: Any, **kwargs: Any) -> dict[str, Any]:
        return read_checkpoint(path)

    def remove_checkpoint(self, path: Any) -> None:
        # Lightning's own removes whole folders, and takes their names from what a checkpoint says.
        path = Path(path).absolute()
        if path in self.own and path.is_file() and not path.is_symlink():
            path.unlink()
            self.own.discard(path)
