"""The deployed network: preprocessing inside, BatchNorm folded, the same function."""

from __future__ import annotations

import numpy as np
import pytest
import timm
import torch
from torch import nn

from softedge.export.deployed import Deployed
from softedge.export.folding import fold_batch_norm


def test_deployed_network_normalises_each_channel_and_ends_in_a_softmax(deployed, pictures):
    x = pictures.astype(np.float64) / 255
    x = (x - np.array([0.4, 0.5, 0.6])) / np.array([0.2, 0.25, 0.3])
    with torch.no_grad():
        logits = deployed.model(torch.from_numpy(x.transpose(0, 3, 1, 2)).float()).double().numpy()
    expected = np.exp(logits - logits.max(1, keepdims=True))
    expected /= expected.sum(1, keepdims=True)
    assert np.abs(deployed.predict(pictures) - expected).max() < 1e-5


def test_folding_leaves_no_batch_norm_behind_a_convolution_and_keeps_the_function(deployed, pictures):
    folded = deployed.folded()
    assert not any(isinstance(m, nn.BatchNorm2d) for m in folded.modules())
    assert np.abs(folded.predict(pictures) - deployed.predict(pictures)).max() < 1e-5


def test_folding_keeps_the_activation_inside_timms_batch_norm():
    import timm

    net = timm.create_model("mobilenetv3_small_050", num_classes=0).eval()
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_var, 0.5, 2.0)
            nn.init.normal_(module.running_mean)
    folded = fold_batch_norm(net)
    x = torch.randn(2, 3, 32, 32)
    assert sum(isinstance(m, nn.BatchNorm2d) for m in folded.modules()) == 0
    with torch.no_grad():
        assert torch.allclose(folded(x), net(x), atol=1e-4, rtol=1e-3)


def test_batch_norm_stays_where_the_convolution_is_read_twice():
    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.norm = nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)

        def forward(self, x):
            y = self.conv(x)
            return y + self.norm(y)

    net = Shared().eval()
    nn.init.normal_(net.norm.running_mean)
    folded, x = fold_batch_norm(net), torch.randn(1, 3, 5, 5)
    assert torch.allclose(folded(x), net(x))


def test_feature_export_drops_the_classifier_and_the_labels(deployed):
    features = Deployed(deployed.model, deployed.spec, output="features")
    assert features.output == "features" and features.labels == ()


@pytest.mark.parametrize("name", ["mobileone_s0", "fastvit_t8", "repvit_m0_9"])
def test_parallel_branches_are_merged_before_the_export_and_the_function_stays(name):
    torch.manual_seed(0)
    net = timm.create_model(name, num_classes=3).eval()
    for module in net.modules():  # untrained statistics would hide a branch that is merged wrongly
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.running_mean, -0.1, 0.1)
            torch.nn.init.uniform_(module.running_var, 0.5, 1.5)
    folded = fold_batch_norm(net)
    image = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        merged, expected = folded(image), net(image)
    assert (merged - expected).abs().max() < 1e-4 * expected.abs().max()  # 1e14 in one of them
    convolutions = [sum(isinstance(m, torch.nn.Conv2d) for m in each.modules()) for each in (folded, net)]
    assert convolutions[0] < convolutions[1]
