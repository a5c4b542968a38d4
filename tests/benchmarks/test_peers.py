"""benchmarks/peers.py: every trainer gets the same photos, the same starting weights and as many steps as fit."""

import json
import sys
from argparse import Namespace
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import peers
import peers_apart

from softedge.data.images import Data, FileImages
from softedge.records import InputSpec


@pytest.fixture
def photos(tmp_path):
    """Three training photos and one test photo of two classes."""
    names = ["a/1.png", "b/2.png", "b/3.png", "a/4.png"]
    for name in names:
        (tmp_path / "all" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8)).save(tmp_path / "all" / name)
    images = FileImages(tmp_path / "all", names, np.array([0, 1, 1, 0], np.int64))
    train, test = images.subset([0, 1, 2]), images.subset([3])
    spec = InputSpec(size=8, resize=8, mean=(0.5,) * 3, std=(0.5,) * 3)
    return Data(source="x", classes=("a", "b"), spec=spec, pretrain=train, train=train, test=test)


def test_steps_that_fit_use_the_time_to_the_end(monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(peers_apart.time, "process_time", lambda: clock[0])

    def train(steps):
        clock[0] += 3 + 2 * steps  # 3 seconds to begin

    steps = peers_apart.steps_that_fit(train, seconds=103)
    before = clock[0]
    train(steps)
    assert clock[0] - before == 103


def test_a_peer_apart_gets_the_photos_and_weights_that_timm_loads(photos, monkeypatch):
    parts = ("train", "test")

    def run(command, **options):  # in place of the other Python
        job = json.loads(Path(command[-1]).read_text())
        found = {part: [(Path(file).stem, label) for file, label in peers_apart.photos(job, part)] for part in parts}
        network = timm.create_model("tf_efficientnet_lite0", num_classes=0)
        network.load_state_dict(torch.load(job["weights"]))  # strict: every weight is there, under timm's name
        assert options["env"]["OMP_NUM_THREADS"] == "1"
        row = {"found": found, "seconds": job["seconds"], "mean": job["mean"], "python": command[0]}
        return Namespace(returncode=0, stdout=f"some log\n{json.dumps(row)}\n")

    monkeypatch.setattr(peers.subprocess, "run", run)
    row = peers.apart("autogluon", photos, Namespace(autogluon="python-of-its-own", minutes=2, seed=0))
    assert row["found"] == {"train": [["0", "a"], ["1", "b"], ["2", "b"]], "test": [["0", "a"]]}
    assert (row["seconds"], row["mean"], row["python"]) == (120, [0.5] * 3, "python-of-its-own")


def test_a_peer_that_fails_ends_the_benchmark_with_its_last_words(photos, monkeypatch):
    failed = Namespace(returncode=3, stdout="No module named 'autogluon'")
    monkeypatch.setattr(peers.subprocess, "run", lambda command, **options: failed)
    with pytest.raises(SystemExit, match="autogluon: exit code 3\nNo module named 'autogluon'"):
        peers.apart("autogluon", photos, Namespace(autogluon="python", minutes=2, seed=0))
