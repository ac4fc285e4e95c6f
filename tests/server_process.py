"""`tinyllm serve` in a process of its own, for tests and for `soak.py`."""

import os
import re
import subprocess
import sys
import threading
import time

import httpx

IDLE = ("num_requests_running", "num_requests_waiting", "kv_cache_usage_perc")


class Server:
    """A server on a port of its own, until it is told to stop. threads: cores that the engine may use."""

    def __init__(self, *options, keys=(), threads=1, env=(), **more):
        env = {**os.environ, "OMP_NUM_THREADS": str(threads), **dict(env)}
        keyed = (word for key in keys for word in ("--api-key", key))
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-m", "tinyllm", "serve", "--port", "0", *map(str, options), *keyed],
            env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **more,
        )  # fmt: skip
        self.said = []  # what it prints, line by line
        for line in self.process.stdout:
            self.said.append(line)
            if where := re.fullmatch(r"tinyllm serves fable on (http://127\.0\.0\.1:(\d+))/v1\n", line):
                break  # it listens
        else:
            raise AssertionError("".join(self.said))
        self.url, self.port = where[1], int(where[2])
        self.reader = threading.Thread(target=lambda: self.said.extend(self.process.stdout), daemon=True)
        self.reader.start()
        headers = {"Authorization": f"Bearer {keys[0]}"} if keys else {}
        self.http = httpx.Client(base_url=self.url, timeout=60, headers=headers)

    def metric(self, name):
        page = self.http.get("/metrics").text
        return sum(float(line.split()[-1]) for line in page.splitlines() if line.startswith(f"vllm:{name}"))

    def idle(self, within=10.0):
        """Whether nothing runs or waits any more, and every block is back."""
        end = time.monotonic() + within
        while time.monotonic() < end:
            if not any(map(self.metric, IDLE)):
                return True
            time.sleep(0.05)
        return False

    def engine_pid(self):
        children = subprocess.run(["ps", "-o", "pid=", "--ppid", str(self.process.pid)], capture_output=True, text=True)
        return int(children.stdout.split()[0])

    def resident(self):
        """MiB of memory that the server's process holds, and the engine's."""
        pids = (self.process.pid, self.engine_pid())
        sizes = (subprocess.run(["ps", "-o", "rss=", "-p", str(pid)], capture_output=True, text=True) for pid in pids)
        return [int(size.stdout) / 1024 for size in sizes]

    def stop(self):
        self.http.close()
        self.process.terminate()
        return self.process.wait(30)
