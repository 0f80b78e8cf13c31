"""What a worker refuses to start with."""

from __future__ import annotations

from pathlib import Path

import pytest

from prunectl.errors import InvalidInput, Unavailable
from prunectl.settings import Settings
from prunectl.worker import main


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path)


def test_a_database_that_is_not_migrated(settings: Settings) -> None:
    with pytest.raises(Unavailable) as caught:
        main.serve(["cpu"], 1, None, settings)
    assert caught.value.hint == "run: prunectl migrate"


def test_an_unknown_queue_with_the_nearest(settings: Settings) -> None:
    with pytest.raises(InvalidInput) as caught:
        main.serve(["cup"], 1, None, settings)
    assert caught.value.hint == "did you mean cpu?"


def test_no_slot_and_no_queue(settings: Settings) -> None:
    with pytest.raises(InvalidInput, match="slot"):
        main.serve(["cpu"], 0, None, settings)
    with pytest.raises(InvalidInput, match="no queue"):
        main.serve([], 1, None, settings)


def test_a_lease_that_no_heartbeat_could_keep(settings: Settings) -> None:
    with pytest.raises(InvalidInput, match="heartbeat"):
        main.serve(["cpu"], 1, None, settings.model_copy(update={"lease_seconds": 5.0}))


def test_the_gpu_queue_needs_a_gpu(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(main, "visible_gpus", list)
    with pytest.raises(Unavailable, match="no GPU"):
        main.serve(["gpu"], 1, None, settings)
    assert main._served(["cpu", "gpu"], []) == ["cpu"]
    assert main._served(["cpu", "gpu", "cpu"], ["H100"]) == ["gpu", "cpu"]
