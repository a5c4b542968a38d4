"""Prototypes: the loss, the clustering, and the hook of the loop that finds them anew for every epoch."""

import math

import pytest
import torch
from many import build, embed, stopped_and_whole
from small import recipe, views
from torch.nn import functional as F

from softedge.errors import UserError
from softedge.ssl import clustering
from softedge.ssl.pcl import cluster_sizes, proto_nce


def unit(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(*shape, dtype=torch.float64, generator=generator), dim=1)


def by_hand(query, prototypes, phi, own, others):
    total = 0.0
    for v, mine in zip(query.tolist(), own.tolist()):
        used = [mine] + [j for j in others.tolist() if j != mine]
        e = [math.exp(sum(a * b for a, b in zip(v, prototypes[j].tolist())) / phi[j].item()) for j in used]
        total -= math.log(e[0] / sum(e))
    return total / len(query)


@pytest.mark.parametrize("others", [[0, 1, 2, 3, 4, 5], [5, 2, 0]])
def test_the_loss_is_the_papers_second_term(others):
    query, prototypes = unit(5, 4), unit(6, 4, seed=1)
    phi, own, others = torch.linspace(0.1, 0.4, 6), torch.tensor([0, 2, 2, 4, 5]), torch.tensor(others)
    ours = proto_nce(query, prototypes, phi, own, others)
    assert ours.item() == pytest.approx(by_hand(query, prototypes, phi, own, others), abs=1e-6)


def test_concentration_is_the_papers_formula_with_the_released_clipping():
    distance = torch.tensor([0.1, 0.2, 0.3, 0.5, 0.7, 0.4])
    assignment = torch.tensor([0, 0, 0, 1, 1, 2])
    raw = [0.6 / (3 * math.log(13)), 1.2 / (2 * math.log(12)), 0.0]
    raw[2] = max(raw)  # a cluster of one point
    low, high = (torch.quantile(torch.tensor(raw), q).item() for q in (0.1, 0.9))
    clipped = [min(max(x, low), high) for x in raw]
    expected = [0.2 * x / (sum(clipped) / 3) for x in clipped]
    assert clustering.concentration(distance, assignment, 3, 0.2).tolist() == pytest.approx(expected, rel=1e-5)


def test_points_that_coincide_with_their_centroids_keep_the_plain_temperature():
    assert clustering.concentration(torch.zeros(4), torch.tensor([0, 0, 1, 1]), 2, 0.2).tolist() == pytest.approx(
        [0.2, 0.2]
    )


def test_k_means_finds_separate_groups_and_is_no_worse_than_scikit_learns():
    from sklearn.cluster import KMeans

    generator = torch.Generator().manual_seed(0)
    centres = 10 * torch.eye(4)
    points = torch.cat([c + torch.randn(20, 4, generator=generator) for c in centres])
    best = min(
        (clustering.kmeans(points, 4, torch.Generator().manual_seed(s)) for s in range(5)),
        key=lambda found: inertia(points, *found),
    )
    theirs = KMeans(4, n_init=5, random_state=0).fit(points.numpy())
    assert inertia(points, *best) == pytest.approx(theirs.inertia_, rel=1e-4)
    assert len({tuple(part.tolist()) for part in best[1].view(4, 20)}) == 4


def inertia(points, centroids, assignment):
    return (points - centroids[assignment]).square().sum().item()


def test_no_cluster_stays_empty():
    points = torch.cat([torch.zeros(30, 2), torch.tensor([[5.0, 5.0], [9.0, 1.0]])])
    _, assignment = clustering.kmeans(points, 3, torch.Generator().manual_seed(1))
    assert len(assignment.unique()) == 3


def test_prototypes_add_the_mean_over_the_clusterings_to_info_nce():
    with_them, without = build("pcl-v2"), build("pcl-v2")
    for made in (with_them, without):
        made(views(), torch.arange(8))
        made.after_step(0.0)
    with_them.before_epoch(0, embed)
    assert with_them.prototypes.ready
    pair, index = views(seed=5), torch.arange(8) + 4
    with torch.no_grad():
        query = build("pcl-v2").encoder(pair[0]).double()
        found = with_them.prototypes
        terms = [
            by_hand(query, c.double(), phi, found.assignment[row, index], torch.arange(len(phi)))
            for row, (c, phi) in enumerate(zip(found.centroids.split(found.sizes), found.phi.split(found.sizes)))
        ]
        difference = with_them(pair, index) - without(pair, index)
    assert difference.item() == pytest.approx(sum(terms) / 2, rel=1e-4)


def test_the_first_epochs_have_no_prototypes():
    made = build("pcl-v2", instance_epochs=2)
    for epoch, ready in ((0, False), (1, False), (2, True)):
        made.before_epoch(epoch, embed)
        assert made.prototypes.ready is ready
        assert made.measures()["objective"] == ready


def test_clusters_shrink_with_the_images_in_proportion():
    assert cluster_sizes((25_000, 50_000, 100_000), 1_281_167) == (25_000, 50_000, 100_000)
    assert cluster_sizes((25_000, 50_000, 100_000), 1280) == (25, 50, 100)
    assert cluster_sizes((100,), 3) == (2,)


def test_settings_that_leave_no_epoch_to_prototypes_are_refused():
    with pytest.raises(UserError, match="instance_epochs = 20 leaves none of the 20 epochs"):
        build("pcl-v2", epochs=20, instance_epochs=20)


def test_a_training_stopped_within_an_epoch_goes_on_with_the_same_prototypes(tmp_path, monkeypatch):
    wanted = recipe(ssl__method="pcl-v2", ssl__instance_epochs=1, ssl__clusters=[2, 4], ssl__knn_every=0)
    ours, theirs = stopped_and_whole(wanted, tmp_path, monkeypatch)
    assert bool(ours["prototypes.fitted"])
    assert all(torch.equal(v, theirs[k]) for k, v in ours.items())
