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

ROOT = Path(__file__).resolve().parents[1]
EXAMPLES = ROOT / "book" / "examples"
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


CACHES = {"NUMBA_CACHE_DIR", "TRITON_CACHE_DIR"}  # where compiled kernels are kept


def test_the_service_can_reach_little_and_keeps_what_it_has_compiled():
    unit = UNIT.read_text().splitlines()
    yes = {name for name, value in settings_of(UNIT).items() if value in ("yes", "strict", "invisible")}
    assert {"NoNewPrivileges", "PrivateDevices", "PrivateTmp", "ProtectSystem", "ProtectHome", "ProtectProc",
            "ProtectKernelLogs", "ProtectKernelModules", "ProtectKernelTunables", "ProtectControlGroups",
            "ProtectClock", "ProtectHostname", "RestrictNamespaces", "RestrictRealtime", "RestrictSUIDSGID",
            "LockPersonality"} <= yes
    assert {"CapabilityBoundingSet=", "SystemCallFilter=@system-service", "SystemCallFilter=~@privileged",
            "SystemCallArchitectures=native"} <= set(unit)
    assert not any(line.startswith(("MemoryDenyWriteExecute=yes", "ProcSubset=pid")) for line in unit)
    kept = dict(pair.split("=") for line in unit if line.startswith("Environment=") for pair in line[12:].split())
    assert kept.keys() >= CACHES and all(kept[name].startswith("%C/tinyllm/") for name in CACHES)
    assert settings_of(UNIT)["CacheDirectory"] == "tinyllm"


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="no systemd-analyze here")
def test_systemd_counts_the_service_as_well_shut_in(tmp_path):
    copy = tmp_path / UNIT.name
    copy.write_text(UNIT.read_text())
    command = ["systemd-analyze", "security", "--offline=true", "--threshold=20", "--no-pager", copy]
    checked = subprocess.run(command, capture_output=True, text=True)  # 100 is a service that may do anything
    if "Unknown" in checked.stderr or "unrecognized" in checked.stderr:
        pytest.skip("this systemd-analyze cannot look at a file")
    assert checked.returncode == 0, checked.stdout + checked.stderr


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


def test_the_container_keeps_what_it_compiles_and_is_built_from_the_wheel_alone():
    text = CONTAINER.read_text()
    volume = re.search(r"^VOLUME (\S+)$", text, re.M)[1]
    kept = dict(pair.split("=") for line in re.findall(r"^ENV (.*)$", text, re.M) for pair in line.split())
    assert kept.keys() >= CACHES and all(kept[name].startswith(volume + "/") for name in CACHES)
    assert f"-o tinyllm -g tinyllm -m 700 {volume}" in text and text.index("install -d") < text.index("USER tinyllm")
    for option in (f":{volume}", "--read-only", "--cap-drop all", "no-new-privileges", "--memory"):
        assert option in text.split("FROM")[0]
    sent = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if not line.startswith("#")]
    assert sent == ["*", "!dist/", "dist/*", "!dist/*.whl"]
