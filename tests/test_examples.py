"""The examples for operators: what they name exists."""

import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tinyllm.cli import build_parser

EXAMPLES = Path(__file__).resolve().parents[1] / "book" / "examples"
UNIT, CONTAINER = EXAMPLES / "tinyllm.service", EXAMPLES / "Containerfile"


def settings_of(unit):
    return dict(line.split("=", 1) for line in unit.read_text().splitlines() if re.match(r"[A-Z]\w*=", line))


def test_the_service_starts_the_server_with_options_that_it_has():
    settings = settings_of(UNIT)
    program, *words = shlex.split(settings["ExecStart"])
    args = build_parser().parse_args(words)
    assert Path(program).name == "tinyllm" and args.command == "serve" and args.host == "127.0.0.1"
    name, _ = settings["LoadCredential"].split(":")
    assert args.api_key_file == f"%d/{name}"
    assert int(settings["TimeoutStopSec"]) > args.drain_seconds  # nobody is killed who is still being answered
    assert settings["KillMode"] == "mixed"  # the engine's process hears nothing of the signal


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="no systemd-analyze here")
def test_systemd_takes_the_service(tmp_path):
    copy = tmp_path / UNIT.name
    copy.write_text(UNIT.read_text().replace("/opt/tinyllm/bin/tinyllm", sys.executable))
    checked = subprocess.run(["systemd-analyze", "verify", "--man=no", copy], capture_output=True, text=True)
    said = [line for line in checked.stderr.splitlines() if UNIT.name in line]
    assert not said, checked.stderr


def test_the_container_starts_the_server_with_options_that_it_has():
    lines = CONTAINER.read_text().splitlines()
    start, more = (json.loads(next(line.split(" ", 1)[1] for line in lines if line.startswith(word)))
                   for word in ("ENTRYPOINT", "CMD"))  # fmt: skip
    args = build_parser().parse_args([*start[1:], *more])
    assert start[0] == "tinyllm" and args.command == "serve" and f"EXPOSE {args.port}" in lines
    assert any(f"127.0.0.1:{args.port}/health" in line for line in lines if line.startswith("HEALTHCHECK"))
    asked = next(line for line in lines if line.startswith("#   podman run"))
    assert "TINYLLM_API_KEY" in asked and f"127.0.0.1:{args.port}:{args.port}" in asked
