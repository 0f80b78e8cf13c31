from support.databases import sqlite_template, sqlite_url
from support.servers import postgres_database, postgres_url, redis_server

__all__ = ["postgres_database", "postgres_url", "redis_server", "sqlite_template", "sqlite_url"]
