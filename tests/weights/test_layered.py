"""Classifiers of several layers, once the user says which activation lies between them: against PyTorch itself."""

from __future__ import annotations

import copy

import pytest
import timm
import torch
import torchvision
from torch import nn

from softedge.errors import UserError
from softedge.export import given
from softedge.export.given import read
from softedge.weights import layered

NAME = "mobilenetv3_small_050"
IMAGES = torch.randn(4, 3, 64, 64, generator=torch.Generator().manual_seed(0))
ONNX = "export the network to ONNX in PyTorch and give that file to softedge quantize"
MODULES = {
    "relu": nn.ReLU,
    "relu6": nn.ReLU6,
    "leaky_relu": nn.LeakyReLU,
    "hardswish": nn.Hardswish,
    "silu": nn.SiLU,
    "gelu": nn.GELU,
    "tanh": nn.Tanh,
}


class Model(nn.Module):
    """As people write it; ``head`` replaces the classifier of timm's network."""

    def __init__(self, head, name=NAME):
        super().__init__()
        torch.manual_seed(0)
        self.backbone = settled(timm.create_model(name, num_classes=0))
        self.head = drawn(head)
        self.eval()

    def forward(self, x):
        return self.head(self.backbone(x))


def settled(net):
    """With statistics of real activations: with the first ones all signals die out."""
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None
    with torch.no_grad():
        net.train()(torch.randn(16, 3, 64, 64, generator=torch.Generator().manual_seed(1)))
    return net.eval()


def drawn(head):
    """With statistics and weights of norms that are not 0 and 1, and signals that reach every part of an activation."""
    for index, module in enumerate(head.modules()):
        generator = torch.Generator().manual_seed(index)
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=6 / module.in_features**0.5, generator=generator)
        if isinstance(module, nn.BatchNorm1d):
            module.running_mean.normal_(generator=generator)
            module.running_var.uniform_(0.5, 2, generator=generator)
            if module.affine:
                nn.init.normal_(module.weight, mean=1, generator=generator)
                nn.init.normal_(module.bias, generator=generator)
    return head.eval()


@pytest.fixture
def path(tmp_path):
    return tmp_path / "w.pth"


def answers(model, images=IMAGES):
    with torch.no_grad():
        return model(images)


def assert_same(path, model, head, name=NAME):
    torch.save(model.state_dict(), path)
    expected, found = answers(model), answers(read(path, name, head=head)[0].model)
    assert expected.std(0).min() > 0.01 and torch.allclose(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("activation", layered.ACTIVATIONS)
def test_the_activation_that_the_user_names_is_between_the_layers(path, activation):
    between = MODULES[activation]
    head = nn.Sequential(nn.Dropout(), nn.Linear(1024, 32), between(), nn.Dropout(), nn.Linear(32, 4))
    assert_same(path, Model(head), activation)
    assert_same(path, Model(head), between.__name__)  # as PyTorch writes it


HEADS = {
    "no bias": [nn.Linear(1024, 32, bias=False), nn.ReLU(), nn.Linear(32, 4, bias=False)],
    "three layers": [nn.Linear(1024, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Dropout(), nn.Linear(32, 4)],
    "norm first": [nn.Linear(1024, 32, bias=False), nn.BatchNorm1d(32), nn.ReLU(), nn.Dropout(), nn.Linear(32, 4)],
    "norm last": [nn.Linear(1024, 32), nn.ReLU(), nn.BatchNorm1d(32), nn.Linear(32, 4, bias=False)],
    "no affine": [nn.Linear(1024, 32), nn.BatchNorm1d(32, affine=False), nn.ReLU(), nn.Linear(32, 4)],
    "of the features": [nn.BatchNorm1d(1024), nn.Linear(1024, 32), nn.ReLU(), nn.Linear(32, 4)],
    "of all": [
        *(nn.Dropout(), nn.BatchNorm1d(1024), nn.Linear(1024, 48), nn.BatchNorm1d(48), nn.ReLU(), nn.Dropout()),
        *(nn.Linear(48, 32), nn.Dropout(), nn.ReLU(), nn.BatchNorm1d(32), nn.Linear(32, 4)),
    ],
}


@pytest.mark.parametrize("kind", HEADS)
def test_norms_are_where_their_numbers_say_and_are_folded(path, kind):
    assert_same(path, Model(nn.Sequential(*copy.deepcopy(HEADS[kind]))), "relu")
    deployed = read(path, NAME, head="relu")[0]
    assert not [module for module in deployed.model.head if isinstance(module, nn.BatchNorm1d)]


def test_the_line_about_the_head_names_the_epsilon_of_a_norm_that_is_folded(path, capsys):
    for kind, folded in (("norm first", True), ("three layers", False)):
        torch.save(Model(nn.Sequential(*copy.deepcopy(HEADS[kind]))).state_dict(), path)
        read(path, NAME, head="relu")
        (line,) = [line for line in capsys.readouterr().err.splitlines() if "as --head says" in line]
        assert ("; BatchNorm is folded with eps = 1e-05, PyTorch's own: the file does not say it" in line) == folded


def test_a_norm_with_dropout_on_one_side_needs_the_order(path):
    """Linear, ReLU, BatchNorm, Dropout and Linear, Dropout, BatchNorm, ReLU have the same names."""
    first = [nn.Linear(1024, 32), nn.Dropout(), nn.BatchNorm1d(32), nn.ReLU(), nn.Linear(32, 4)]
    last = [nn.Linear(1024, 32), nn.ReLU(), nn.BatchNorm1d(32), nn.Dropout(), nn.Linear(32, 4)]
    for layers, head in ((first, "batchnorm,relu"), (last, "relu,batchnorm")):
        model = Model(nn.Sequential(*layers))
        assert_same(path, model, head)
        with pytest.raises(
            UserError, match="head.2, a BatchNorm, comes before or behind the activation; give --head ba"
        ):
            read(path, NAME, head="relu")


@pytest.mark.parametrize("prefix", ["backbone", "net", "encoder"])
def test_layers_beside_the_network_are_its_classifier(path, prefix):
    """``self.fc1``, ``self.fc2`` as in many hand-written modules; the order is that of their shapes."""

    class Written(nn.Module):
        def __init__(self):
            super().__init__()
            setattr(self, prefix, Model(nn.Identity()).backbone)
            self.out = nn.Linear(32, 4)
            self.hidden = nn.Linear(1024, 32)
            self.loss = nn.BCEWithLogitsLoss(pos_weight=torch.ones(4))

        def forward(self, x):
            return self.out(torch.tanh(self.hidden(getattr(self, prefix)(x))))

    assert_same(path, Written().eval(), "tanh")


@pytest.mark.parametrize(
    ("theirs", "name", "replaced"),
    [
        ("mobilenet_v2", "mobilenetv2_100", [nn.Dropout(), nn.Linear(1280, 32), nn.SiLU(), nn.Linear(32, 4)]),
        ("mobilenet_v3_small", "mobilenetv3_small_100", [nn.Linear(576, 32), nn.SiLU(), nn.Linear(32, 4)]),
        ("mobilenet_v3_small", "mobilenetv3_small_100", [nn.Linear(576, 1024), nn.SiLU(), nn.Linear(1024, 4)]),
    ],
)
def test_a_classifier_that_replaces_torchvisions(path, theirs, name, replaced):
    """The first layer of MobileNetV3's is in timm's network, with its Hardswish; there it goes with the classifier."""
    torch.manual_seed(0)
    net = settled(torchvision.models.get_model(theirs, weights=None))
    net.classifier = drawn(nn.Sequential(*replaced))
    assert_same(path, net, "silu", name)
    given.save(path.with_name("kept.safetensors"), read(path, name, head="silu")[0], name)
    again = given.load(path.with_name("kept.safetensors"))
    assert torch.allclose(answers(again.model), answers(net), rtol=1e-4, atol=1e-4)


def test_a_classifier_in_place_of_the_last_layer_of_torchvisions(path):
    torch.manual_seed(0)
    net = settled(torchvision.models.get_model("mobilenet_v3_small", weights=None))
    net.classifier[3] = drawn(nn.Sequential(nn.Linear(1024, 32), nn.Tanh(), nn.Linear(32, 4)))
    assert_same(path, net, "tanh", "mobilenetv3_small_100")


@pytest.mark.parametrize("merged", [False, True])
def test_it_is_rebuilt_from_the_file_that_a_run_keeps(path, merged, tmp_path):
    """Also where branches were merged before."""
    model = Model(nn.Sequential(*copy.deepcopy(HEADS["norm first"])), "mobileone_s0")
    kept = copy.deepcopy(model)
    if merged:
        kept.backbone = timm.models.reparameterize_model(kept.backbone)
    torch.save(kept.state_dict(), path)
    given.save(tmp_path / "kept.safetensors", read(path, "mobileone_s0", head="relu")[0], "mobileone_s0")
    again = given.load(tmp_path / "kept.safetensors")
    assert again.head == {"activation": "relu", "pooled": False} and again.labels == ("0", "1", "2", "3")
    assert "relu" in again.about["head"]
    expected = answers(model)
    assert (answers(again.model) - expected).abs().max() < 1e-3 * expected.std()  # merged: in another order of sums


def refused(path, layers, head="relu", name="head"):
    """The line, of a network with these layers: name -> sizes of a linear layer, or tensors."""
    state = {f"backbone.{key}": value for key, value in Model(nn.Identity()).backbone.state_dict().items()}
    for layer, what in layers.items():
        module = nn.Linear(*what) if isinstance(what, tuple) else what
        state |= {f"{layer}.{key}": value for key, value in module.state_dict().items()}
    torch.save(state, path)
    with pytest.raises(UserError) as error:
        read(path, NAME, head=head)
    assert "\n" not in str(error.value)
    return str(error.value)


NORM, WIDE = nn.BatchNorm1d(32), (1024, 32)


@pytest.mark.parametrize(
    ("layers", "says"),
    [
        ({"head": (1024, 4)}, "has one linear layer (head 4 x 1024), and --head says what lies between several; leave"),
        ({"classifier": (1024, 4)}, "has one linear layer (classifier 4 x 1024), and --head says"),
        ({"fc.1": (1024, 4)}, "has one linear layer (fc.1 4 x 1024), and --head says"),
        ({}, "has no classifier, and --head says what lies between its layers; leave it out"),
        (
            {"head.0": WIDE, "head.1": nn.LayerNorm(32), "head.3": (32, 4)},
            "'head.1' in {} is neither a linear layer nor",
        ),
        ({"head.0": WIDE, "head.1": nn.PReLU(), "head.3": (32, 4)}, "nor BatchNorm1d (weight (1,)); export"),
        (
            {"head.0": WIDE, "fc.2": (32, 4)},
            "has layers of a classifier in several places (head.0, fc.2), and does not",
        ),
        ({"head.0": WIDE, "head.2": (64, 4)}, "(head.0 32 x 1024, head.2 4 x 64) do not follow each other behind 1024"),
        (
            {"head.0": (512, 32), "head.2": (32, 4)},
            "do not follow each other behind 1024 features of the network; export",
        ),
        ({"head.a": (1024, 1024), "head.b": (1024, 1024)}, "follow each other in several orders behind 1024 features"),
        (
            {"hidden": WIDE, "projector": (32, 32), "out": (32, 4)},
            "whether projector 32 x 32 lies between the features",
        ),
        (
            {"hidden": WIDE, "out": (32, 4), "aux": (4, 4)},
            "whether aux 4 x 4 lies between the features and the classes",
        ),
        ({"attention": (1024, 1024), "fc1": WIDE, "fc2": (32, 4)}, "whether attention 1024 x 1024 lies between"),
        ({"head.0": WIDE, "head.1": (32, 32), "head.3": (32, 4)}, "has nothing between head.0 and head.1; export"),
        ({"head.0": WIDE, "head.1": (32, 4)}, "does not say whether anything lies between head.0 and head.1: in a Seq"),
        ({"fc.layers.0": WIDE, "fc.layers.1": (32, 4)}, "anything lies between fc.layers.0 and fc.layers.1: in a Seq"),
        ({"mlp.1": WIDE, "mlp.2": (32, 32), "mlp.3": (32, 4)}, "does not say whether anything lies between mlp.1 and"),
        (
            {"head.0": nn.BatchNorm1d(1024), "head.1": WIDE, "head.2": (32, 4)},
            "anything lies between head.1 and head.2: in a Sequential nothing does, in a ModuleList an activation may;",
        ),
        ({"head.0": WIDE, "head.1": NORM, "head.2": (32, 4)}, "has no place for the activation before head.1, between"),
        ({"head.0": WIDE, "head.2": (32, 4), "head.3": nn.BatchNorm1d(4)}, "does not say where BatchNorm lies in its"),
        (
            {"head.0": WIDE, "head.1": NORM, "head.3": NORM, "head.4": (32, 4)},
            "does not say where BatchNorm lies in its",
        ),
        (
            {"head.fc1": WIDE, "head.bn": NORM, "head.fc2": (32, 4)},
            "does not say where BatchNorm lies in its classifier",
        ),
        (
            {"head.0": nn.BatchNorm1d(1024), "head.2": WIDE, "head.4": (32, 4)},
            "what lies between head.0 and head.2; ex",
        ),
        ({"head.0": WIDE, "head.1": nn.BatchNorm1d(16), "head.3": (32, 4)}, "has shape (16,), and there are 32 values"),
    ],
)
def test_what_the_weights_leave_open_is_one_line(path, layers, says):
    assert says.format(path) in refused(path, layers)


def test_the_order_with_a_norm_is_not_taken_against_the_weights(path):
    layers = {"head.0": WIDE, "head.1": NORM, "head.3": (32, 4)}
    assert "has no place for the activation before head.1, between head.0" in refused(path, layers, "relu,batchnorm")
    assert "has no batchnorm; give --head relu" in refused(path, {"fc1": WIDE, "fc2": (32, 4)}, "batchnorm,relu")


@pytest.mark.parametrize("head", ["rleu", "", "relu,gelu", "batchnorm", "relu,batchnorm,relu"])
def test_a_misspelt_activation_is_one_line_with_those_that_there_are(head):
    with pytest.raises(UserError, match=r"--head is '.*'; give the activation .*, one of relu, relu6, .*, tanh$"):
        layered.between(head)


def test_the_networks_own_classifier_takes_no_head(path):
    torch.save(timm.create_model(NAME, num_classes=4).state_dict(), path)
    with pytest.raises(
        UserError, match=rf"is that of {NAME} itself \('classifier'\), and --head says what lies between"
    ):
        read(path, NAME, head="relu")


def test_features_and_files_of_softedge_take_no_head(path):
    torch.save(Model(nn.Identity()).backbone.state_dict(), path)
    with pytest.raises(UserError, match="features have no classifier; leave out --head or --output features"):
        read(path, NAME, output="features", head="relu")


def test_without_the_option_the_refusal_names_it(path):
    refused_without = refused(path, {"head.0": WIDE, "head.2": (32, 4)}, None)
    assert refused_without.endswith(
        f"say which activation with --head, such as --head relu, or {ONNX}, or use --output features"
    )
    adjacent = refused(path, {"head.0": WIDE, "head.1": (32, 4)}, None)
    assert adjacent.endswith(f"what lies between them; {ONNX}, or use --output features"), "--head is refused, too"
    beside = refused(path, {"head.0": WIDE, "head.1": NORM, "head.3": (32, 4)}, None)
    assert (
        "which may be its classifier; if that has several linear layers, say what lies between with --head;" in beside
    )
