"""Two processes on one CPU (gloo): the same queue, gradients and verdicts as one process with the whole batch."""

import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import time
import traceback
from pathlib import Path
from unittest import mock

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent / "ssl"))
from small import data, method, recipe, views

from softedge import distributed
from softedge.errors import Interrupted, UserError
from softedge.run import Run
from softedge.ssl import checkpoint, key_norm, train
from softedge.ssl.launch import launch
from softedge.stages import pretrain

WORLD = 2


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _rank(rank: int, port: int, work, arguments, answers) -> None:
    torch.set_num_threads(1)
    os.environ |= {"WORLD_SIZE": str(WORLD), "RANK": str(rank), "LOCAL_RANK": str(rank)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    try:
        with distributed.joined():
            answers.put((rank, work(rank, *arguments), None))
    except BaseException:
        answers.put((rank, None, traceback.format_exc()))


def on_two_ranks(work, *arguments):
    """Run ``work(rank, ...)`` in two processes and return both answers (plain values or NumPy arrays), by rank."""
    # Not forked from here: the threads and locks of whatever ran before in this process would come along.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["softedge.stages.pretrain", "softedge.ssl.train", "timm"])
    answers = context.Queue()
    port = free_port()
    processes = [context.Process(target=_rank, args=(r, port, work, arguments, answers)) for r in range(WORLD)]
    for process in processes:
        process.start()
    got = [answers.get(timeout=120) for _ in processes]
    for process in processes:
        process.join(timeout=30)
    failed = [error for _, _, error in got if error]
    assert not failed, failed[0]
    return [value for _, value, _ in sorted(got, key=lambda item: item[0])]


def _share(tensor: torch.Tensor, rank: int) -> torch.Tensor:
    return tensor.chunk(WORLD)[rank]


def _gather(rank):
    return distributed.gather(torch.arange(3.0) + 10 * rank).numpy()


def test_gathering_is_in_rank_order():
    for gathered in on_two_ranks(_gather):
        assert gathered.tolist() == [0, 1, 2, 10, 11, 12]


def steps(rank: int | None, way: str):
    """Three steps on the same images: all of them, or this rank's half. Returns queue and the last gradients."""
    made = method(key_norm=way, queue=64)
    if way == "ema":
        made.encoder.eval()  # frozen statistics: BatchNorm of half a batch is not that of a whole one
    for step in range(3):
        pair = views(16, seed=step)
        index = torch.arange(16)
        if rank is not None:
            pair, index = (_share(pair[0], rank), _share(pair[1], rank)), _share(index, rank)
        made.zero_grad()
        made(pair, index).backward()
        distributed.average_gradients(made.trained_parameters())
        made.after_step(step / 3)
    return made.queue.keys.numpy(), [p.grad.numpy() for p in made.trained_parameters()]


def test_two_ranks_with_half_a_batch_have_the_queue_and_gradients_of_one_with_all_of_it():
    queue, gradients = steps(None, "ema")
    for queue_there, gradients_there in on_two_ranks(steps, "ema"):
        assert abs(queue - queue_there).max() < 1e-6
        for one, two in zip(gradients, gradients_there):
            assert abs(one - two).max() < 1e-6


@pytest.mark.parametrize("way", ["shuffle", "split"])
def test_two_ranks_enqueue_the_same_keys(way):
    (first, _), (second, _) = on_two_ranks(steps, way)
    assert (first == second).all()


def _cuda_random_state(rank, folder):
    """What a rank gets back after a checkpoint, on pretended GPUs whose random states are the ranks' own."""
    made, given = method(), []
    optimizer = torch.optim.SGD(made.trained_parameters(), 0.1)
    pretended = {
        "is_available": lambda: True,
        "device_count": lambda: WORLD,
        "get_rng_state": lambda device="cuda": torch.full((16,), rank + 1, dtype=torch.uint8),
        "get_rng_state_all": lambda: [torch.full((16,), 1 if rank == n else 0, dtype=torch.uint8) for n in (0, 1)],
        "set_rng_state": lambda state, device="cuda": given.append((torch.device(device).index, state.tolist())),
        "set_rng_state_all": lambda states: given.extend((n, state.tolist()) for n, state in enumerate(states)),
    }
    with mock.patch.multiple(torch.cuda, **pretended):
        checkpoint.save(folder / "last.pt", made, optimizer, {})
        torch.distributed.barrier()
        checkpoint.load(folder / "last.pt", made, optimizer)
    return given


def test_every_rank_gets_back_the_random_state_of_its_own_gpu(tmp_path):
    assert on_two_ranks(_cuda_random_state, tmp_path) == [[(0, [1] * 16)], [(1, [2] * 16)]]


class _Identity(torch.nn.Module):
    def forward(self, x):
        return x


def _shuffled(rank):
    images = _share(torch.arange(8.0)[:, None], rank)
    seen = []
    encoder = _Identity()
    encoder.register_forward_hook(lambda module, inputs, output: seen.append(output.flatten().tolist()))
    keys = key_norm.encode(encoder, images, "shuffle", 4, torch.Generator().manual_seed(1))
    return keys.flatten().tolist(), seen[0]


def test_shuffling_encodes_images_of_both_ranks_and_gives_keys_back_in_order():
    answers = on_two_ranks(_shuffled)
    assert [keys for keys, _ in answers] == [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert sorted(answers[0][1] + answers[1][1]) == list(range(8))
    assert sorted(answers[0][1]) != [0, 1, 2, 3]


def _difference(rank):
    same = [torch.ones(5), torch.arange(4.0)]
    other = [torch.ones(5), torch.arange(4.0) + rank]
    swapped = [torch.tensor([1.0, 2.0] if rank else [2.0, 1.0])]
    return distributed.differing(same), distributed.differing(other), distributed.differing(swapped)


def test_queues_that_differ_are_noticed_even_when_their_sums_agree():
    assert on_two_ranks(_difference) == [(False, True, True)] * 2


def _anyone(rank):
    return distributed.anyone(rank == 1), distributed.anyone(False), float(distributed.mean(torch.tensor(float(rank))))


def test_one_rank_that_wants_to_stop_stops_all():
    assert on_two_ranks(_anyone) == [(True, False, 0.5)] * 2


def _pretrain(rank, folder):
    result = pretrain.stage(Run(folder), recipe(ssl__epochs=1, ssl__knn_every=0, optim__warmup_epochs=0), data())
    return result.metrics["loss"], result.details["world"]


def test_two_ranks_train_end_to_end_and_leave_one_result(tmp_path):
    first, second = on_two_ranks(_pretrain, tmp_path)
    assert first == second
    assert first[1] == 2
    assert Run(tmp_path).result("pretrain").metrics["steps"] == 3
    again = on_two_ranks(_pretrain, tmp_path)  # done before: both ranks skip it
    assert again == [first, second]


def _interrupted(rank, folder):
    """Rank 1 alone gets Ctrl-C in its second step; both stop after it."""
    update = train.Training.update

    def hit(training, *arguments):
        update(training, *arguments)
        if rank == 1 and training.step == 2:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train.Training, "update", hit)
        with pytest.raises(Interrupted, match="checkpoint written"):
            _pretrain(rank, folder)
    return torch.load(folder / "pretrain" / "last.pt", weights_only=True)["position"]["step"] if rank == 0 else 2


@pytest.mark.slow
def test_two_ranks_that_were_stopped_go_on_and_end_in_the_same_bits(tmp_path):
    assert on_two_ranks(_interrupted, tmp_path / "stopped") == [2, 2]
    losses = on_two_ranks(_pretrain, tmp_path / "stopped")
    assert losses == on_two_ranks(_pretrain, tmp_path / "whole")
    ends = [torch.load(tmp_path / name / "pretrain" / "last.pt", weights_only=True) for name in ("stopped", "whole")]
    assert torch.equal(ends[0]["own"], ends[1]["own"])
    assert torch.equal(ends[0]["random"]["torch"], ends[1]["random"]["torch"])
    assert all(torch.equal(value, ends[1]["method"][name]) for name, value in ends[0]["method"].items())


def _left_alone(rank):
    if rank == 1:
        os._exit(9)
    distributed.anyone(False)


@pytest.mark.slow
def test_a_rank_whose_peer_is_gone_ends_in_one_line_with_a_code_of_its_own():
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); import test_distributed as t\n"
        "from softedge import distributed\nwith distributed.joined(): t._left_alone(distributed.rank())"
    )
    where = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "OMP_NUM_THREADS": "1"}
    ranks = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(Path(__file__).parent)],
            env={**os.environ, **where, "RANK": str(rank)},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    said = [process.communicate(timeout=120)[1] for process in ranks]
    assert ranks[0].returncode == distributed.LEFT_ALONE
    assert "rank 0 stops because another rank has ended" in said[0]
    assert "Traceback" not in said[0]


def test_more_gpus_than_there_are_is_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(UserError, match="--gpus 8: this machine has 2; use --gpus 2"):
        launch(["pretrain"], gpus=8)


def test_several_machines_need_an_address(monkeypatch):
    monkeypatch.delenv("MASTER_ADDR", raising=False)
    with pytest.raises(UserError, match="set MASTER_ADDR"):
        launch(["pretrain"], gpus=2, nodes=2)


def test_alone_every_collective_is_a_no_op():
    tensor = torch.arange(3.0)
    assert distributed.gather(tensor) is tensor
    assert (distributed.rank(), distributed.world()) == (0, 1)
    assert distributed.anyone(True)
    assert not distributed.differing([tensor])


def test_slurms_names_are_understood(monkeypatch):
    for name in ("WORLD_SIZE", "RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.setenv(name, "")  # so that what is set below is taken back at the end
        monkeypatch.delenv(name)
    for name, value in {"NTASKS": "16", "PROCID": "5", "LOCALID": "1", "JOB_ID": "1234", "JOB_NODELIST": "n1"}.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    monkeypatch.delenv("SLURM_STEP_NUM_TASKS", raising=False)
    assert distributed.asked_world() == 1  # the batch script itself, not yet under srun
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "16")
    assert distributed.asked_world() == 16
    distributed._read_slurm()
    assert (os.environ["WORLD_SIZE"], os.environ["RANK"], os.environ["LOCAL_RANK"]) == ("16", "5", "1")
    assert os.environ["MASTER_PORT"] == "21234"


def test_a_process_that_sees_one_gpu_uses_it_whatever_its_number(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setenv("LOCAL_RANK", "5")
    assert distributed.device() == torch.device("cuda", 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 8)
    assert distributed.device() == torch.device("cuda", 5)


def softedge_on_two_ranks(tmp_path, *arguments: str, **environment: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "softedge", "pretrain", "--data", "digits", "--recipe", "digits", "--gpus", "2"]
    command += ["--out", str(tmp_path / "run"), "--set", "ssl.epochs=1", "--set", "ssl.knn_every=0", *arguments]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **environment}
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=600)


@pytest.mark.slow
def test_the_command_launches_its_ranks_and_prints_one_result(tmp_path):
    done = softedge_on_two_ranks(tmp_path)
    assert done.returncode == 0, done.stderr
    assert "batch 64, 32 images per process" in done.stderr
    assert done.stdout.count("images_per_second") == 1
    assert Run(tmp_path / "run").result("pretrain").details["world"] == 2


@pytest.mark.parametrize("names", [("RANK", "WORLD_SIZE"), ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS")])
def test_only_rank_0_makes_the_run_folder(monkeypatch, tmp_path, names):
    from softedge.stages import ranks

    seen = []
    monkeypatch.setattr(ranks, "train", lambda run, *rest: seen.append((run.root / "recipe.toml").exists()))
    for name in ("RANK", "WORLD_SIZE", "SLURM_PROCID", "SLURM_STEP_NUM_TASKS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(names[1], "2")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / ".recipe.toml.half").touch()  # what rank 0 is about to rename
    monkeypatch.setenv(names[0], "1")
    pretrain.pretrain("digits", "digits", tmp_path / "run")
    (tmp_path / "run" / ".recipe.toml.half").unlink()
    monkeypatch.setenv(names[0], "0")
    pretrain.pretrain("digits", "digits", tmp_path / "run")
    assert seen == [False, True]


@pytest.mark.slow
def test_ctrl_c_at_the_launcher_alone_stops_all_ranks_with_a_checkpoint(tmp_path):
    command = [sys.executable, "-m", "softedge", "pretrain", "--data", "digits", "--recipe", "digits", "--gpus", "2"]
    command += ["--out", str(tmp_path), "--set", "ssl.knn_every=0"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment, start_new_session=True) as there:
        lines = tmp_path / "pretrain" / "metrics.jsonl"
        while there.poll() is None and not (lines.exists() and lines.stat().st_size):
            time.sleep(0.1)
        there.send_signal(signal.SIGINT)
        said = there.communicate(timeout=120)[1]
    assert there.returncode == 130, said
    assert "stopped: the ranks have ended, the checkpoint" in said
    assert "of 100; run the same command again to resume" in said
    assert "Traceback" not in said
    position = torch.load(tmp_path / "pretrain" / "last.pt", weights_only=True)["position"]
    assert position["step"] >= 22


def ranks_of(launcher: int) -> list[int]:
    children = Path(f"/proc/{launcher}/task/{launcher}/children").read_text().split()
    return [int(child) for child in children if b"pretrain" in Path(f"/proc/{child}/cmdline").read_bytes()]


def running(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0] not in "ZX"
    except OSError:
        return False


def training_on_two_ranks(folder: Path, **environment: str) -> tuple[subprocess.Popen[str], list[int]]:
    """The launcher and its ranks, once the first epoch has been written."""
    command = [sys.executable, "-m", "softedge", "pretrain", "--data", "digits", "--recipe", "digits", "--gpus", "2"]
    command += ["--out", str(folder), "--set", "ssl.knn_every=0"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **environment}
    there = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment, start_new_session=True)
    lines = folder / "pretrain" / "metrics.jsonl"
    while there.poll() is None and not (lines.exists() and lines.stat().st_size):
        time.sleep(0.1)
    return there, ranks_of(there.pid)


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_ranks_whose_launcher_was_killed_write_a_checkpoint_and_end(tmp_path):
    there, ranks = training_on_two_ranks(tmp_path)
    assert len(ranks) == 2
    (tmp_path / "pretrain" / "last.pt").unlink(missing_ok=True)
    there.kill()
    until = time.monotonic() + 60
    while any(map(running, ranks)) and time.monotonic() < until:
        time.sleep(0.1)
    left = [rank for rank in ranks if running(rank)]
    for rank in left:
        os.kill(rank, signal.SIGKILL)
    there.communicate(timeout=60)
    assert not left
    position = torch.load(tmp_path / "pretrain" / "last.pt", weights_only=True)["position"]
    assert position["step"] >= 22


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_a_rank_that_no_longer_answers_ends_the_others_within_the_time_asked_for(tmp_path):
    wait = {"SOFTEDGE_RANK_TIMEOUT": "5", "TORCH_ELASTIC_SHUTDOWN_TIMEOUT": "2"}
    there, ranks = training_on_two_ranks(tmp_path, **wait)
    os.kill(ranks[1], signal.SIGSTOP)
    begun = time.monotonic()
    said = there.communicate(timeout=120)[1]
    assert time.monotonic() - begun < 60
    assert there.returncode == 2
    assert "has not answered for 5 s (SOFTEDGE_RANK_TIMEOUT): the other ranks end" in said
    assert "a rank no longer answers, so all ranks were stopped" in said and "Traceback" not in said
    assert not any(map(running, ranks))


@pytest.mark.parametrize("asked", ["soon", "0", "nan"])
def test_a_rank_timeout_that_is_no_time_is_refused(monkeypatch, asked):
    from softedge.ssl import watch

    monkeypatch.setenv(watch.TIMEOUT, asked)
    monkeypatch.setattr(distributed, "world", lambda: 2)
    with pytest.raises(UserError, match=f"SOFTEDGE_RANK_TIMEOUT={asked}: give a number of seconds"), watch.watched():
        pass


@pytest.mark.slow
def test_one_rank_that_dies_ends_the_others_and_its_message_is_shown(tmp_path):
    (tmp_path / "sitecustomize.py").write_text(
        "import os\nif os.environ.get('RANK') == '1':\n"
        "    os.write(2, b'rank 1 could not reach its GPU')\n    os._exit(1)\n"
    )
    done = softedge_on_two_ranks(tmp_path, PYTHONPATH=str(tmp_path))
    assert done.returncode == 2
    assert "rank 1 could not reach its GPU" in done.stderr
    assert "(exit code 1, its message is above), so all ranks were stopped; there is no checkpoint yet" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_what_cannot_be_shared_out_is_refused_before_anything_is_launched(tmp_path):
    done = softedge_on_two_ranks(tmp_path, "--set", "ssl.batch=63", "--set", "ssl.queue=126")
    assert done.returncode == 2
    assert "ssl.batch = 63 cannot be split evenly" in done.stderr
    assert "launching" not in done.stderr
