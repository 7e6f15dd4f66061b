"""The command line: the verbs of the library. Results go to standard output, progress to standard error.

Exit codes: 0 done, 1 an error of Gingham, 2 wrong usage, 3 damage found by verify.
"""

from __future__ import annotations

import contextlib
import json
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gingham.cli_console import console
from gingham.cli_mcp import mcp
from gingham.cli_server import health, keys_app, serve
from gingham.errors import GinghamError, InvalidArgument
from gingham.progress import progress_bar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from gingham.demo.report import DemoReport
    from gingham.query.hits import Hits

app = typer.Typer(
    name="gingham",
    help="Gingham: a vector database in one crash-safe file.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
app.command()(serve)
app.command()(health)
app.command()(mcp)
app.command()(console)
app.add_typer(keys_app, name="keys")

DamageFound = 3

PathArgument = Annotated[Path, typer.Argument(help="Folder of the database.", show_default=False)]
DbOption = Annotated[Path, typer.Option("--db", help="Folder of the database.", show_default=False)]
CollectionOption = Annotated[str, typer.Option("--collection", "-c", help="Collection to use.")]
DeviceOption = Annotated[str, typer.Option(help="What scans for large batches: auto, cpu, cuda or cuda:N.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]


def main() -> None:
    """Run the command line."""
    try:
        app()
    except GinghamError as error:
        typer.echo(f"error: {error}", err=True)
        sys.exit(1)


def _version(asked: bool) -> None:
    if asked:
        from gingham import __version__

        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    del version


@app.command()
def demo(
    db: Annotated[Path | None, typer.Option(help="Keep the database here; a temporary folder otherwise.")] = None,
    ask: Annotated[
        str | None, typer.Option(help="A question of your own; embedded where gingham[embed] is installed.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Ingest, search and evaluate SciFact: real text with real embeddings, by words, by meaning and by both."""
    from gingham.demo.report import run_demo

    with contextlib.ExitStack() as stack:
        path = db or Path(stack.enter_context(tempfile.TemporaryDirectory())) / "scifact"
        if path.exists():
            raise InvalidArgument(f"demo --db expects a path where nothing is, found {path}; choose another")
        progress = stack.enter_context(progress_bar("Ingesting SciFact"))
        report = run_demo(path, ask=ask, progress=progress)
    if as_json:
        figures = {name: value for name, value in vars(report).items() if name != "examples"}
        _print_json({**figures, "methods": [vars(method) for method in report.methods]})
    else:
        _print_demo(report)


def _print_demo(report: DemoReport) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False)
    console.print(
        f"\nSciFact: {report.documents:,} abstracts, {report.queries} claims, embedded by all-MiniLM-L6-v2 (384 dims); "
        "* marks abstracts judged relevant\n",
        soft_wrap=True,
    )
    for example in report.examples:
        suffix = f"   [filter: {example.where}]" if example.where else ""
        console.print(f"claim: {example.claim}{suffix}", markup=False, style="bold", soft_wrap=True)
        for hit in example.hits:
            mark = "*" if hit.id in example.relevant else " "
            console.print(f" {mark} {hit.score:.3f}  {hit['title']}", markup=False, soft_wrap=True)
        console.print()
    table = Table(show_header=True, header_style="bold")
    for column in ("search", "nDCG@10", "published", "recall@100", "queries/s, one at a time"):
        table.add_column(column, justify="left" if column == "search" else "right")
    for method in report.methods:
        published = "" if method.published_ndcg_at_10 is None else f"{method.published_ndcg_at_10:.3f}"
        table.add_row(
            method.name, f"{method.ndcg_at_10:.3f}", published, f"{method.recall_at_100:.3f}",
            f"{method.queries_per_s:,.0f}",
        )  # fmt: skip
    console.print(table)
    console.print(
        f"ingest {report.ingest_rows_per_s:,.0f} rows/s, synced; "
        f"all {report.queries} vectors in one call {report.batch_queries_per_s:,.0f} queries/s; "
        f"{report.file_bytes:,} bytes on disk",
        soft_wrap=True,
    )


@app.command()
def ingest(
    files: Annotated[list[Path], typer.Argument(help="Parquet or JSON-lines files.", show_default=False)],
    db: DbOption,
    collection: CollectionOption = "docs",
    metric: Annotated[
        str, typer.Option(help="Metric of vectors, where the collection is made: cosine, dot or l2.")
    ] = "cosine",
    vector: Annotated[
        list[str] | None,
        typer.Option(
            help="Column of vectors, where the collection is made and lists of numbers are not all vectors; may be "
            "given several times.",
            show_default=False,
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Write rows of files into a collection, which is made from the first file where it is missing."""
    from gingham.connect import open as open_database
    from gingham.files import infer_schema, read_rows

    inferred = infer_schema(files[0], metric, vector or ())
    with open_database(db) as database:
        if collection not in database:
            database.create_collection(collection, fields=inferred.fields, vectors=inferred.vectors)
        started = time.perf_counter()
        rows = 0
        with progress_bar("Ingesting") as progress:
            for file in files:
                result = database[collection].upsert(_counted(read_rows(file), progress, rows))
                rows += result.inserted + result.updated
        seconds = time.perf_counter() - started
        count = database[collection].count()
    figures = {"rows": rows, "seconds": seconds, "rows_per_s": rows / seconds, "count": count}
    _report(figures, f"{rows:,} rows written in {seconds:.1f} s; {collection!r} has {count:,} rows", as_json)


@app.command()
def search(
    db: DbOption,
    vector: Annotated[
        str | None, typer.Option(help="Query as a JSON array, or @FILE of a .npy or .json file.", show_default=False)
    ] = None,
    text: Annotated[
        str | None,
        typer.Option(help="Query as words, searched by BM25 in a text field that has it.", show_default=False),
    ] = None,
    collection: CollectionOption = "docs",
    k: Annotated[int, typer.Option("-k", help="Hits.")] = 10,
    where: Annotated[str | None, typer.Option(help="Filter, such as \"year >= 2024 AND lang = 'en'\".")] = None,
    using: Annotated[str | None, typer.Option(help="Field to search, where there are several.")] = None,
    ef_search: Annotated[
        int | None, typer.Option(help="Candidates of a graph scored from the vectors; 64 by default.")
    ] = None,
    nprobe: Annotated[int | None, typer.Option(help="Lists read of each segment; 16 by default.")] = None,
    target_recall: Annotated[
        float | None, typer.Option(help="In their place, the share of the nearest rows that should be found.")
    ] = None,
    oversample: Annotated[
        float | None, typer.Option(help="Candidates of codes scored from the vectors, times -k.")
    ] = None,
    exact: Annotated[bool, typer.Option(help="Scan the vectors even where they have codes or an index.")] = False,
    explain: Annotated[bool, typer.Option(help="Also print how the search went.")] = False,
    device: DeviceOption = "auto",
    as_json: JsonOption = False,
) -> None:
    """Find the nearest rows of a vector, or those with the words of a text."""
    from gingham.connect import open as open_database

    if (vector is None) == (text is None):
        raise typer.BadParameter("expected either --vector or --text")
    query = text if vector is None else _read_vector(vector)
    with open_database(db, mode="r", device=device) as database:
        hits: Hits = database[collection].search(
            query, k=k, where=where, using=using, exact=exact, oversample=oversample, ef_search=ef_search,
            nprobe=nprobe, target_recall=target_recall,
        )  # fmt: skip
    if as_json:
        _print_json([{"id": h.id, "score": h.score, **h.fields} for h in hits])
        return
    for hit in hits:
        shown = "  ".join(f"{name}={str(value)[:60]!r}" for name, value in hit.items() if value is not None)
        typer.echo(f"{hit.score:10.4f}  {hit.id!s}  {shown}")
    if hits.complete.why:
        typer.echo(hits.complete.why, err=True)
    if explain:
        typer.echo(str(hits.explain()), err=True)


@app.command()
def recall(
    db: PathArgument,
    collection: CollectionOption = "docs",
    k: Annotated[int, typer.Option("-k", help="Nearest rows of each query.")] = 10,
    n: Annotated[int, typer.Option("-n", help="Rows taken for queries.")] = 100,
    where: Annotated[str | None, typer.Option(help="Filter of all searches.")] = None,
    using: Annotated[str | None, typer.Option(help="Dense vector field, where there are several.")] = None,
    ef_search: Annotated[int | None, typer.Option(help="Candidates of a graph; 64 by default.")] = None,
    nprobe: Annotated[int | None, typer.Option(help="Lists read of each segment; 16 by default.")] = None,
    target_recall: Annotated[float | None, typer.Option(help="In their place, the share to be found.")] = None,
    device: DeviceOption = "auto",
    as_json: JsonOption = False,
) -> None:
    """Measure what searches find now of what exact ones find."""
    from gingham.connect import open as open_database

    with open_database(db, mode="r", device=device) as database:
        found = database[collection].recall(
            k=k, n=n, where=where, using=using, ef_search=ef_search, nprobe=nprobe, target_recall=target_recall
        )
    text = f"recall@{found.k} {found.recall:.4f}, with 95 % confidence {found.low:.4f} to {found.high:.4f}, of "
    text += f"{found.queries} queries in {found.seconds:.3f} s, exact ones in {found.exact_seconds:.3f} s"
    _report(asdict(found), text, as_json)


def _read_vector(text: str) -> Any:
    import numpy as np

    try:
        path = Path(text[1:])
        if not text.startswith("@"):
            vector = json.loads(text)
        else:
            vector = np.load(path) if path.suffix == ".npy" else json.loads(path.read_text("utf-8"))
        if not isinstance(vector, (list, np.ndarray)) or np.ndim(vector) != 1:
            raise ValueError("it is not one list of numbers")
    except (OSError, ValueError, RecursionError) as error:
        raise InvalidArgument(f"--vector expects a JSON array or @FILE, found {text[:60]!r}: {error}") from error
    return vector


@app.command()
def info(db: PathArgument, as_json: JsonOption = False) -> None:
    """Show the collections with their fields and vectors."""
    from gingham.connect import open as open_database

    with open_database(db, mode="r") as database:
        found = {name: database[name].schema for name in database.collections()}
        counts = {name: database[name].count() for name in found}
    if as_json:
        import msgspec

        _print_json({n: {"rows": counts[n], **msgspec.to_builtins(s)} for n, s in found.items()})
        return
    for name, schema in found.items():
        typer.echo(f"{name}: {counts[name]:,} rows")
        for column, kind in [*schema.fields.items(), *schema.vectors.items()]:
            typer.echo(f"  {column}: {kind}")


@app.command()
def stats(db: PathArgument, as_json: JsonOption = False) -> None:
    """Show rows, segments, tail and bytes."""
    from dataclasses import asdict

    from gingham.connect import open as open_database

    with open_database(db, mode="r") as database:
        whole = asdict(database.stats())
        each = {name: asdict(database[name].stats()) for name in database.collections()}
    if as_json:
        _print_json({**whole, "by_collection": each})
        return
    for title, figures in [("database", whole), *each.items()]:
        typer.echo(title)
        vectors = figures.pop("vectors", {})
        for heading, part in [("", figures), *((f"  {name}\n", part) for name, part in vectors.items())]:
            typer.echo(heading, nl=False)
            for name, value in part.items():
                shown = (
                    f"{value:,}" if isinstance(value, int) else f"{value:.1f}" if isinstance(value, float) else value
                )
                typer.echo(f"  {'  ' if heading else ''}{name:<16} {shown}")


@app.command(name="eval")
def evaluate_command(
    ctx: typer.Context,
    qrels: Annotated[
        Path,
        typer.Option(help="Tab-separated query, document, grade; a header line may stand first.", show_default=False),
    ],
    db: Annotated[Path | None, typer.Option(help="Folder of the database to search.")] = None,
    queries: Annotated[Path | None, typer.Option(help="JSON lines with id and vector, or id and text.")] = None,
    collection: CollectionOption = "docs",
    using: Annotated[str | None, typer.Option(help="Vector field, where there are several.")] = None,
    where: Annotated[str | None, typer.Option(help="Filter applied to every query.")] = None,
    device: DeviceOption = "auto",
    run: Annotated[Path | None, typer.Option(help="Score this saved run; nothing is searched.")] = None,
    save_run: Annotated[Path | None, typer.Option(help="Write the scored run here, in the TREC format.")] = None,
    compare: Annotated[
        tuple[Path, Path] | None,
        typer.Option(metavar="OLD NEW", help="Compare two saved runs: what was won and lost, and is it chance."),
    ] = None,
    measure: Annotated[str, typer.Option(help="Measure to compare by: nDCG, recall or MRR at a cut-off.")] = "nDCG@10",
    as_json: JsonOption = False,
) -> None:
    """Score rankings against relevance judgements, or compare two runs."""
    from dataclasses import asdict

    from gingham.evaluation import compare as compare_runs
    from gingham.evaluation import evaluate
    from gingham.files import read_qrels, read_run, write_run

    _check_eval_options(ctx)
    judged = read_qrels(qrels)
    if compare is not None:
        old, new = map(read_run, compare)
        comparison = compare_runs(old, new, judged, measure=measure)
        _report(asdict(comparison), str(comparison), as_json)
        return
    found = read_run(run) if run is not None else _search_run(db, queries, collection, using, where, device)
    if save_run is not None:
        write_run(save_run, found)
    outcome = evaluate(found, judged)
    _report({**outcome.means, "queries": outcome.queries}, str(outcome), as_json)


def _check_eval_options(ctx: typer.Context) -> None:
    """Refuse options that are of another way of eval than the one asked for."""
    ways = {
        "--compare": {"compare", "measure"},
        "--run": {"run", "save_run"},
        "a search": {"db", "queries", "collection", "using", "where", "save_run", "device"},
    }
    given = [name for name in ctx.params if getattr(ctx.get_parameter_source(name), "name", "") == "COMMANDLINE"]
    way = "--compare" if "compare" in given else "--run" if "run" in given else "a search"
    refused = [f"--{name.replace('_', '-')}" for name in given if name not in {"qrels", "as_json"} | ways[way]]
    if refused:
        ctx.fail(f"{way} does not go with {', '.join(refused)}")
    if way == "a search" and not {"db", "queries"} <= set(given):
        ctx.fail("eval expects --db and --queries to search with, or --run FILE, or --compare OLD NEW")


def _search_run(
    db: Path | None, queries: Path | None, collection: str, using: str | None, where: str | None, device: str
) -> dict[str, dict[str, float]]:
    from gingham.connect import open as open_database
    from gingham.files import read_queries

    assert db is not None  # both were asked for by _check_eval_options
    assert queries is not None
    names, asked = read_queries(queries)
    with open_database(db, mode="r", device=device) as database:
        results = database[collection].search(asked, k=100, using=using, where=where, fields=[])
    return {
        name: {str(i): float(score) for i, score in zip(hits.ids, hits.scores, strict=True)}
        for name, hits in zip(names, results, strict=True)
    }


@app.command()
def verify(
    db: PathArgument,
    collection: Annotated[str | None, typer.Option("--collection", "-c", help="Read this collection only.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Read every page, record and vector, and report all damage; exit code 3 where there is some."""
    from gingham.connect import open as open_database

    with open_database(db, mode="r") as database, progress_bar("Verifying") as progress:
        total = database.stats().used_bytes
        what = database if collection is None else database[collection]
        report = what.verify(progress=lambda done: progress(done, max(total, done)))
    found = [str(damage) for damage in report.damage]
    figures = {"ok": report.ok, "records": report.records, "blob_bytes": report.blob_bytes, "damage": found}
    text = f"healthy: {report.records:,} records and {report.blob_bytes:,} bytes of columns read"
    _report(figures, text if report.ok else "\n".join(found), as_json)
    if not report.ok:
        raise typer.Exit(DamageFound)


@app.command()
def compact(db: PathArgument, as_json: JsonOption = False) -> None:
    """Give free pages back to the disk; readers go on meanwhile."""
    from gingham.connect import open as open_database

    with open_database(db, create=False) as database:
        before, after = database.compact()
    _report({"before": before, "after": after}, f"{before:,} bytes before, {after:,} after", as_json)


@app.command()
def backup(
    db: PathArgument,
    target: Annotated[Path, typer.Argument(help="Where nothing is.", show_default=False)],
    as_json: JsonOption = False,
) -> None:
    """Write a copy of the newest commit; it is a database of its own."""
    from gingham.connect import open as open_database

    with open_database(db, mode="r") as database:
        written = database.backup(target)
    _report({"path": str(written)}, f"written to {written}", as_json)


@app.command()
def restore(
    source: Annotated[Path, typer.Argument(help="The backup.", show_default=False)],
    target: Annotated[Path, typer.Argument(help="Where nothing is.", show_default=False)],
    as_json: JsonOption = False,
) -> None:
    """Verify a backup and copy it to a new place."""
    from gingham.connect import restore as restore_database

    restore_database(source, target)
    _report({"path": str(target)}, f"restored to {target}", as_json)


@app.command()
def warmup(as_json: JsonOption = False) -> None:
    """Compile all kernels now, so that no first query waits: for images and installations."""
    from gingham.index.warmup import KERNEL_MODULES
    from gingham.index.warmup import warmup as compile_kernels

    started = time.perf_counter()
    with progress_bar("Compiling kernels") as progress:
        count = compile_kernels(lambda name: progress(KERNEL_MODULES.index(name), len(KERNEL_MODULES)))
    seconds = time.perf_counter() - started
    from gingham.codecs.jit import CACHE_FOLDER
    from gingham.codecs.kernel_cache import can_write

    kept = CACHE_FOLDER is not None and can_write(CACHE_FOLDER)
    folder = str(CACHE_FOLDER) if kept else None
    text = f"{count} kernel modules ready in {seconds:.1f} s, " + (
        f"kept in {folder}"
        if kept
        else f"kept for no other process: {CACHE_FOLDER or 'no cache folder'} is not writable"
    )
    _report({"modules": count, "seconds": seconds, "folder": folder}, text, as_json)


def _counted(rows: Iterator[Any], progress: Callable[[int, int], None], before: int) -> Iterator[Any]:
    done = before
    for batch in rows:
        yield batch
        done += batch.num_rows
        progress(done, 0)


def _report(figures: dict[str, Any], text: str, as_json: bool) -> None:
    if as_json:
        _print_json(figures)
    else:
        typer.echo(text)


def _print_json(value: Any) -> None:
    typer.echo(json.dumps(value, indent=2, default=str))
