"""No module imports itself through others, not even within a layer, where the linter's contracts would allow it."""

from __future__ import annotations

import graphlib

import pytest

grimp = pytest.importorskip("grimp", reason="grimp (of import-linter) reads the imports")


def circle(imports: dict[str, set[str]]) -> list[str]:
    """Modules that import each other in a circle, the first one again at the end; empty when there is none."""
    try:
        graphlib.TopologicalSorter(imports).prepare()
    except graphlib.CycleError as error:
        return list(error.args[1])
    return []


def test_no_module_imports_itself_through_others() -> None:
    graph = grimp.build_graph("softedge", "softedge.ssl", exclude_type_checking_imports=True, cache_dir=None)
    imports = {module: graph.find_modules_directly_imported_by(module) for module in graph.modules}
    assert "softedge.export.base" in imports["softedge.export.onnx.format"]  # the graph was read
    assert circle(imports) == []
    assert circle({**imports, "softedge.errors": {"softedge.cli"}})  # and a circle would be found
