"""A worker's channel, when Redis goes away while a ring is held."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from prunectl.dispatch import CeleryDoorbell, make_app
from prunectl.settings import Settings
from support.servers import RedisServer


def test_a_ring_that_cannot_be_put_back_is_let_go(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    server = RedisServer()
    try:
        settings = Settings(home=tmp_path, broker_url=server.url)
        CeleryDoorbell(make_app(settings)).ring("cpu", 2)
        connection = make_app(settings, consumes=True).connection_for_read()
        channel = connection.channel()
        assert channel.basic_get("cpu", no_ack=False) is not None
        server.kill()
        with caplog.at_level(logging.WARNING):
            channel.close()
        assert "1 rings were not put back" in caplog.text
    finally:
        server.kill()


def test_a_ring_is_put_back_where_redis_is_there(tmp_path: Path) -> None:
    server = RedisServer()
    try:
        settings = Settings(home=tmp_path, broker_url=server.url)
        CeleryDoorbell(make_app(settings)).ring("cpu")
        app = make_app(settings, consumes=True)
        channel = app.connection_for_read().channel()
        assert channel.basic_get("cpu", no_ack=False) is not None
        assert app.connection_for_read().channel().basic_get("cpu", no_ack=True) is None
        channel.close()
        assert app.connection_for_read().channel().basic_get("cpu", no_ack=True) is not None
    finally:
        server.kill()
