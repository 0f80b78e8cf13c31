"""What the command line imports, and when: nothing heavy for help, version and looking at jobs."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = ("torch", "transformers", "sqlalchemy", "celery", "fastapi")
SLOW = ("pydantic", "httpx2", "rich", "yaml", "filelock", "platformdirs")


def imported(arguments: list[str], names: tuple[str, ...], *, patient: bool = True) -> str:
    code = (
        "import sys; from prunectl.cli.main import main; code = main(sys.argv[2:]); "
        "print('imported', [name for name in sys.argv[1].split(',') if name in sys.modules], file=sys.stderr)"
    )
    if patient is False:
        # Where nothing answers, asking once is enough.
        code = "import stamina; stamina.set_active(False); " + code
    command = [sys.executable, "-c", code, ",".join(names), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return done.stderr.strip().splitlines()[-1]


@pytest.mark.parametrize("arguments", [["--help"], ["--version"]])
def test_help_and_version_import_nothing_slow(arguments: list[str]) -> None:
    assert imported(arguments, HEAVY + SLOW) == "imported []"


@pytest.mark.parametrize(
    "arguments", [["list"], ["list", "--help"], ["show", "abcd"], ["submit", "--model", "m", "--heads", "0.3"]]
)
def test_talking_to_a_service_imports_nothing_heavy(arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    # Nothing listens on the discard port: the command goes the whole way to the connection, and ends there.
    monkeypatch.setenv("PRUNECTL_API_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("PRUNECTL_API_TOKEN", "t")
    assert imported(arguments, HEAVY, patient=False) == "imported []"
