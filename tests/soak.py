"""A server under load, longer than a test may last: hundreds of clients at once, hours of traffic, and what it costs.

    python tests/soak.py clients --n 500 --json book/measurements/g_clients_cpu.json
    python tests/soak.py soak --minutes 60 --json book/measurements/g_soak_cpu.json
    python tests/soak.py overhead --json book/measurements/g_overhead_cpu.json
    python tests/soak.py surface --json book/measurements/g_surface_cpu.json

Each starts a server of its own with Fable on this machine. Every answer is compared with what the engine says to
the same request when it is alone. Exit status 1: something was lost, mixed up, or not given back.
"""

import argparse
import asyncio
import contextlib
import functools
import json
import os
import random
import shlex
import statistics
import sys
import threading
import time
from collections import Counter

os.environ.setdefault("GOMP_SPINCOUNT", "30000")

import httpx
import numpy as np
import psutil
from server_process import Server

from tinyllm.measure import offline
from tinyllm.engine.params import SamplingParams
from tinyllm.llm import LLM

WORDS = ["Once", "upon", "a", "time", "there", "was", "king", "who", "three", "daughters", "and", "the", "wood"]
WAYS = ("generate", "whole", "stream")
KINDS = ("stream", "whole", "chat", "killed", "slow")


def requests(count: int, seed: int = 0) -> list[dict]:
    """Bodies for /v1/completions, no two alike."""
    dice = random.Random(seed)
    return [{"model": "fable", "prompt": " ".join(dice.choices(WORDS, k=dice.randint(3, 40))) + f" {i}",
             "max_tokens": dice.randint(16, 48), "seed": i, "temperature": dice.choice((0, 0.7, 1.0)),
             "ignore_eos": True} for i in range(count)]  # fmt: skip


def alone(bodies: list[dict]) -> list[str]:
    """What the engine says to each when nobody else is there."""
    llm = LLM("fable", max_num_seqs=1, enable_prefix_caching=False)
    wishes = ("max_tokens", "seed", "temperature", "ignore_eos")
    return [llm.generate(body["prompt"], SamplingParams(**{name: body[name] for name in wishes}),
                         use_tqdm=False)[0].outputs[0].text for body in bodies]  # fmt: skip


class Crowd:
    """Clients, and what became of each. An outcome is "right", "killed", or says what is wrong."""

    def __init__(self, server: Server, limit: float = 600):
        limits = httpx.Limits(max_connections=None)
        self.http = httpx.AsyncClient(base_url=server.url + "/v1", timeout=limit, limits=limits)
        self.outcomes, self.seconds = Counter(), {kind: [] for kind in KINDS}

    async def ask(self, kind: str, body: dict, want: str) -> str:
        """One client from its request to its end."""
        began = time.perf_counter()
        try:
            outcome = await {"whole": self.whole, "chat": self.chat}.get(kind, self.stream)(kind, body, want)
        except Exception as error:
            outcome = f"{type(error).__name__}: {str(error)[:100]}"
        self.seconds[kind].append(time.perf_counter() - began)
        self.outcomes[outcome] += 1
        return outcome

    async def whole(self, kind: str, body: dict, want: str) -> str:
        answer = (await self.http.post("/completions", json=body)).raise_for_status().json()
        tokens, text = answer["usage"]["completion_tokens"], answer["choices"][0]["text"]
        return "right" if text == want and tokens == body["max_tokens"] else "another text"

    async def chat(self, kind: str, body: dict, want: str) -> str:
        talk = {name: value for name, value in body.items() if name != "prompt"}
        talk["messages"] = [{"role": "user", "content": body["prompt"]}]
        answer = (await self.http.post("/chat/completions", json=talk)).raise_for_status().json()
        return "right" if answer["choices"][0]["message"]["content"] == want else "another text"

    async def stream(self, kind: str, body: dict, want: str) -> str:
        text, end, pieces, patience = "", "", 0, body["seed"] % 12
        async with self.http.stream("POST", "/completions", json=body | {"stream": True}) as answer:
            answer.raise_for_status()
            async for line in answer.aiter_lines():
                if kind == "killed" and pieces > patience:
                    return "killed" if want.startswith(text) else "another text"
                if kind == "slow":
                    await asyncio.sleep(0.1)
                if line.startswith("data: {"):
                    text += json.loads(line[6:])["choices"][0]["text"]
                    pieces += 1
                end = line or end
        if end != "data: [DONE]":
            return "cut off"
        return "right" if text == want else "another text"


def verdict(server: Server, outcomes: Counter) -> dict:
    """Whether nothing was lost and everything was given back."""
    return {"outcomes": dict(outcomes), "pool_full_again": server.idle(30), "healthy":
            server.http.get("/health").status_code == 200,
            "ok": set(outcomes) <= {"right", "killed", "refused"} and server.idle(30)}  # fmt: skip


class Pauses:
    """Notes how long this process stood still while somebody else had the machine; seconds."""

    def __init__(self):
        self.worst, self.done = 0.0, threading.Event()
        self.thread = threading.Thread(target=self.run, daemon=True)

    def run(self):
        last = time.monotonic()
        while not self.done.wait(0.05):
            now = time.monotonic()
            self.worst, last = max(self.worst, now - last - 0.05), now

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *error):
        self.done.set()


def undisturbed(play, most: float = 0.4, tries: int = 8):
    """What `play` returns, and how often it had to be played again because everything stood still meanwhile."""
    for again in range(tries):
        with Pauses() as pauses:
            found = play()
        if pauses.worst < most:
            return found, again
    return found, tries


# ---- clients: all at once ----


def run_clients(args) -> dict:
    bodies = requests(args.n)
    wants = alone(bodies)
    dice = random.Random(1)
    kinds = dice.choices(("stream", "killed", "slow"), (75, 17, 8), k=args.n)
    server = Server("--max-num-seqs", 256, "--max-waiting", args.n, "--num-gpu-blocks-override", 2000)

    async def play():
        crowd = Crowd(server)
        async with crowd.http:
            began = time.perf_counter()
            await asyncio.gather(*(crowd.ask(*one) for one in zip(kinds, bodies, wants, strict=True)))
            return crowd, time.perf_counter() - began

    try:
        crowd, seconds = asyncio.run(play())
        longest = {kind: round(max(times), 2) for kind, times in crowd.seconds.items() if times}
        return {"clients": dict(Counter(kinds)), "seconds": round(seconds, 2), "longest_seconds": longest,
                "tokens_asked": sum(body["max_tokens"] for body in bodies), "preemptions":
                int(server.metric("num_preemptions_total")), **verdict(server, crowd.outcomes)}  # fmt: skip
    finally:
        server.stop()


# ---- soak: for a long time ----


async def traffic(server: Server, deck: list[tuple[dict, str]], until: float, clients: int, rest: float, crowd: Crowd):
    """A few clients of all kinds, one request after the other, with a little rest between them."""
    bad = [{"model": "fable", "prompt": "x", "temperature": 9}, {"prompt": []}, {"model": "fable", "n": 10**9}]

    async def one(number: int):
        dice = random.Random(number)
        while time.monotonic() < until:
            if dice.random() < 0.05:
                answer = await crowd.http.post("/completions", json=dice.choice(bad))
                crowd.outcomes["refused" if answer.status_code == 400 else f"status {answer.status_code}"] += 1
            else:
                body, want = dice.choice(deck)
                kind = dice.choices(KINDS, (40, 20, 20, 15, 5))[0]
                outcome = await crowd.ask(kind, body, want)
                if outcome not in ("right", "killed"):
                    print(f"{kind}: {outcome}", flush=True)
            await asyncio.sleep(dice.expovariate(1 / rest))

    await asyncio.gather(*map(one, range(clients)))


async def watch(server: Server, until: float, crowd: Crowd, every: float, samples: list):
    """Memory of both processes from time to time."""
    began = time.monotonic()
    while time.monotonic() < until:
        both = await asyncio.to_thread(server.resident)
        samples.append([round(time.monotonic() - began, 1), *(round(size, 2) for size in both), crowd.outcomes.total()])
        await asyncio.sleep(every)


def growth(samples: list, column: int) -> dict:
    """Memory after the first quarter and at the end: medians of the second and the last quarter, in MiB."""
    quarter = max(len(samples) // 4, 1)
    before = statistics.median(row[column] for row in samples[quarter : 2 * quarter])
    after = statistics.median(row[column] for row in samples[-quarter:])
    return {"second_quarter": before, "last_quarter": after, "grown": round(after - before, 2)}


def run_soak(args) -> dict:
    bodies, samples = requests(60), []
    deck = list(zip(bodies, alone(bodies), strict=True))
    server = Server("--max-num-seqs", 16, "--num-gpu-blocks-override", 200)

    async def play():
        crowd, until = Crowd(server), time.monotonic() + 60 * args.minutes
        async with crowd.http:
            await asyncio.gather(traffic(server, deck, until, args.clients, args.rest, crowd),
                                 watch(server, until, crowd, args.every, samples))  # fmt: skip
        return crowd

    try:
        crowd = asyncio.run(play())
        found = {name: growth(samples, column) for column, name in enumerate(("server_mib", "engine_mib"), 1)}
        return {"minutes": args.minutes, "clients": args.clients, **found, **verdict(server, crowd.outcomes),
                "columns": ["seconds", "server MiB", "engine MiB", "requests"], "samples": samples}  # fmt: skip
    finally:
        server.stop()


# ---- overhead: the same load through the server and without it ----


def load_for_overhead(count: int) -> list[dict]:
    rng = np.random.default_rng(0)
    return [{"model": "fable", "prompt": rng.integers(1, 4096, int(rng.integers(20, 120))).tolist(), "seed": i,
             "temperature": 0.6, "max_tokens": int(rng.integers(30, 120)), "ignore_eos": True}
            for i in range(count)]  # fmt: skip


async def play_bodies(url: str, bodies: list[dict], stream: bool) -> tuple[float, list[str]]:
    """Seconds until all of them are answered, asked at once, and the texts. A plain client, so that it costs little."""
    port, gate = int(url.rsplit(":", 1)[1]), asyncio.Event()

    async def one(body: dict) -> str:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        data = json.dumps(body | {"stream": stream}).encode()
        await gate.wait()
        writer.write(b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
                     b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n%s" % (len(data), data))
        answer = await reader.read()
        writer.close()
        return answer

    tasks = [asyncio.ensure_future(one(body)) for body in bodies]
    await asyncio.sleep(0.2)
    began = time.perf_counter()
    gate.set()
    answers = await asyncio.gather(*tasks)
    return time.perf_counter() - began, [text_of(answer, stream) for answer in answers]


def text_of(answer: bytes, stream: bool) -> str:
    """The text in a raw HTTP answer."""
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b" 200 " in head.splitlines()[0], answer[:300]
    if not stream:
        return json.loads(body)["choices"][0]["text"]
    lines = [line[6:] for line in body.splitlines() if line.startswith(b"data: {")]
    return "".join(json.loads(line)["choices"][0]["text"] for line in lines)


def run_overhead(args) -> dict:
    import torch

    torch.set_num_threads(args.threads)
    bodies = load_for_overhead(args.n)
    prompts = [{"prompt_token_ids": body["prompt"]} for body in bodies]
    wishes = ("temperature", "max_tokens", "seed", "ignore_eos")
    params = [SamplingParams(**{name: body[name] for name in wishes}) for body in bodies]
    sizes = {"max_num_seqs": args.seats, "num_gpu_blocks_override": 1200, "enable_prefix_caching": False}
    llm = LLM("fable", **sizes)
    server = Server("--max-num-seqs", args.seats, "--num-gpu-blocks-override", 1200, "--no-enable-prefix-caching",
                    "--max-waiting", args.n, threads=args.threads)  # fmt: skip
    ours, pids = psutil.Process(), (server.process.pid, server.engine_pid())
    watched = {"this": ours, "server": psutil.Process(pids[0]), "engine": psutil.Process(pids[1])}
    times, repeated = {way: {"seconds": [], **{name: [] for name in watched}} for way in WAYS}, 0

    def generate():
        began = time.perf_counter()
        outputs = llm.generate(prompts, params, use_tqdm=False)
        return time.perf_counter() - began, [output.outputs[0].text for output in outputs]

    runs = {"generate": generate, "whole": lambda: asyncio.run(play_bodies(server.url, bodies, False)),
            "stream": lambda: asyncio.run(play_bodies(server.url, bodies, True))}  # fmt: skip
    try:
        for number in range(args.repeats + 1):
            round_, again = undisturbed(functools.partial(play_round, runs, number, watched))
            repeated += again
            for way, values in round_.items():
                for name, value in values.items():
                    times[way][name] += [round(value, 4)] * (number > 0)  # the first round warms up
    finally:
        server.stop()
    tokens = sum(body["max_tokens"] for body in bodies)
    return {"requests": args.n, "seats": args.seats, "threads": args.threads, "output_tokens": tokens,
            "repeated": repeated, "times": times, "overhead": {way: overhead(times, way) for way in WAYS[1:]},
            "ok": True}  # fmt: skip


def play_round(runs: dict, number: int, watched: dict) -> dict:
    """Each way once, another one first each time: seconds by the clock, and CPU seconds of each process."""
    texts, found = {}, {}
    for way in WAYS[number % 3 :] + WAYS[: number % 3]:
        before = {name: cpu_seconds(process) for name, process in watched.items()}
        seconds, texts[way] = runs[way]()
        found[way] = {"seconds": seconds, **{n: cpu_seconds(p) - before[n] for n, p in watched.items()}}
    assert texts["generate"] == texts["whole"] == texts["stream"], "other texts"
    return found


def cpu_seconds(process: psutil.Process) -> float:
    """What a process has used of all cores."""
    spent = process.cpu_times()
    return spent.user + spent.system


def overhead(times: dict, way: str) -> dict:
    """How much more this way takes than `generate`: by the clock, in CPU time, and in the engine's own CPU time.

    The clock is right on a machine that nobody else uses. CPU time is that of the server and the engine together, as
    if both had one core: what is left of it by the clock depends on the cores that are free.
    """
    base, found = times["generate"], {name: np.array(values) for name, values in times[way].items()}
    alone = np.array(base["this"])
    shares = {"clock": found["seconds"] / base["seconds"], "cpu": (found["engine"] + found["server"]) / alone,
              "engine_cpu": found["engine"] / alone}  # fmt: skip
    return {name: round(float(np.median(value)) - 1, 4) for name, value in shares.items()}


# ---- surface: what each knob moves ----

SETTINGS = {
    "4 at once": ("--max-num-seqs", 4), "16 at once": ("--max-num-seqs", 16), "64 at once": ("--max-num-seqs", 64),
    "64 at once, budget 64": ("--max-num-seqs", 64, "--max-num-batched-tokens", 64),
    "16 at once, draft model": ("--max-num-seqs", 16, "--speculative-config", '{"model": "fable-draft"}'),
    "16 at once, shared prompt, no cache": ("--max-num-seqs", 16, "--no-enable-prefix-caching"),
    "16 at once, shared prompt, cache": ("--max-num-seqs", 16),
}  # fmt: skip


def run_surface(args) -> dict:
    from dataclasses import replace

    from tinyllm.measure.load import RequestTraffic, run_load

    base = RequestTraffic(args.n, (100, 300), (20, 60), temperature=0)
    promise, found, repeated = {"ttft_ms": args.ttft, "tpot_ms": args.tpot}, {}, 0
    for name, options in SETTINGS.items():
        server = Server(*options, "--num-gpu-blocks-override", 2000)
        traffic = replace(base, shared_len=200, input_len=(220, 300)) if "shared" in name else base
        url = server.url + "/v1"
        try:
            run_load(url, replace(traffic, num_requests=8, concurrency=4, seed=9), "fable", 4096)  # warms up
            loads = {name: [replace(traffic, rate=rate) for rate in args.rates]}
            if name == "64 at once":
                loads["clients"] = [replace(traffic, concurrency=count) for count in (1, 2, 4, 8, 16, 32, 64)]
            for kind, those in loads.items():
                found[kind] = []
                for load in those:
                    one, again = undisturbed(functools.partial(run_load, url, load, "fable", 4096, promise))
                    found[kind].append(one)
                    repeated += again
        finally:
            server.stop()
        print(name, [round(one["result"]["output_tokens_per_second"]) for one in found[name]], flush=True)
    failed = sum(one["result"]["failed"] for runs in found.values() for one in runs)
    return {"rates": args.rates, "promise": promise, "requests": args.n, "failed": failed, "repeated": repeated,
            "runs": found, "ok": not failed}  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    clients = commands.add_parser("clients", help="many streaming clients at once, some killed, some slow")
    clients.add_argument("--n", type=int, default=500, help="how many (default: 500)")
    soak = commands.add_parser("soak", help="a small load for a long time, with the memory of both processes")
    soak.add_argument("--minutes", type=float, default=60, help="how long (default: 60)")
    soak.add_argument("--clients", type=int, default=6, help="how many at a time (default: 6)")
    soak.add_argument("--rest", type=float, default=1.0, help="mean seconds between a client's requests (default: 1)")
    soak.add_argument("--every", type=float, default=10.0, help="seconds between samples (default: 10)")
    overhead = commands.add_parser("overhead", help="the same load through the server and through LLM.generate")
    overhead.add_argument("--n", type=int, default=32, help="requests (default: 32)")
    overhead.add_argument("--seats", type=int, default=16, help="--max-num-seqs (default: 16)")
    overhead.add_argument("--threads", type=int, default=1, help="cores for the engine, both ways (default: 1)")
    overhead.add_argument("--repeats", type=int, default=9, help="rounds after the first (default: 9)")
    surface = commands.add_parser("surface", help="one setting after the other, at one rate after the other")
    surface.add_argument("--n", type=int, default=40, help="requests of each run (default: 40)")
    surface.add_argument("--rates", type=float, nargs="+", default=[2, 4, 8, 12, 16, 24], help="requests a second")
    surface.add_argument("--ttft", type=float, default=500, help="promised ms to the first token (default: 500)")
    surface.add_argument("--tpot", type=float, default=50, help="promised ms for each further one (default: 50)")
    for command in (clients, soak, overhead, surface):
        command.add_argument("--json", metavar="FILE", help="write the report there")
    args = parser.parse_args()
    runs = {"clients": run_clients, "soak": run_soak, "overhead": run_overhead, "surface": run_surface}
    report = runs[args.command](args)
    command = shlex.join(["python", "tests/soak.py", *sys.argv[1:]])
    report = {"benchmark": args.command, **report, "provenance": offline.provenance("cpu", command)}
    short = {name: value for name, value in report.items() if name not in ("samples", "runs", "times")}
    print(json.dumps(short, indent=1))
    if args.json:
        with contextlib.closing(open(args.json, "w", encoding="utf-8")) as file:
            file.write(json.dumps(report, separators=(",", ": ")) + "\n")
    return int(not report["ok"])


if __name__ == "__main__":
    sys.exit(main())
