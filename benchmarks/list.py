"""A page of ``GET /v1/jobs`` out of a thousand jobs and out of a million, over HTTP, on both databases.

``python -m benchmarks.list``. Each page is fetched in turn from the small table and from the large one, so that both see
the same machine; the tables are filled by SQL and hold whole jobs, three quarters of them with results.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx2
from benchmarks import surroundings
from benchmarks.report import Measurement, Report, percentile
from sqlalchemy import Engine, Index, text

from prunectl.db import migrate
from prunectl.db.job_rows import row_of
from prunectl.db.session import make_engine
from prunectl.db.tables import jobs
from prunectl.jobs.query import Position, encode_cursor
from prunectl.jobs.records import JobQuery
from prunectl.settings import Settings

PAGE = 50
OWNERS = 5
_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
_STATES = ("succeeded", "succeeded", "succeeded", "failed", "cancelled", "succeeded", "succeeded", "queued")
_NUMBERS = {
    "postgresql": "SELECT generate_series(1, {rows}) AS n",
    "sqlite": "WITH RECURSIVE s(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM s WHERE n < {rows}) SELECT n FROM s",
}


def fill(engine: Engine, rows: int) -> None:
    """``rows`` jobs of `OWNERS` owners, one second apart, the last one now."""
    [new] = surroundings.new_jobs(surroundings.bodies(1, salt="list"))
    fixed: dict[str, Any] = row_of(new, now=0.0, dedupe=False)
    lite = engine.dialect.name == "sqlite"
    names = "CASE n % 8 " + " ".join(f"WHEN {k} THEN '{state}'" for k, state in enumerate(_STATES)) + " END"
    done = "n % 8 IN (0, 1, 2, 5, 6)"
    varied = {
        # Old ones get ids that sort below new ones', as ULIDs do.
        "id": "'01' || " + ("printf('%024d', n)" if lite else "lpad(n::text, 24, '0')"),
        "owner": f"'owner-' || (n % {OWNERS})",
        "state": names,
        "digest": "'sha256:' || n",
        "created_at": ":now - (:rows - n)",
        "not_before": ":now - (:rows - n)",
        "started_at": "CASE WHEN n % 8 < 7 THEN :now - (:rows - n) + 5 END",
        "finished_at": "CASE WHEN n % 8 < 7 THEN :now - (:rows - n) + 60 END",
        "result": f"CASE WHEN {done} THEN :result END" if lite else f"CASE WHEN {done} THEN CAST(:result AS json) END",
        "attempt": "CASE WHEN n % 8 < 7 THEN 1 ELSE 0 END",
        "failures": "0",
        "progress": "1.0",
        "worker": "'worker-' || (n % 50)",
    }
    parameters: dict[str, Any] = {"now": time.time(), "rows": rows, "result": json.dumps(surroundings.result())}
    columns, values = [], []
    for column in jobs.c:
        name = column.name
        if name in varied:
            value = varied[name]
        elif fixed.get(name) is not None:
            parameters[name] = json.dumps(fixed[name]) if isinstance(fixed[name], dict) else fixed[name]
            value = f":{name}" if lite else f"CAST(:{name} AS {column.type.compile(engine.dialect)})"
        else:
            continue
        columns.append(name)
        values.append(value)
    into = f"INSERT INTO jobs ({', '.join(columns)}) SELECT {', '.join(values)}"
    secondary: list[Index] = sorted(jobs.indexes, key=lambda index: str(index.name))
    with engine.begin() as connection:
        for index in secondary:
            index.drop(connection)
        connection.execute(
            text(f"{into} FROM ({_NUMBERS[engine.dialect.name].format(rows=rows)}) AS numbers"), parameters
        )
        for index in secondary:
            index.create(connection)
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("ANALYZE"))  # as autovacuum would, minutes later


@contextmanager
def service(database: str, home: Path, scope: str) -> Iterator[httpx2.Client]:
    settings = Settings(home=home, database_url=database, sweep_seconds=3600)
    with (
        surroundings.api(settings, owner="owner-3", scope=scope) as api,
        httpx2.Client(base_url=api.url, headers=api.headers, timeout=60) as client,
    ):
        yield client


def pages(rows: int) -> dict[str, dict[str, Any]]:
    """Name -> parameters of an administrator's pages."""
    depth = rows // 2
    sort = "-created_at"
    after = Position(time.time() - depth, f"01{rows - depth:024d}")
    return {
        "first page": {"sort": sort},
        f"keyset page at depth {depth:,}": {"sort": sort, "cursor": encode_cursor(JobQuery(sort=sort), after)},
        "active or of the last day": {"recent": "24h"},
        "two states": {"state": "queued,cancelled"},
    }


def own_pages(_rows: int) -> dict[str, dict[str, Any]]:
    """Of a caller who is no administrator, and so sees one owner's jobs."""
    return {
        "an owner's": {},
        "state + owner": {"state": "failed"},
        "owner, active or of the last day": {"recent": "24h"},
    }


def timed(client: httpx2.Client, parameters: dict[str, Any]) -> float:
    """Milliseconds until the whole page is here."""
    began = time.perf_counter()
    response = client.get("/v1/jobs", params={"limit": PAGE, **parameters})
    elapsed = time.perf_counter() - began
    response.raise_for_status()
    if not response.json()["items"]:
        raise AssertionError(f"no jobs for {parameters}")
    return elapsed * 1000


def compare(
    report: Report,
    kind: str,
    small: tuple[httpx2.Client, int],
    large: tuple[httpx2.Client, int],
    asked: Callable[[int], dict[str, dict[str, Any]]],
    rounds: int,
) -> None:
    (few, few_rows), (many, many_rows) = small, large
    for of_few, (name, of_many) in zip(asked(few_rows).values(), asked(many_rows).items(), strict=True):
        ours, theirs = [], []
        for number in range(rounds + 3):
            pair = timed(few, of_few), timed(many, of_many)
            if number >= 3:  # the first ones fill caches
                theirs.append(pair[0])
                ours.append(pair[1])
        growth = statistics.median(ours) / statistics.median(theirs)
        note = f"p95 {percentile(ours, 0.95):.1f} ms; {growth:.2f} x the time with {few_rows:,}"
        peer = f"the same with {few_rows:,} jobs"
        measure = f"{kind}, {many_rows:,} jobs: {name}"
        report.add(Measurement(measure, "ms", ours, theirs, peer, target="<= 50", note=note))
        # Not slower than three times: our time may be at most three of theirs.
        report.add(Measurement(f"{measure}, against {few_rows:,}", "ms", ours, theirs, peer, target=">= 0.333", target_is="ratio"))  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--postgres", help="URL of a server's maintenance database; without it, one is started")
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--few", type=int, default=1_000)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--only", nargs="*", default=["postgresql", "sqlite"])
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/list.json"))
    chosen = parser.parse_args()
    surroundings.end_well()
    report = Report("list", ("sqlalchemy", "psycopg", "fastapi", "uvicorn"))
    for kind in chosen.only:
        with ExitStack() as stack:
            home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="prunectl-bench-")))
            urls = {}
            for rows in (chosen.few, chosen.rows):
                if kind == "postgresql":
                    urls[rows] = stack.enter_context(surroundings.postgres(chosen.postgres))
                else:
                    urls[rows] = f"sqlite:///{home}/{rows}.db"
                    migrate.upgrade(urls[rows])
                began = time.perf_counter()
                fill(make_engine(urls[rows], pooled=False), rows)
                print(f"list: {kind}: {rows:,} jobs in {time.perf_counter() - began:.0f} s", file=sys.stderr)
            for scope, asked in (("admin", pages), ("read", own_pages)):
                with (
                    service(urls[chosen.few], home, scope) as small,
                    service(urls[chosen.rows], home, scope) as large,
                ):
                    compare(report, kind, (small, chosen.few), (large, chosen.rows), asked, chosen.rounds)
    report.finish(chosen.output)


if __name__ == "__main__":
    main()
