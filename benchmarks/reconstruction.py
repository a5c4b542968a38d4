"""AdaRound, BRECQ and QDrop beside softedge's rounding of 8-bit weights, on a network with trained weights and photos.

    python benchmarks/reconstruction.py --weights w.pth --backbone tf_efficientnet_lite0 --images photos/ --out x.json
    python benchmarks/reconstruction.py ... --choose --iterations 300   # on every fourth calibration photo alone

The first half of the photos, by name, calibrates: every fourth of them only judges, the others are reconstructed on.
The second half is asked at the end.  Rounded by each method, BatchNorm folded, every layer on softedge's grid of ±127
steps per output channel:

    float      not at all: the noise of activations alone
    nearest    to the nearest step
    softedge   each layer for the least error of its output (``export.rounding``), as in the exported files
    adaround   layer by layer with its activation function, Nagel et al. 2020, arXiv 2004.10568
    brecq      block by block, Li et al. 2021, arXiv 2102.05426, by squared error as in its authors' code
    qdrop      the same with activations rounded as with the first two layers in float, each value with a chance of one
               half: Wei et al. 2022, arXiv 2203.05740; their ranges stay what they are

All but the first two also correct biases, so that the mean of each output channel is fp32's.  Measured are 8-bit
weights in float arithmetic (PyTorch), and ONNX files with all layers in integers, and with the first two in float, with
the activation ranges that the export chose on the calibration photos.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import cast

import numpy as np
import torch
from soft_rounding import Settings, batched, layers_of, means_of, read_by, reconstruct, started
from torch import Tensor, fx, nn
from torch.fx.passes.split_module import split_module
from torch.nn.utils import parametrize

from softedge.data.decoding import decode, prepare
from softedge.eval.measures import compare
from softedge.export import given
from softedge.export.base import Float32, Uint8
from softedge.export.calibration import set_aside
from softedge.export.candidates import Rounding
from softedge.export.deployed import Deployed
from softedge.export.nearest import Judge, nearest
from softedge.export.onnx.candidates import OnnxCandidates
from softedge.export.onnx.quantizer import Scheme
from softedge.export.rounding import rounded
from softedge.machine.provenance import environment
from softedge.quantize.simulation import LEVELS, RoundedActivation, RoundedWeight, Simulation, simulate
from softedge.run import write_json

METHODS = ("float", "nearest", "softedge", "adaround", "brecq", "qdrop")
EXPORTED = "first two in float"  # what the ONNX export chooses for such networks


class Dropped(nn.Module):
    """An activation's rounding that, in training, a part of the values is spared at random (QDrop)."""

    def __init__(self, rounding: RoundedActivation, drop: float):
        super().__init__()
        self.rounding, self.drop = rounding.requires_grad_(False), drop

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            coded: Tensor = self.rounding(x)
            if not self.training:
                return coded
            dropped = torch.rand_like(x) < self.drop
            rest = torch.where(dropped, 0, coded - x)
            inside = dropped | (rest.abs() <= (self.rounding.high - self.rounding.low) / LEVELS)
        return torch.where(inside, x, x.detach()) + rest  # a gradient where the value is not cut off


def units_of(network: fx.GraphModule) -> list[fx.GraphModule]:
    """The network cut before and after each of its blocks, ``blocks.3.1``: modules of one input and one output, which
    share its layers."""
    numbers: dict[fx.Node, int] = {}
    number, current = 0, ""
    for node in network.graph.nodes:
        parts = str(node.target).split(".")
        if node.op == "call_module" and not parts[0].startswith("rounding_"):
            key = ".".join(parts[:3]) if parts[0] == "blocks" else "between"
            number += bool(current) and key != current
            current = key
        numbers[node] = number
    whole = split_module(network, network, lambda node: numbers[node])
    return [cast(fx.GraphModule, getattr(whole, f"submod_{i}")) for i in range(number + 1)]


def as_cut(name: str) -> str:
    """A layer's name in the units, which have no folders."""
    return name.replace(".", "_")


def parts_of(unit: fx.GraphModule, by_layer: bool) -> Iterator[tuple[nn.Module, list[str]]]:
    """What is reconstructed at once, and the names of its layers: the unit, or each layer with its activation."""
    names = [name for name, _ in layers_of(unit)]
    if not by_layer:
        yield unit, names
        return
    for node in unit.graph.nodes:
        if node.op == "call_module" and node.target in names:
            follower = next(iter(node.users))
            function = unit.get_submodule(follower.target) if follower.op == "call_module" else nn.Identity()
            plain = not any(True for _ in function.parameters()) and len(node.users) == 1
            yield nn.Sequential(unit.get_submodule(node.target), function if plain else nn.Identity()), [node.target]


def reconstructed(
    deployed: Deployed, images: Uint8, start: Deployed, method: str, roundings: Sequence[Rounding], settings: Settings
) -> Deployed:
    """The network, BatchNorm folded, with weights on their steps by ``method``.

    images: uint8 (N, S, S, 3).  start: what ``export.rounding`` made.  roundings: activations that are rounded while
    weights are learned, on the first of ``images``; qdrop's.
    """
    torch.manual_seed(settings.seed)
    exact, student = simulate(deployed, (), images[:1]), simulate(deployed, roundings, images[:1])
    begun = {as_cut(name): layer for name, layer in layers_of(start.model)}
    for simulation in (exact, student):
        plain(simulation, settings.drop)
    x = deployed.normalised(torch.from_numpy(images).permute(0, 3, 1, 2).float())
    x = x.contiguous(memory_format=torch.channels_last)
    clean, began = x, time.monotonic()
    units = list(zip(units_of(exact.network), units_of(student.network)))
    for number, (unit, learning) in enumerate(units):
        wanted = means_of(unit, [layer for _, layer in layers_of(unit)], clean)
        targets = batched(unit, clean)
        means = dict(zip((name for name, _ in layers_of(unit)), wanted))
        pairs = zip(parts_of(unit, method == "adaround"), parts_of(learning, method == "adaround"))
        for (aim, _), (part, names) in pairs if means else ():
            layers = [layer for name, layer in layers_of(learning) if name in names]
            soft = [started(layer.weight, begun[name].weight, settings.start) for name, layer in zip(names, layers)]
            for layer, rounding in zip(layers, soft):
                layer.requires_grad_(False)
                parametrize.register_parametrization(layer, "weight", rounding, unsafe=True)
            reads, true, aims = x, clean if roundings else x, targets
            if part is not learning:
                reads = true = read_by(learning, layers[0], x)
                aims = batched(aim, read_by(unit, unit.get_submodule(names[0]), clean))
            before, after = reconstruct(part, reads, aims, true, soft, [means[name] for name in names], settings)
            for layer in layers:
                parametrize.remove_parametrizations(layer, "weight", leave_parametrized=True)
            change, seconds = after / max(before, 1e-20), time.monotonic() - began
            print(f"{method}, unit {number + 1} of {len(units)}: error {change:.3f}, {seconds:.0f} s", flush=True)
        clean, x = targets, batched(learning.eval(), x)
    return Deployed(student.float_network().eval(), deployed.spec, deployed.labels, deployed.output)


def plain(simulation: Simulation, drop: float) -> None:
    """Take away the rounding of weights, let activations be dropped, and let nothing work in place."""
    for module in list(simulation.network.modules()):
        if parametrize.is_parametrized(module):
            parametrize.remove_parametrizations(module, "weight", leave_parametrized=False)
        if hasattr(module, "inplace"):
            module.inplace = False  # type: ignore[assignment]
    for key in simulation.tensors:
        setattr(simulation.network, key, Dropped(cast(RoundedActivation, getattr(simulation.network, key)), drop))
    simulation.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def to_nearest(deployed: Deployed) -> Deployed:
    network = deployed.folded()
    for _, layer in layers_of(network):
        layer.weight.data = RoundedWeight()(layer.weight.data)
    return network


def with_float_weights(deployed: Deployed, roundings: Sequence[Rounding], image: Uint8, images: Uint8) -> Float32:
    """Outputs (N, C) for uint8 (N, S, S, 3) with activations rounded.  image: what ``roundings`` are of."""
    simulation = simulate(deployed, roundings, image)
    plain(simulation, 0.0)
    planes = deployed.normalised(torch.from_numpy(images).permute(0, 3, 1, 2).float())
    answers: Float32 = deployed.finish(batched(simulation.network.eval(), planes)).numpy()
    return answers


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--backbone", required=True)
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--only", nargs="*", choices=METHODS, default=METHODS)
    parser.add_argument("--choose", action="store_true", help="judge on calibration photos that were set aside")
    for name, default in vars(Settings()).items():
        parser.add_argument(f"--{name}", type=type(default), default=default)
    parser.add_argument("--size", type=int, help="pixels, where it is not that of the network")
    for name in ("mean", "std", "interpolation"):
        parser.add_argument(f"--{name}")
    options = parser.parse_args()
    settings = Settings(**{name: getattr(options, name) for name in vars(Settings())})
    how = given.preprocessing(options.size, options.mean, options.std, options.interpolation, None)
    deployed, _ = given.read(options.weights, options.backbone, preprocessing=how)
    paths = sorted(path for path in options.images.rglob("*") if path.is_file())
    photos = np.stack([prepare(decode(path), deployed.spec) for path in paths])
    calibration, asked = photos[: len(photos) // 2], photos[len(photos) // 2 :]
    fitted = np.delete(calibration, set_aside(len(calibration)), axis=0)
    asked = calibration[set_aside(len(calibration))] if options.choose else asked
    wanted = deployed.predict(asked)

    candidates = OnnxCandidates(deployed, calibration, scheme=Scheme())
    all_layers = nearest(candidates, Judge.of(deployed, candidates.comparison())).option
    files = {
        "all layers": all_layers,
        EXPORTED: candidates.with_float(all_layers, candidates.layers()[:2]),
    }
    start = rounded(deployed, fitted)
    values = json.loads(options.out.read_text()) if options.out.exists() else {}
    values["about"] = {"n": len(asked), "calibration": all_layers.what, **vars(settings), **environment()}

    def measured(answers: Float32) -> dict[str, float]:
        measures = compare(wanted, answers, None, deployed.output)
        return {"sqnr_db": round(float(measures["sqnr_db"]), 2), "agreement": float(measures["agreement"])}

    for method in options.only:
        began = time.process_time()
        if method == "float":
            rounds = {name: candidates.roundings(option, fitted[:1]) for name, option in files.items()}
            values[method] = {
                n: measured(with_float_weights(deployed, r, fitted[:1], asked)) for n, r in rounds.items()
            }
            print(method, values[method], flush=True)
            write_json(options.out, values)
            continue
        network = start
        if method == "nearest":
            network = to_nearest(deployed)
        elif method != "softedge":
            roundings = candidates.roundings(files[EXPORTED], fitted[:1]) if method == "qdrop" else ()
            network = reconstructed(deployed, fitted, start, method, roundings, settings)
        values[method] = {"seconds": round(time.process_time() - began), "weights": measured(network.predict(asked))}
        for name, option in files.items():
            made = candidates.reweighted(option, network, {})
            values[method][name] = measured(candidates.predict(made, asked))
        print(method, values[method], flush=True)
        write_json(options.out, values)


if __name__ == "__main__":
    main()
