import math
import sys
from pathlib import Path

import pytest
import torch
from many import build, stopped_and_whole
from small import recipe, views
from torch import nn
from torch.nn import functional as F

from softedge import distributed
from softedge.errors import UserError
from softedge.ssl.simclr import head, nt_xent

sys.path.insert(0, str(Path(__file__).parents[1]))
from test_distributed import _share, on_two_ranks


def unit(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(*shape, dtype=torch.float64, generator=generator), dim=1)


def algorithm_1(first, second, temperature):
    """The paper's algorithm, with its order of views (2k - 1, 2k), in plain loops."""
    z = [row.tolist() for pair in zip(first, second) for row in pair]
    s = [[sum(a * b for a, b in zip(i, j)) for j in z] for i in z]

    def loss(i, j):
        below = sum(math.exp(s[i][k] / temperature) for k in range(len(z)) if k != i)
        return -math.log(math.exp(s[i][j] / temperature) / below)

    return sum(loss(2 * k, 2 * k + 1) + loss(2 * k + 1, 2 * k) for k in range(len(first))) / len(z)


def test_nt_xent_is_the_papers_algorithm_1():
    first, second = unit(5, 3), unit(5, 3, seed=1)
    both, n = torch.cat([first, second]), torch.arange(5)
    ours = nt_xent(both, both, torch.cat([n, n + 5]), torch.cat([n + 5, n]), temperature=0.3)
    assert ours.item() == pytest.approx(algorithm_1(first, second, 0.3), abs=1e-12)


def test_the_method_computes_it_from_both_views_in_one_batch():
    made = build("simclr")
    first, second = views()
    with torch.no_grad():
        embeddings = build("simclr").encoder(torch.cat([first, second])).double()
    loss = made((first, second), torch.arange(8))
    assert loss.item() == pytest.approx(algorithm_1(embeddings[:8], embeddings[8:], 0.1), rel=1e-5)


def test_angs_head_has_hard_swish_and_dropout_and_no_batch_norm():
    kinds = [type(layer) for layer in head("ang", 8, 16, 4, 0.2)]
    assert kinds == [nn.Linear, nn.Hardswish, nn.Dropout, nn.Linear]
    assert head("ang", 8, 16, 4, 0.2)[2].p == 0.2


@pytest.mark.parametrize(("kind", "widths"), [("v1", [8, 16, 4]), ("v2", [8, 16, 16, 4])])
def test_simclrs_own_heads_have_batch_norm_after_every_layer_and_no_shift_at_the_end(kind, widths):
    made = head(kind, 8, 16, 4, 0.2)
    linear = [layer for layer in made if isinstance(layer, nn.Linear)]
    assert [layer.in_features for layer in linear] + [linear[-1].out_features] == widths
    assert all(layer.bias is None for layer in linear)
    assert sum(isinstance(layer, nn.BatchNorm1d) for layer in made) == len(linear)
    assert isinstance(made[-1], nn.BatchNorm1d)
    assert not made[-1].bias.requires_grad


def test_projectors_that_do_not_fit_the_head_are_refused():
    with pytest.raises(UserError, match="hidden and the output width"):
        build("simclr", projector=(16, 16, 4))


def test_dropout_draws_the_same_after_a_stop_and_a_new_start(tmp_path, monkeypatch):
    wanted = recipe(ssl__method="simclr", ssl__head="ang", ssl__dropout=0.5, ssl__knn_every=0)
    ours, theirs = stopped_and_whole(wanted, tmp_path, monkeypatch)
    assert all(torch.equal(v, theirs[k]) for k, v in ours.items())


def _gradients(rank: int | None, name: str):
    """Gradients of one step on the same 16 images: all of them, or this rank's half; BatchNorm is frozen."""
    made = build(name, **({"head": "ang", "dropout": 0.0} if name == "simclr" else {}))
    made.encoder.eval()
    for target in ("target", "target_prototypes"):
        if hasattr(made, target):
            getattr(made, target).eval()
    pair, index = views(16), torch.arange(16)
    if rank is not None:
        pair, index = (_share(pair[0], rank), _share(pair[1], rank)), _share(index, rank)
    loss = made(pair, index)
    loss.backward()
    distributed.average_gradients(made.trained_parameters())
    return float(distributed.mean(loss.detach())), [p.grad.numpy() for p in made.trained_parameters()]


@pytest.mark.parametrize("name", ["simclr", "simco", "simmoco", "dino"])
def test_two_ranks_with_half_a_batch_have_the_loss_and_gradients_of_one_with_all_of_it(name):
    loss, gradients = _gradients(None, name)
    for loss_there, gradients_there in on_two_ranks(_gradients, name):
        assert loss_there == pytest.approx(loss, rel=1e-5)
        for one, two in zip(gradients, gradients_there):
            assert abs(one - two).max() < 1e-5 * max(1.0, abs(one).max())
