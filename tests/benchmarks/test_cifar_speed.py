"""benchmarks/cifar_speed.py: the held-out images and the clock that goes on after a stop."""

import json
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import cifar
import cifar_speed


def test_held_out_images_leave_the_training_and_take_the_place_of_the_test():
    data = cifar.generated(40)
    part = cifar_speed.held_out(data, 10)
    assert (len(part.pretrain), len(part.train), len(part.test)) == (30, 30, 10)
    names = {*part.train.names, *part.test.names}
    assert part.train.names == part.pretrain.names and len(names) == 40
    for images in (part.train, part.test):  # the labels stay with their pictures
        where = [int(name) for name in images.names]
        assert np.array_equal(images.array, data.train.array[where])
        assert np.array_equal(images.labels, data.train.labels[where])


def _training(knn=None) -> SimpleNamespace:
    return SimpleNamespace(journal=SimpleNamespace(others=[]), knn=knn)


def _spend(seconds: float) -> float:
    until = time.process_time() + seconds
    while time.process_time() < until:
        pass
    return 0.5


def test_minutes_leave_out_the_time_of_k_nn(tmp_path):
    training = _training(SimpleNamespace(top1=lambda backbone: _spend(0.5)))
    minutes = cifar_speed.Minutes(training, tmp_path / "minutes.jsonl")
    _spend(0.1)
    top1 = training.knn.top1(None)
    minutes({"step": 5, "epoch": 1.0, "knn_top1": top1})
    assert 0.1 <= 60 * minutes.total < 0.4
    assert minutes.curve() == [(minutes.total, 1.0, 0.5)]


def test_minutes_go_on_from_the_checkpoint_and_forget_what_is_done_again(tmp_path):
    file = tmp_path / "minutes.jsonl"
    rows = [{"step": step, "epoch": step / 5, "minutes": step / 1.0, "knn_top1": step / 100} for step in (5, 10, 15)]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    minutes = cifar_speed.Minutes(_training(), file)
    minutes({"step": 12, "epoch": 2.4})  # the checkpoint was that of step 10
    assert 10.0 <= minutes.total < 10.1
    kept = [json.loads(line) for line in file.read_text().splitlines()]
    assert [row["step"] for row in kept] == [5, 10, 12]
    assert [epoch for _, epoch, _ in minutes.curve()] == [1.0, 2.0]
