from __future__ import annotations

import socket
import time
from pathlib import Path

import pytest
from kombu import Connection

from prunectl.dispatch import CeleryDoorbell, make_app
from prunectl.dispatch.celery_app import RING
from prunectl.errors import Unavailable
from prunectl.settings import Settings


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path / "a home")


def messages(settings: Settings) -> list[Path]:
    return sorted((settings.broker_directory / "messages").iterdir())


def test_a_ring_is_a_small_message_that_names_no_job(settings: Settings) -> None:
    CeleryDoorbell(make_app(settings)).ring("cpu", 3)
    found = messages(settings)
    assert len(found) == 3
    assert all(path.name.endswith(".cpu.msg") for path in found)
    assert RING in found[0].read_text()
    assert found[0].stat().st_size < 2048


def test_each_message_is_taken_once_and_by_queue(settings: Settings) -> None:
    app = make_app(settings)
    bell = CeleryDoorbell(app)
    bell.ring("cpu", 2), bell.ring("gpu")
    with app.connection_for_read() as connection, connection.channel() as channel:
        assert isinstance(connection, Connection)
        taken = [channel.basic_get("cpu", no_ack=True) for _ in range(3)]
        assert [message is not None for message in taken] == [True, True, False]
        assert channel.basic_get("gpu", no_ack=True) is not None
    assert messages(settings) == []


def test_a_message_being_written_is_not_read(settings: Settings) -> None:
    app = make_app(settings)
    (settings.broker_directory / "messages" / "1_x.partial").write_text("")
    with app.connection_for_read() as connection, connection.channel() as channel:
        assert channel.basic_get("cpu", no_ack=True) is None


def test_nothing_is_rung_for_nothing(settings: Settings) -> None:
    CeleryDoorbell(make_app(settings)).ring("cpu", 0)
    assert messages(settings) == []


def test_a_broker_that_is_down_costs_little_and_raises_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        settings = Settings(home=tmp_path, broker_url=f"redis://127.0.0.1:{closed.getsockname()[1]}/0")
        bell = CeleryDoorbell(make_app(settings))
        started = time.monotonic()
        bell.ring("cpu", 64)
        assert time.monotonic() - started < 5
        assert "not rung" in caplog.text
        with pytest.raises(Unavailable, match="broker"):
            bell.ping()


def test_a_full_disk_is_logged(
    settings: Settings, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: Path, data: bytes) -> int:
        raise OSError(28, "No space left on device")

    bell = CeleryDoorbell(make_app(settings))
    monkeypatch.setattr(Path, "write_bytes", full)
    bell.ring("cpu")
    assert "No space left" in caplog.text
    assert messages(settings) == []


def test_the_folders_answer_a_ping(settings: Settings) -> None:
    CeleryDoorbell(make_app(settings)).ping()


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "home").write_text("")
    with pytest.raises(Unavailable):
        make_app(Settings(home=tmp_path / "home"))


@pytest.mark.parametrize("broker", ["filesystem://", "redis://localhost/0", "rediss://localhost/0"])
def test_settings_that_must_never_change(tmp_path: Path, broker: str) -> None:
    conf = make_app(Settings(home=tmp_path, broker_url=broker)).conf
    assert conf.accept_content == ["json"]
    assert conf.task_serializer == "json"
    assert conf.task_acks_late is False
    assert conf.task_reject_on_worker_lost is False
    assert conf.result_backend is None
    assert conf.task_ignore_result is True
    assert conf.worker_prefetch_multiplier == 1
    assert conf.worker_disable_prefetch is broker.startswith("redis")
    assert conf.task_create_missing_queues is False
    assert conf.task_time_limit is None
    assert conf.worker_max_tasks_per_child is None
    assert conf.worker_cancel_long_running_tasks_on_connection_loss is False
    if broker.startswith("redis"):
        options = conf.broker_transport_options
        assert options["global_keyprefix"] == "prunectl:"
        assert options["socket_timeout"] <= 2, "whoever submits waits for the ring"
        consumer = make_app(Settings(home=tmp_path, broker_url=broker), consumes=True).conf.broker_transport_options
        assert 5 <= consumer["socket_timeout"] <= 30, "longer than a blocking pop, shorter than anyone's patience"
