"""The training loop on generated pictures: what it writes, and that no kill changes what comes out."""

import json
import multiprocessing
import os
import signal
from pathlib import Path

import pytest
import torch
from small import data, recipe

from softedge import backbones
from softedge.errors import Interrupted, UserError
from softedge.run import Run
from softedge.ssl import train
from softedge.stages import pretrain

STEPS = 9  # three epochs of three


def state_of(run: Run) -> dict:
    return torch.load(run.folder("pretrain") / "last.pt", weights_only=True)


def same(a, b) -> bool:
    """Equal to the last bit, through dicts, lists and tensors."""
    if isinstance(a, torch.Tensor):
        return a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    return a == b


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory) -> Run:
    run = Run(tmp_path_factory.mktemp("whole"))
    pretrain.stage(run, recipe(), data())
    return run


def test_a_run_leaves_its_curve_its_checkpoint_and_a_backbone_that_loads(uninterrupted):
    folder = uninterrupted.folder("pretrain")
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [0, 3, 6, 9]
    wanted = {"loss", "lr", "momentum", "alpha", "queue_fill", "std", "effective_rank", "uniformity", "alignment"}
    assert wanted <= lines[-1].keys()
    assert {"s_data", "s_keys", "s_queries", "s_loss", "s_backward", "s_update"} <= lines[-1].keys()
    assert {"knn_top1"} <= lines[-1].keys()
    result = uninterrupted.result("pretrain")
    assert result.metrics["steps"] == STEPS
    assert {"loss", "knn_top1", "images_per_second"} <= result.metrics.keys()
    loaded = backbones.load(folder / "backbone.safetensors")
    kept = state_of(uninterrupted)["method"]
    assert torch.equal(loaded.net.conv_stem.weight, kept["encoder.backbone.net.conv_stem.weight"])


def test_a_finished_run_is_not_done_again(uninterrupted):
    before = (uninterrupted.folder("pretrain") / "last.pt").stat().st_mtime_ns
    pretrain.stage(uninterrupted, recipe(), data())
    assert (uninterrupted.folder("pretrain") / "last.pt").stat().st_mtime_ns == before


def _train_and_die(root: Path, step: int) -> None:
    torch.set_num_threads(1)
    done, after_step = 0, train.Training.update

    def update(self, *args):
        nonlocal done
        if done == step:
            os.kill(os.getpid(), signal.SIGKILL)
        done += 1
        after_step(self, *args)

    train.Training.update = update
    pretrain.stage(Run(root), recipe(), data())


def killed_after(run: Run, step: int) -> None:
    """Train in another process that SIGKILLs itself in the middle of step ``step``.

    Not a fork of this one: once autograd has started threads here, whatever test did that, a fork cannot train.
    """
    clean = multiprocessing.get_context("forkserver")
    clean.set_forkserver_preload(["torch", "softedge.stages.pretrain"])
    child = clean.Process(target=_train_and_die, args=(run.root, step))
    child.start()
    child.join()
    assert child.exitcode == -signal.SIGKILL


@pytest.mark.parametrize("step", [1, 4, 8])
def test_a_run_killed_by_sigkill_ends_in_the_same_bits(uninterrupted, tmp_path, step):
    run = Run(tmp_path)
    killed_after(run, step)
    assert run.result("pretrain") is None
    pretrain.stage(run, recipe(), data())
    ours, theirs = state_of(run), state_of(uninterrupted)
    # Everything but the clock: weights, key encoder, queue, pointer, optimizer, position, statistics, random states.
    assert same(ours, theirs)
    curves = [
        [(e["step"], e.get("loss"), e.get("knn_top1")) for e in r.result("pretrain").details["curves"]]
        for r in (run, uninterrupted)
    ]
    assert curves[0] == curves[1]


def interrupted(run: Run, step: int, number: signal.Signals, monkeypatch) -> str:
    update, done = train.Training.update, 0

    def and_signal(self, *args):
        nonlocal done
        update(self, *args)
        done += 1
        if done == step:
            os.kill(os.getpid(), number)

    with monkeypatch.context() as patch, pytest.raises(Interrupted) as stopped:
        patch.setattr(train.Training, "update", and_signal)
        pretrain.stage(run, recipe(), data())
    return str(stopped.value)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_finishes_the_step_writes_a_checkpoint_and_says_how_to_go_on(
    uninterrupted, tmp_path, monkeypatch, number
):
    run = Run(tmp_path)
    handler = signal.getsignal(number)
    message = interrupted(run, 5, number, monkeypatch)
    assert signal.getsignal(number) is handler
    assert "stopped at epoch 1.7 of 3" in message
    assert "run the same command again" in message
    assert state_of(run)["position"]["step"] == 5
    pretrain.stage(run, recipe(), data())
    assert same(state_of(run), state_of(uninterrupted))


def test_a_damaged_checkpoint_falls_back_to_the_one_before(uninterrupted, tmp_path):
    run = Run(tmp_path)
    killed_after(run, 7)
    path = run.folder("pretrain") / "last.pt"
    path.write_bytes(path.read_bytes()[:2000])
    pretrain.stage(run, recipe(), data())
    assert same(state_of(run), state_of(uninterrupted))


def test_a_training_whose_checkpoints_are_gone_says_that_it_starts_again(tmp_path, capsys):
    run = Run(tmp_path)
    killed_after(run, 7)
    assert "step 0" not in capsys.readouterr().err  # a first start is nothing to tell
    for name in ("last.pt", "previous.pt"):
        (run.folder("pretrain") / name).unlink()
    pretrain.stage(run, recipe(), data())
    assert f"left no checkpoint in {run.folder('pretrain')}; starting at step 0" in capsys.readouterr().err


@pytest.mark.parametrize("damage", [lambda data: b"", lambda data: data[:-1] + b"?", lambda data: b"?" + data[1:]])
def test_a_training_whose_checkpoints_are_all_damaged_does_not_start_again_unasked(tmp_path, damage):
    run = Run(tmp_path)
    killed_after(run, 7)
    paths = [run.folder("pretrain") / name for name in ("last.pt", "previous.pt")]
    for path in paths:
        path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(UserError, match=r"no checkpoint can be used \(.*last\.pt: .*previous\.pt: .*--force"):
        pretrain.stage(run, recipe(), data())
    paths[1].unlink()
    with pytest.raises(UserError, match="no checkpoint can be used"):
        pretrain.stage(run, recipe(), data())
    assert pretrain.stage(run, recipe(), data(), force=True).metrics["steps"] == STEPS


def test_weights_that_become_nan_in_the_last_step_are_not_a_finished_training(tmp_path, monkeypatch):
    update = train.Training.update

    def overflowing(self, views, index):
        update(self, views, index)
        if self.step == STEPS:  # its loss was finite
            with torch.no_grad():
                self.method.backbone.net.conv_stem.weight[0, 0, 0, 0] = float("nan")

    monkeypatch.setattr(train.Training, "update", overflowing)
    run = Run(tmp_path)
    with pytest.raises(UserError, match=r"conv_stem\.weight is not finite after step 9 \(epoch 3\.0\); the learning"):
        pretrain.stage(run, recipe(ssl__knn_every=0), data())
    assert run.result("pretrain") is None
    assert state_of(run)["position"]["step"] == 6
    assert not (run.folder("pretrain") / "backbone.safetensors").exists()


def test_unfinished_work_of_another_recipe_is_not_continued(tmp_path):
    run = Run(tmp_path)
    killed_after(run, 4)
    with pytest.raises(UserError, match=r"unfinished work with other settings \(recipe.optim.lr: 0.05 -> 0.01"):
        pretrain.stage(run, recipe(optim__lr=0.01), data())


def test_a_recipe_that_cannot_start_leaves_nothing_behind(tmp_path):
    run = Run(tmp_path)
    with pytest.raises(UserError, match="unknown backbone 'mobilenetv3_smal_050'; did you mean"):
        pretrain.stage(run, recipe(backbone__name="mobilenetv3_smal_050"), data())
    assert not run.folder("pretrain").exists()


def test_a_learning_rate_that_explodes_stops_in_one_line(tmp_path):
    with pytest.raises(UserError, match=r"the loss is nan at step \d+ .*try --set optim.lr="):
        pretrain.stage(Run(tmp_path), recipe(optim__lr=1e30, ssl__knn_every=0), data())


def test_accumulation_takes_the_same_number_of_updates(tmp_path):
    result = pretrain.stage(
        Run(tmp_path), recipe(optim__accumulate=2, ssl__epochs=1, optim__warmup_epochs=0, ssl__knn_every=0), data()
    )
    assert result.metrics["steps"] == 3
    assert result.skipped == {"knn_top1": "ssl.knn_every is 0"}


def test_accumulated_gradients_are_those_of_the_whole_batch(tmp_path):
    gradients = []
    for parts in (1, 2):
        made = train.Training(Run(tmp_path), _supervised(parts), data(), tmp_path)
        made.method.eval()  # frozen statistics: BatchNorm sees half of the batch otherwise
        views, index = next(made.views.epoch(0))
        parameters = made.method.trained_parameters()
        before = [p.detach().clone() for p in parameters]
        made.update(views, index)  # plain SGD: the step is the gradient, up to the rate
        gradients.append([b - p.detach() for b, p in zip(before, parameters)])
    for one, two in zip(*gradients):
        assert torch.allclose(one, two, atol=1e-5)


def _supervised(accumulate: int):
    from softedge import config

    values = {
        "data": {"size": 32, "resize": 32, "workers": 0},
        "backbone": {"name": "mobilenetv3_small_050"},
        "ssl": {"method": "supervised", "epochs": 2, "batch": 16, "knn_every": 2},
        "optim": {"lr": 0.05, "warmup_epochs": 0, "accumulate": accumulate},
    }
    return config.build(values)


def test_the_supervised_baseline_runs_through_the_same_loop(tmp_path):
    result = pretrain.stage(Run(tmp_path), _supervised(1), data())
    assert result.metrics["loss"] < 0.75  # log 2 is chance


def test_a_supervised_run_without_labels_is_refused(tmp_path):
    unlabelled = data()
    unlabelled.pretrain.labels[:] = -1
    with pytest.raises(UserError, match="needs labelled images, found none"):
        pretrain.stage(Run(tmp_path), _supervised(1), unlabelled)


def test_bf16_keeps_depthwise_convolutions_in_float32_and_trains(tmp_path):
    made = train.Training(Run(tmp_path), recipe(optim__precision="bf16"), data(), tmp_path)
    seen = {}

    def note(layer, inputs, output):
        seen[layer.groups > 1] = output.dtype

    for layer in made.method.backbone.modules():
        if isinstance(layer, torch.nn.Conv2d):
            layer.register_forward_hook(note)
    steps = made.views.epoch(0)
    for _ in range(2):
        made.update(*next(steps))
    assert seen == {True: torch.float32, False: torch.bfloat16}
    assert torch.isfinite(made.loss_sum)


def test_a_full_disk_is_one_line_and_leaves_the_last_checkpoint(tmp_path, monkeypatch):
    import errno

    from softedge.ssl import checkpoint

    run = Run(tmp_path)
    killed_after(run, 4)
    before = state_of(run)

    def full(*args, **kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(checkpoint.torch, "save", full)
    line = r"the disk is full \(.*last\.pt\); free some space, and run the same command again; it "
    with pytest.raises(UserError, match=line + "resumes from the last checkpoint"):
        pretrain.stage(run, recipe(), data())
    assert same(state_of(run), before)
    with pytest.raises(UserError, match=line + "starts at step 0: there is no checkpoint yet"):
        pretrain.stage(Run(tmp_path / "new"), recipe(), data())


def test_a_folder_of_this_name_cannot_shadow_the_standard_library():
    import subprocess
    import sys
    from pathlib import Path

    import softedge

    package = Path(softedge.__file__).parent
    assert not (package / "ssl" / "__init__.py").exists()
    code = f"import sys; sys.path.insert(0, {str(package)!r}); import ssl; print(ssl.SSLContext.__module__)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "ssl"
