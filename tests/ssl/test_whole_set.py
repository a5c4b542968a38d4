import sys
from pathlib import Path

import numpy as np
import torch
from small import SPEC, TinyBackbone, data

from softedge.eval.features import extract
from softedge.ssl.whole_set import embed

sys.path.insert(0, str(Path(__file__).parents[1]))
from test_distributed import on_two_ranks


def _embedded(rank, count: int):
    torch.manual_seed(0)
    return embed(TinyBackbone(), data(count).pretrain, SPEC, torch.device("cpu")).numpy()


def test_all_ranks_get_every_image_in_order_also_when_the_shares_differ():
    torch.manual_seed(0)
    expected = extract(TinyBackbone(), data(13).pretrain, SPEC)
    for there in (_embedded(0, 13), *on_two_ranks(_embedded, 13)):
        assert there.shape == (13, 8)
        assert np.abs(there - expected).max() < 1e-5


def test_a_compiled_network_looks_at_the_whole_set_uncompiled():
    graphs = []

    def backend(graph, _):
        graphs.append(graph)
        return graph.forward

    network = TinyBackbone()
    network.compile(backend=backend)
    embed(network, data(13).pretrain, SPEC, torch.device("cpu"))
    assert not graphs
    network(torch.zeros(2, 3, 32, 32))
    assert len(graphs) == 1  # training goes on compiled
