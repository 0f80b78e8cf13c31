from __future__ import annotations

import os
from pathlib import Path

import pytest
from sqlalchemy import Engine, text
from sqlalchemy.exc import IntegrityError

from prunectl.db.session import database_url, make_engine, reading, writing
from prunectl.errors import DiskFull, InvalidInput, Unavailable


@pytest.mark.parametrize(
    ("given", "driver"),
    [
        ("postgresql://u:p@h/d", "postgresql+psycopg"),
        ("postgres://u:p@h/d", "postgresql+psycopg"),
        ("postgresql+psycopg2://u@h/d", "postgresql+psycopg"),
        ("sqlite:////tmp/x.db", "sqlite"),
    ],
)
def test_the_driver_is_ours(given: str, driver: str) -> None:
    assert database_url(given).drivername == driver


@pytest.mark.parametrize("given", ["mysql://h/d", "not a url", "", "oracle://h"])
def test_other_databases_are_refused(given: str) -> None:
    with pytest.raises(InvalidInput):
        database_url(given)


def test_sqlite_is_set_up_for_many_processes(sqlite_engine: Engine) -> None:
    with sqlite_engine.connect() as connection:
        pragma = {
            name: connection.exec_driver_sql(f"PRAGMA {name}").scalar()
            for name in ("journal_mode", "foreign_keys", "busy_timeout")
        }
    assert pragma == {"journal_mode": "wal", "foreign_keys": 1, "busy_timeout": 30000}


def test_a_writer_holds_the_lock_from_its_first_statement(sqlite_engine: Engine, sqlite_url: str) -> None:
    other = make_engine(sqlite_url)
    with other.connect() as connection:
        connection.exec_driver_sql("PRAGMA busy_timeout = 1")
        connection.commit()
    with writing(sqlite_engine) as first:
        first.execute(text("SELECT 1"))
        with pytest.raises(Unavailable, match="locked"), writing(other):
            pass
        with reading(other) as reader:  # readers go on
            assert reader.scalar(text("SELECT count(*) FROM jobs")) == 0
    other.dispose()


def test_a_failed_transaction_leaves_nothing(sqlite_engine: Engine) -> None:
    with pytest.raises(IntegrityError), writing(sqlite_engine) as connection:
        connection.execute(text("INSERT INTO idempotency_keys VALUES ('a', 'k', 'b', '[]', 1)"))
        connection.execute(text("INSERT INTO idempotency_keys VALUES ('a', 'k', 'b', '[]', 1)"))
    with reading(sqlite_engine) as connection:
        assert connection.scalar(text("SELECT count(*) FROM idempotency_keys")) == 0


def test_no_server_is_said_so() -> None:
    engine = make_engine("postgresql://nobody@127.0.0.1:1/none")
    with pytest.raises(Unavailable, match="does not answer"), reading(engine):
        pass


def test_a_directory_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(Unavailable):
        make_engine(f"sqlite:///{tmp_path / 'file' / 'x' / 'a.db'}")


def test_a_full_disk_is_said_so(sqlite_engine: Engine) -> None:
    with pytest.raises(DiskFull), writing(sqlite_engine) as connection:
        pages = connection.exec_driver_sql("PRAGMA page_count").scalar()
        connection.exec_driver_sql(f"PRAGMA max_page_count = {pages}")
        for number in range(200):
            connection.execute(
                text("INSERT INTO idempotency_keys VALUES ('a', :k, :b, '[]', 1)"), {"k": str(number), "b": "x" * 4000}
            )


def test_a_forked_child_does_not_share_connections(sqlite_engine: Engine) -> None:
    with sqlite_engine.connect() as connection:
        connection.execute(text("SELECT 1"))
    assert sqlite_engine.pool.checkedin() == 1  # type: ignore[attr-defined]
    child = os.fork()
    if child == 0:
        os._exit(0 if sqlite_engine.pool.checkedin() == 0 else 1)  # type: ignore[attr-defined]
    _, status = os.waitpid(child, 0)
    assert status == 0
    assert sqlite_engine.pool.checkedin() == 1  # type: ignore[attr-defined]
