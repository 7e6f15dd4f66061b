"""What is said where a framework is not installed."""

from __future__ import annotations

from gingham.errors import MissingExtra


def missing_extra(extra: str, error: ImportError) -> MissingExtra:
    """The error for a framework that cannot be imported; it ends with the line that installs it."""
    return MissingExtra(
        f"gingham.clients.rag expects the extra {extra!r}, found no {error.name or 'package of it'}; "
        f"run: pip install 'gingham[{extra}]'"
    )
