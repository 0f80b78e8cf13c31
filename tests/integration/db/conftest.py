from support.databases import sqlite_engine, sqlite_template, sqlite_url
from support.servers import postgres_database, postgres_url

__all__ = ["postgres_database", "postgres_url", "sqlite_engine", "sqlite_template", "sqlite_url"]
