"""The recipes that come with softedge: complete headers, and the paper's numbers where the paper gives them."""

import itertools

import pytest

from softedge import config
from softedge.recipes import methods

NAMES = sorted(config.available())
STUDY = [name for name in NAMES if name.startswith("additive-")]


@pytest.mark.parametrize("name", NAMES)
def test_a_recipe_loads_and_opens_with_paper_command_time_result_and_whether_it_was_reproduced(name):
    recipe = config.load(name)
    assert recipe.name == name
    header = [
        line for line in config.available()[name].read_text().split("\n\n")[0].splitlines() if line.startswith("#")
    ]
    text = "\n".join(header)
    for part in ("# Paper: ", "# Command: softedge ", "# Expected ", "# Reproduced: "):
        assert part in text, part
    assert name in text or name in ("digits", "small-domain")  # those two are what a command takes by itself


@pytest.mark.parametrize(
    ("name", "backbone", "decay"),
    [
        ("light-moco", "mobilenetv3_large_100", 1e-5),
        ("light-moco-mobilenetv3-small", "mobilenetv3_small_100", 1e-5),
        ("light-moco-efficientnet-b0", "efficientnet_b0", 1e-5),
        ("light-moco-efficientnet-b1", "efficientnet_b1", 1e-5),
        ("light-moco-resnet18", "resnet18", 1e-4),
        ("light-moco-resnet50", "resnet50", 1e-4),
    ],
)
def test_imagenet_recipes_hold_the_papers_settings(name, backbone, decay):
    recipe = config.load(name)
    assert recipe.backbone.name == backbone
    assert recipe.optim.weight_decay == decay
    assert (recipe.ssl.epochs, recipe.ssl.batch, recipe.optim.lr, recipe.optim.warmup_epochs) == (200, 512, 0.2, 5)
    assert (recipe.ssl.queue, recipe.ssl.temperature, recipe.ssl.alpha, recipe.ssl.neighbors) == (2**18, 0.1, 0.8, 20)
    assert recipe.augment == config.Augment()


def test_the_additive_study_changes_what_its_table_says_one_step_at_a_time():
    assert len(STUDY) == 7
    flat = []
    for name in STUDY:
        values = config.load(name).model_dump(mode="json")
        flat.append(
            {f"{s}.{k}": v for s in ("ssl", "optim", "backbone", "augment", "data") for k, v in values[s].items()}
        )
    changed = [{k for k in {*a, *b} if a.get(k) != b.get(k)} for a, b in itertools.pairwise(flat)]
    assert changed == [
        {"ssl.projector"},
        {"ssl.temperature"},
        {"optim.lr", "optim.warmup_epochs"},
        {"ssl.momentum", "ssl.momentum_cosine"},
        {"ssl.symmetric"},
        {"ssl.method", "ssl.queue", "ssl.alpha", "ssl.neighbors", "ssl.pattern", "ssl.alpha_schedule"},
    ]


def test_the_study_ends_at_the_papers_recipe():
    last, paper = config.load(STUDY[-1]), config.load("light-moco-efficientnet-b0")
    assert (last.ssl, last.optim, last.backbone) == (paper.ssl, paper.optim, paper.backbone)


def test_another_method_can_be_set_on_a_recipe_that_spells_out_its_own():
    plain = config.load("light-moco", ["ssl.method=moco-v2"])
    assert type(plain.ssl) is methods.settings_of("moco-v2")
    assert plain.ssl.queue == 262144  # what both know stays
    assert config.load("digits", ["ssl.method=supervised"]).ssl.method == "supervised"
