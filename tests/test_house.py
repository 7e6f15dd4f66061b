"""The layout keeps its promises."""

from __future__ import annotations

import ast
import inspect
import re
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import pytest
import typer

import gingham as gg

ROOT = Path(__file__).parents[1]
PACKAGES = {
    "engine": "gingham", "index": "gingham.index", "codecs": "gingham.codecs", "server": "gingham.server",
    "clients": "gingham.clients",
}  # fmt: skip
SHARED = (
    "affine_row_kernels", "beam_kernels", "fast_scan_kernels", "float_kernels", "float_row_kernels", "intrinsics",
    "maxsim_intrinsics", "reservoir_kernels", "rotation_kernels", "scalar_kernels", "topk_kernels", "wide_intrinsics",
)  # fmt: skip
"""Modules of gingham.codecs that kernel files import."""
MODULES = sorted(
    path
    for folder in PACKAGES
    for path in (ROOT / folder).rglob("*.py")
    if not path.stem.endswith(("_pb2", "_pb2_grpc"))
)
"""Written by hand: stubs that protoc generates are as long as the interface."""


def tracked() -> list[Path]:
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    out = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return [ROOT / name for name in out.split("\0") if name and (ROOT / name).is_file()]


def test_every_package_folder_is_packaged() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    found = {
        ".".join([PACKAGES[folder], *path.parent.relative_to(ROOT / folder).parts])
        for folder in PACKAGES
        for path in (ROOT / folder).rglob("__init__.py")
    }
    assert found == set(project["tool"]["setuptools"]["packages"])


def test_tracked_files_are_small_and_name_no_local_path() -> None:
    local = re.compile(r"(^|[^\w.])/(work|farm|root|home)/")
    for path in tracked():
        assert path.stat().st_size < 5_000_000, path
        if path.suffix not in {".gz", ".npy", ".png"}:
            text = path.read_text("utf-8")
            assert not local.search(text) or path == Path(__file__), path


def test_constraints_hold_no_addresses() -> None:
    assert not re.search(r"@|://", (ROOT / "constraints.txt").read_text())


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(ROOT)))
def test_modules_and_functions_are_short_and_documented(path: Path) -> None:
    text = path.read_text("utf-8")
    assert len(text.splitlines()) <= 500
    tree = ast.parse(text)
    assert ast.get_docstring(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            assert (node.end_lineno or 0) - node.lineno + 1 <= 60 + len((ast.get_docstring(node) or "").splitlines())
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "print":
            raise AssertionError(f"{path} prints")


def test_kernel_files_import_only_numpy_numba_and_the_jit_settings() -> None:
    for path in MODULES:
        if path.name.endswith("_kernels.py"):
            names = {
                node.module if isinstance(node, ast.ImportFrom) else node.names[0].name
                for node in ast.walk(ast.parse(path.read_text("utf-8")))
                if isinstance(node, (ast.Import, ast.ImportFrom))
            }
            assert names <= {
                "numpy",
                "numba",
                "llvmlite",
                "typing",
                "__future__",
                *(
                    f"gingham.codecs.{name}"
                    for name in (*SHARED, "cuda_intrinsics", "cuda_kernels", "cuda_select_kernels")
                ),
            }


def test_the_cache_of_kernels_knows_every_source_that_kernels_share() -> None:
    from gingham.codecs.kernel_cache import SHARED_SOURCES

    folder, shared, found = ROOT / "codecs", {"kernel_cache.py"}, [f"{name}.py" for name in SHARED]
    while found:
        name = found.pop()
        if name not in shared:
            shared.add(name)
            found += [f"{m}.py" for m in re.findall(r"from gingham\.codecs\.(\w+) import", (folder / name).read_text())]
    assert shared == set(SHARED_SOURCES)


def test_importing_gingham_loads_nothing_heavy() -> None:
    code = "import sys, gingham; print([m for m in ('numpy', 'numba', 'pyarrow', 'grpc', 'torch', 'lmdb') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_importing_gingham_costs_under_150_ms() -> None:
    def best(code: str) -> float:
        times = []
        for _ in range(5):
            started = time.perf_counter()
            subprocess.run([sys.executable, "-c", code], check=True)
            times.append(time.perf_counter() - started)
        return min(times)

    assert best("import gingham") - best("pass") < 0.15


def test_the_public_names_are_those_written_down() -> None:
    lines = []
    for name in gg.__all__:
        value = getattr(gg, name)
        if inspect.isclass(value) and not issubclass(value, gg.GinghamError):
            methods = [n for n in dir(value) if not n.startswith("_") and callable(getattr(value, n))]
            lines += [name, *(f"  {m}{_signature(getattr(value, m))}" for m in methods)]
        else:
            lines.append(f"{name}{_signature(value) if inspect.isfunction(value) else ''}")
    written = (ROOT / "tests" / "public_api.txt").read_text("utf-8").splitlines()
    assert lines == written


def _signature(value: object) -> str:
    try:
        found = inspect.signature(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return "(...)"
    parameters = [p.replace(annotation=inspect.Parameter.empty) for p in found.parameters.values()]
    return re.sub(
        r"<[^>]*>", "...", str(found.replace(parameters=parameters, return_annotation=inspect.Signature.empty))
    )


def test_every_command_has_help_and_stands_in_the_readme() -> None:
    from gingham.cli import app

    readme = (ROOT / "README.md").read_text("utf-8")
    group = typer.main.get_command(app)
    commands = getattr(group, "commands", {})
    assert len(commands) == 17
    for name, command in commands.items():
        assert command.help
        assert f"gingham {name}" in readme


def test_the_code_of_the_readme_runs(tmp_path: Path) -> None:
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text("utf-8"), re.S)
    assert blocks
    script = tmp_path / "readme.py"
    script.write_text("\n".join(blocks))
    subprocess.run([sys.executable, "-W", "error", str(script)], cwd=tmp_path, check=True, timeout=120)


def test_every_room_stands_in_the_architecture() -> None:
    text = (ROOT / "engine" / "ARCHITECTURE.md").read_text("utf-8")
    for path in MODULES:
        if path.name != "__init__.py":
            assert f"`{path.stem}`" in text, path


def test_the_changelog_and_the_package_agree_on_the_version() -> None:
    assert f"## {gg.__version__}" in (ROOT / "CHANGELOG.md").read_text("utf-8")
    assert tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"] == gg.__version__


def test_no_module_hides_a_public_name() -> None:
    modules = {path.stem for path in (ROOT / "engine").glob("*.py")} | {
        path.parent.name for path in (ROOT / "engine").glob("*/__init__.py")
    }
    assert {name for name in gg.__all__ if not inspect.ismodule(getattr(gg, name))}.isdisjoint(modules)
