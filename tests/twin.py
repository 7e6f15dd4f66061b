"""Write engine/aio.pyi, the types of the async twin: ``.venv/bin/python tests/twin.py``.

The twin is made at import, where type checkers see nothing. Its stub is made from the source of the sync
methods by the rules of gingham.aio, and formatted by ruff; a test compares it.
"""

from __future__ import annotations

import ast
import inspect
import subprocess
import sys
import textwrap
import typing
from pathlib import Path
from typing import Any

from gingham import aio

STUB = Path(__file__).parents[1] / "engine" / "aio.pyi"
COMMAND = ".venv/bin/python tests/twin.py"

HEAD = f"""# Types of the async twin, made by `{COMMAND}`; do not edit.
# mypy: disable-error-code="overload-overlap"

from collections.abc import AsyncGenerator, Callable, Coroutine, Generator
from concurrent.futures import Executor
from types import TracebackType
from typing import Any, Self, TypeVar, overload
"""
BASE = """
_T = TypeVar("_T")

class Opening(Coroutine[Any, Any, _T]):
    def __init__(self, work: Coroutine[Any, Any, _T]) -> None: ...
    def send(self, value: Any, /) -> Any: ...
    def throw(self, kind: Any, value: Any = None, trace: Any = None, /) -> Any: ...
    def close(self) -> None: ...
    def __await__(self) -> Generator[Any, Any, _T]: ...
    async def __aenter__(self) -> _T: ...
    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

class Twin:
    def __init__(self, sync: Any, executor: Executor | None = None) -> None: ...

TWINS: dict[type, type[Twin]]

def opening(opener: Callable[..., Any], *args: Any, **kwargs: Any) -> Opening[Any]: ...
"""
CONTEXT = """
    async def __aenter__(self) -> Self: ...
    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...
"""


def stub() -> str:
    """Text of the stub."""
    modules: set[str] = set()
    classes = []
    for cls in aio.SYNC:
        twin = aio.TWINS[cls]
        members = aio.members(cls)
        modules |= {cls.__module__, *(inspect.unwrap(getattr(m, "fget", m)).__module__ for m in members.values())}
        body = [line for member in members.values() for line in _member(member)]
        body += [*_attributes(cls), CONTEXT if hasattr(cls, "__exit__") else ""]
        classes.append(f"class {twin.__name__}({twin.__mro__[1].__name__}):\n" + "\n".join(body or ["    ..."]))
    imports = [line for module in sorted(modules) for line in _imports(module)]
    text = "\n".join([HEAD, *imports, BASE, *classes, ""])
    return _ruff(_ruff(text, "check", "--quiet", "--select=I,F401", "--fix"), "format")


def _ruff(text: str, *command: str) -> str:
    done = [sys.executable, "-m", "ruff", *command, f"--stdin-filename={STUB}", "-"]
    return subprocess.run(done, input=text, capture_output=True, text=True, check=True).stdout


def _imports(module: str) -> list[str]:
    """Import everything a module imports, and the classes it defines; ruff takes out what is not used."""
    tree = ast.parse(inspect.getsource(sys.modules[module]))
    lines = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            lines.append(ast.unparse(node))
        elif isinstance(node, ast.ImportFrom) and node.module != "__future__":
            lines += [ast.unparse(ast.ImportFrom(node.module, [alias], node.level)) for alias in node.names]
        elif isinstance(node, ast.ClassDef):
            lines.append(f"from {module} import {node.name}")
    return lines


def _member(member: Any) -> list[str]:
    kind = aio.kind_of(member)
    if kind == "property":
        return ["    @property", _function(getattr(member, "fget", None) or member.func, kind)]
    overloads = typing.get_overloads(member)
    return [line for each in overloads for line in ("    @overload", _function(each, kind))] or [
        _function(member, kind)
    ]


def _function(function: Any, kind: aio.Kind) -> str:
    node = ast.parse(textwrap.dedent(inspect.getsource(function))).body[0]
    assert isinstance(node, ast.FunctionDef)
    # Stubs have plain values as defaults, and three dots for any other.
    plain = [each if isinstance(each, ast.Constant) else ast.Constant(...) for each in node.args.defaults]
    node.args.defaults = list[ast.expr](plain)
    node.args.kw_defaults = [
        ast.Constant(...) if each is not None and not isinstance(each, ast.Constant) else each
        for each in node.args.kw_defaults
    ]
    returns = aio.annotation_of(kind, ast.unparse(node.returns) if node.returns else "Any")
    word = "async def" if kind == "call" else "def"
    return f"    {word} {node.name}({ast.unparse(node.args)}) -> {returns}: ..."


def _attributes(cls: type) -> list[str]:
    """Public attributes that ``__init__`` sets with a type."""
    init = vars(cls).get("__init__")
    tree = ast.parse(textwrap.dedent(inspect.getsource(init)) if init else "")
    typed = [(node.target, node.annotation) for node in ast.walk(tree) if isinstance(node, ast.AnnAssign)]
    return [
        f"    {target.attr}: {ast.unparse(annotation)}"
        for target, annotation in typed
        if isinstance(target, ast.Attribute) and target.attr[0] != "_"
    ]


if __name__ == "__main__":
    STUB.write_text(stub(), encoding="utf-8")
