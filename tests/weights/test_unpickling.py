"""What a .pth may hold beside its tensors: plain values, of which none is made; code is refused by its name."""

from __future__ import annotations

import collections
import datetime
import functools
import io
import os
import pathlib
import pickle
import types
import warnings

import numpy as np
import pytest
import torch

from softedge.errors import UserError
from softedge.weights import files, unpickling

PLAIN = {
    "posix path": pathlib.PurePosixPath("/data/photos"),
    "windows path": pathlib.PureWindowsPath("C:/data"),
    "path": pathlib.Path("photos"),
    "array": np.arange(6.0).reshape(2, 3),
    "names": np.array(["ant", None], dtype=object),
    "record": np.zeros(2, dtype=[("a", "f4"), ("b", "i8")]),
    "dtype": np.dtype("int16"),
    "kind": np.float16,
    "random state": np.random.RandomState(0).get_state(),
    "defaultdict": collections.defaultdict(list, {"loss": [0.3], "best": [1]}),
    "nested": collections.defaultdict(dict, {"a": collections.defaultdict(float, {"b": 0.5})}),
    "ordered": collections.OrderedDict(a=1),
    "settings": types.SimpleNamespace(rate=0.1, out=pathlib.Path("runs")),
    "date": datetime.datetime(2026, 11, 29, tzinfo=datetime.UTC),
}


@pytest.mark.parametrize("value", PLAIN.values(), ids=PLAIN)
@pytest.mark.parametrize("archive", [True, False])
def test_plain_values_beside_the_weights_are_passed_over(tmp_path, value, archive):
    content = {"config": value, "all": [value], "state_dict": {"layer.weight": torch.arange(3.0)}}
    torch.save(content, tmp_path / "w.pth", _use_new_zipfile_serialization=archive)
    assert files.read_state(tmp_path / "w.pth")["layer.weight"].tolist() == [0, 1, 2]


def unpickled(pickled: bytes):
    """What torch's reader of weights makes of a pickle under the allow-list of ``unpickling.read``."""
    from torch import _weights_only_unpickler as reader

    with unpickling.only_plain():
        return reader.load(io.BytesIO(pickled))


def test_a_windows_path_is_read_on_every_system():
    assert isinstance(unpickled(b"\x80\x02cpathlib\nWindowsPath\nX\x02\x00\x00\x00C:\x85R."), unpickling.StandIn)


def test_no_type_of_a_file_is_made_and_no_function_called():
    """Also those that a library of this process has allowed, and the dtypes that take bytes for addresses."""
    made = []
    theirs = [(lambda *_: made.append("ran"), "argparse.Namespace"), (lambda *_: made.append("ran"), "theirs.Kind")]
    called = b"\x80\x02cargparse\nNamespace\n)R."
    with torch.serialization.safe_globals(theirs):
        before = set(torch.serialization.get_safe_globals())
        assert isinstance(unpickled(called), unpickling.StandIn)
        with pytest.raises(pickle.UnpicklingError, match="theirs.Kind"):
            unpickled(called.replace(b"argparse\nNamespace", b"theirs\nKind"))
        assert set(torch.serialization.get_safe_globals()) == before and not made
    dtype = b"\x80\x02cnumpy\ndtype\nX\x02\x00\x00\x00O8\x85R(K\x03X\x01\x00\x00\x00|NNNK\x08K\x08K\x00tb."
    scalar = b"\x80\x02cnumpy._core.multiarray\nscalar\n" + dtype[2:-1] + b"U\x08AAAAAAAA\x86R."
    assert all(isinstance(unpickled(pickled), unpickling.StandIn) for pickled in (dtype, scalar))
    factory = b"\x80\x02ccollections\ndefaultdict\ncargparse\nNamespace\n\x85R."
    assert type(unpickled(factory)) is dict, "nothing makes missing values"


class Settings:
    """Of a trainer: its class would have to be imported."""


class Ran:
    def __init__(self, function, *arguments):
        self.calls = function, arguments

    def __reduce__(self):
        return self.calls


CODE = {
    "a class": (Settings(), r"it holds \S*test_unpickling.Settings, which"),
    "a function": (Ran(os.system, "echo ran"), r"it holds \w+\.system"),
    "eval": (Ran(eval, "print('ran')"), "it holds eval"),
    "getattr": (Ran(getattr, "text", "upper"), "it holds getattr"),
    "a file": (Ran(open, "w.pth"), "it holds .*open"),
    "numpy's reader": (Ran(np.load, "w.pth"), "it holds numpy.*load"),
    "memory of a file": (Ran(np.memmap, "w.pth"), "it holds numpy.*memmap"),
    "partial": (functools.partial(print, "ran"), "it holds functools.partial"),
    "a factory": (collections.defaultdict(functools.partial(print, "ran")), "it holds functools.partial"),
    "a network": (torch.nn.Linear(2, 2), "it holds torch.nn.modules.linear.Linear"),
}


@pytest.mark.parametrize(("value", "named"), CODE.values(), ids=CODE)
@pytest.mark.parametrize("archive", [True, False])
def test_code_beside_the_weights_is_refused_by_its_name_with_what_to_do(tmp_path, capfd, value, named, archive):
    content = {"state_dict": {"layer.weight": torch.ones(1)}, "extra": value}
    torch.save(content, tmp_path / "w.pth", _use_new_zipfile_serialization=archive)
    with pytest.raises(UserError, match=named) as error:
        files.read_state(tmp_path / "w.pth")
    text = str(error.value)
    assert text.endswith(", which is code and is not loaded; save model.state_dict() alone)"), text
    assert "\n" not in text and "safe_globals" not in text and "`" not in text
    assert "ran" not in capfd.readouterr().out.split()


@pytest.mark.filterwarnings("error")
def test_what_torch_cannot_read_as_plain_weights_is_one_line_without_its_advice(tmp_path):
    torch.save({"w": torch.ones(1)}, tmp_path / "new.pth", pickle_protocol=4)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.trace(torch.nn.Linear(2, 2), torch.ones(1, 2)).save(str(tmp_path / "script.pth"))
    torch.save({"w": torch.ones(1)}, tmp_path / "cut.pth")
    (tmp_path / "cut.pth").write_bytes((tmp_path / "cut.pth").read_bytes()[:200])
    said = {
        "new": "torch.save did not write it as plain weights: Unsupported operand 149; save model.state_dict() alone",
        "script": "it holds a TorchScript program, which is code and is not loaded; save model.state_dict() alone",
        "cut": "PytorchStreamReader failed reading zip archive: failed finding central directory",
    }
    for name, why in said.items():
        with pytest.raises(UserError) as error:
            files.read_state(tmp_path / f"{name}.pth")
        assert str(error.value) == f"{tmp_path / name}.pth cannot be read as weights ({why})"
