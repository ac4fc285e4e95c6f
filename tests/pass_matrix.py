"""Which pass runs, for every layout of ranks and every kind of request; the tokens are those of one plain runner.

    python tests/pass_matrix.py cpu
    TRITON_INTERPRET=1 python tests/pass_matrix.py triton    # a card's kernels, on a CPU

Ranks are threads of this process, and what stages send lies in boxes between them.
"""

import gc
import sys
import tempfile
import weakref
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parents[1]), str(Path(__file__).resolve().parent)]

import numpy as np
import torch

from tinyllm.engine.core import EngineCore, Request
from tinyllm.engine.model_runner import ModelRunner
from tinyllm.engine.params import SamplingParams
from tinyllm.engine.proposers import AdaptiveProposer, SpeculativeConfig
from tinyllm.engine.scheduler import Scheduler
from tinyllm.measure.scaling import Rendezvous, ThreadGroup
from tinyllm.model.backends import PagedAttention
from tinyllm.model.transformer import ModelConfig, Transformer
from tinyllm.model.weights import load_model, save_model
from tinyllm.parallel.pipeline import PipelineLink, deal_layers, keep_stage
from tinyllm.parallel.tensor import sample_apart, shard

LAYOUTS = {"one": (1, 1), "two ranks": (2, 1), "two stages": (1, 2), "ranks and stages": (2, 2)}
KINDS = ("plain", "log-probabilities", "prompt log-probabilities", "masks", "a draft's guesses", "guesses looked up",
         "a draft's drawn guesses", "a draft's drawn guesses, cut")
CONFIG = ModelConfig(vocab_size=33, hidden_size=16, intermediate_size=16, num_hidden_layers=2, num_attention_heads=2,
                     num_key_value_heads=2, head_dim=16, max_position_embeddings=32, attention_bias=True,
                     attention_output_bias=True)  # fmt: skip
SIZES = (12, 4, 2, 20)


class BoxLink(PipelineLink):
    """A link of one process: what is sent to a rank lies in its box."""

    def __init__(self, ranks, rank, boxes):
        super().__init__(ranks, rank)
        self.boxes, self.rank = boxes, rank

    def send_to(self, x, rank):
        self.boxes.setdefault((self.rank, rank), []).append(x.clone())

    def recv_from(self, x, rank):
        return x.copy_(self.boxes[rank, self.rank].pop(0))


class Recording:
    """A step of one size, which an interpreter cannot record: its replay runs it."""

    def __init__(self, run, size):
        self.run, self.size = run, size

    def replay(self):
        self.run(*self.size)


def pretend_to_record(runner):
    """Give a card's steps a recording of each size that a card records. The draft's have no others here."""
    for step in filter(None, (runner.device_step, runner.draft_step)):
        step.compiled.graphs = {size: Recording(step.run, size) for size in step.sizes()}
    if runner.draft_step is not None:
        for size in sorted(runner.draft_step.sizes(), reverse=True):  # as before each is recorded
            runner.draft_step.run(*size)
        runner.draft_step.run = None
    return runner


class Ranks:
    """An executor of tp ranks in each of pp stages."""

    def __init__(self, folder, kernels, tp, pp, guesses, draft):
        self.tp, boxes, self.pool = tp, {}, ThreadPoolExecutor(tp)

        def load(stage, group, rank):
            def cut(empty):
                return keep_stage(empty, deal_layers(empty.config, pp)[stage], shard(empty, group))

            model = load_model(folder, "float32", "cpu", PagedAttention(), cut)
            link = BoxLink([rank % tp + tp * i for i in range(pp)], rank, boxes)
            return pretend_to_record(ModelRunner(
                model, *SIZES, kernels=kernels, link=link, num_guesses=guesses,
                draft=draft if link.is_last else None, sample_share=sample_apart))  # fmt: skip

        self.stages = []
        for stage in range(pp):
            meeting = Rendezvous(tp)
            groups = [ThreadGroup(rank, meeting) for rank in range(tp)]
            self.stages.append([load(stage, group, stage * tp + group.rank) for group in groups])

    def submit(self, plan):
        for stage in self.stages:
            list(self.pool.map(lambda runner: runner.submit(plan), stage))

    def collect(self):
        first, *others = [runner.collect() for runner in self.stages[-1]]
        assert all(np.array_equal(first.tokens, other.tokens) for other in others), "ranks sampled different tokens"
        return first

    @property
    def ran(self):
        return set().union(*(runner.ran for stage in self.stages for runner in stage))


def odd(said):
    """A grammar: only odd tokens."""
    return np.arange(33) % 2 == 1


def play(make, kind):
    """What two requests get, and which passes ran."""
    own = {"log-probabilities": {"logprobs": 2}, "prompt log-probabilities": {"prompt_logprobs": 2}}.get(kind, {})
    speculator = None
    if "guesses" in kind:
        config = {"method": "ngram", "prompt_lookup_min": 1} if "looked" in kind else {"model": "itself"}
        speculator = AdaptiveProposer(SpeculativeConfig(num_speculative_tokens=2, adaptive=False, **config))
    runner = make(2 if speculator else 0, "draft" in kind)
    scheduler = Scheduler(12, 4, max_num_seqs=2, max_num_batched_tokens=6, max_model_len=20, speculator=speculator)
    core, requests = EngineCore(scheduler, runner), []
    for i, prompt in enumerate(([3, 9, 3, 9, 3], [5])):
        if "drawn" in kind and i:  # no seed: the ratio judges
            params = SamplingParams(temperature=0.9, max_tokens=4, top_k=8 if "cut" in kind else -1)
        else:
            params = SamplingParams(temperature=0.9 * (i % 2), seed=i, max_tokens=4, **(own if i == 0 else {}))
        requests.append(Request(str(i), prompt, params, seed=i, grammar=odd if kind == "masks" and i == 0 else None))
        core.add(requests[-1])
    while any(r.finish_reason is None for r in requests):
        core.step()
    found = [(r.output_token_ids, [ids for ids, *_ in r.logprobs], [ids for ids, *_ in r.prompt_logprobs])
             for r in requests]  # fmt: skip
    return found, set(runner.ran), speculator and int(speculator.stats.accepted.sum())


def check(folder, kernels, layout, kind):
    """One cell: same tokens, and no step of another pass."""
    whole = load_model(folder, "float32", "cpu", PagedAttention())
    guesser = whole
    if "drawn" in kind:  # the answer depends on the guesses, of which some must be refused
        guesser = load_model(folder, "float32", "cpu", PagedAttention())
        noise = torch.Generator().manual_seed(2)
        for weight in guesser.parameters():
            weight.add_(0.05 * torch.randn(weight.shape, generator=noise))
    expected, *_ = play(lambda guesses, draft: ModelRunner(whole, *SIZES, kernels="torch", **(
        {"num_guesses": guesses, "draft": guesser} if "drawn" in kind else {})),
        "plain" if "guesses" in kind and "drawn" not in kind else kind)  # fmt: skip
    found, ran, accepted = play(lambda guesses, draft: Ranks(folder, kernels, *LAYOUTS[layout], guesses,
                                                             guesser if draft else None), kind)  # fmt: skip
    assert found == expected, (layout, kind, found, expected)
    general = kernels == "cpu" or kind.startswith("prompt")  # a prompt's scores need all its hidden vectors
    passes = ({kernels} if general else set()) | ({"recorded"} if kernels == "triton" else set())
    assert ran == passes, f"{layout}, {kind}: steps ran in {ran}"
    assert accepted is None or accepted > 0, f"{layout}, {kind}: no guess was right"


def check_that_it_goes(folder, kernels):
    """A runner and its cache go with the last reference. A card's memory cannot wait for a collector, least of all
    for one that was told to leave alone what there is."""
    runner = ModelRunner(load_model(folder, "float32", "cpu", PagedAttention()), *SIZES, kernels=kernels, num_guesses=2)
    gc.collect()
    gc.disable()
    try:
        kept = [weakref.ref(runner), weakref.ref(runner.caches[0][0]), weakref.ref(runner.batch.tokens)]
        del runner
        assert [ref() for ref in kept] == [None] * 3, "something refers to itself"
    finally:
        gc.enable()


def make_checkpoint(folder):
    torch.manual_seed(0)
    model = Transformer(CONFIG).requires_grad_(False)
    for weight in model.parameters():
        weight.normal_(0, 0.5) if weight.dim() > 1 else weight.uniform_(0.5, 1.5)
    save_model(model, folder, torch.float32)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder, torch.inference_mode():
        make_checkpoint(Path(folder))
        if sys.argv[1] == "triton":
            from interpreter import hurry, let_threads_take_turns

            hurry()
            let_threads_take_turns()
        check_that_it_goes(Path(folder), sys.argv[1])
        for layout in sys.argv[2:] or LAYOUTS:
            for kind in KINDS:
                check(Path(folder), sys.argv[1], layout, kind)
                print(f"{layout}, {kind}: all steps in {sys.argv[1]}, and the same tokens", flush=True)
