"""ExecuTorch programs, an optional extra: the same contract, or one line that says what to install."""

from __future__ import annotations

import importlib.util

import pytest

from softedge.errors import UserError
from softedge.export.contract import artifact_of
from softedge.export.executorch.format import ExecuTorch
from softedge.export.parity import compare

installed = importlib.util.find_spec("executorch") is not None


@pytest.mark.skipif(installed, reason="executorch is installed here")
def test_without_the_package_one_line_says_what_to_install(deployed, tmp_path):
    assert ExecuTorch().missing() == (
        "exporting to ExecuTorch needs executorch and torchao; install it with: pip install 'softedge[executorch]'"
    )
    (tmp_path / "model.pte").write_bytes(b"")
    artifact = artifact_of(tmp_path / "model.pte", "executorch", "fp32", deployed.spec)
    with pytest.raises(UserError, match="running an ExecuTorch file needs executorch"):
        ExecuTorch().load(artifact)


def test_precisions_it_does_not_have_and_missing_images_are_refused(deployed, pictures, tmp_path):
    with pytest.raises(UserError, match="no precision 'fp16'"):
        ExecuTorch().convert(deployed, "fp16", pictures, tmp_path)
    with pytest.raises(UserError, match="needs calibration images, found none"):
        ExecuTorch().convert(deployed, "int8", pictures[:0], tmp_path)


@pytest.mark.slow
@pytest.mark.skipif(not installed, reason="needs executorch: pip install 'softedge[executorch]'")
@pytest.mark.parametrize(("precision", "largest"), [("fp32", 1e-5), ("int8", 0.4)])
def test_reloaded_program_agrees_with_pytorch(deployed, pictures, tmp_path, precision, largest):
    target = ExecuTorch()
    artifact = target.convert(deployed, precision, pictures[:20], tmp_path)
    found = compare(target.load(artifact)(pictures), deployed.predict(pictures))
    assert found.max_abs_diff <= largest and found.agreement >= 0.9
