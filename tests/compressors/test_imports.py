"""The room's walls: `compressors/` knows torch and the standard library, nothing else."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest

import compressors

FILES = sorted(Path(compressors.__file__).parent.rglob("*.py"))
ALLOWED = {"torch", "compressors", *sys.stdlib_module_names}
LAZY = {"triton"}  # only inside functions of kernels/


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(FILES[0].parent)))
def test_imports(file: Path) -> None:
    for node in ast.walk(ast.parse(file.read_text())):
        modules = []
        if isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: write the full name"
            modules = [node.module or ""]
        allowed = ALLOWED | LAZY if file.parent.name == "kernels" else ALLOWED
        assert {module.split(".")[0] for module in modules} <= allowed, f"line {node.lineno}"


def test_every_component_is_documented() -> None:
    for kind in ("scorer", "frame_scorer", "allocator", "selector", "merger", "cacher", "compressor"):
        for name in compressors.names(kind):
            assert compressors.lookup(kind, name).__doc__, f"{kind} {name}"
    for name in compressors.__all__:
        assert getattr(compressors, name).__doc__, name
