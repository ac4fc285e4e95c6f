"""Pool, prefix cache and scheduler together: every invariant after every operation, whatever the order.

`TINYLLM_EXAMPLES=20000 pytest tests/test_engine_scheduler.py tests/test_engine_blocks.py` looks longer
and takes longer ways. Nothing here needs torch.
"""

import os
from collections import Counter

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, precondition, rule


from tinyllm.engine.core import EngineCore, Request, ModelRunnerOutput
from tinyllm.engine.params import SamplingParams
from tinyllm.engine.scheduler import Scheduler

EOS = 0
EXAMPLES = int(os.environ.get("TINYLLM_EXAMPLES", "80"))
PROFILE = settings(
    max_examples=EXAMPLES,
    stateful_step_count=30 if EXAMPLES < 1000 else 80,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    phases=[phase for phase in Phase if phase != Phase.shrink or os.environ.get("TINYLLM_SHRINK") != "0"],
)


def next_token(tokens):
    """A made-up language model: a pure function of all tokens before; sometimes it ends the text."""
    return int(sum((i + 3) * t for i, t in enumerate(tokens)) + len(tokens)) % 23


def truth(request):
    """What the request must say, computed alone."""
    tokens = list(request.prompt_token_ids)
    for _ in range(request.params.max_tokens):
        tokens.append(next_token(tokens))
        if tokens[-1] in request.stop_token_ids:
            break
    return tokens[len(request.prompt_token_ids) :]


class Guesser:
    """In the place of a `AdaptiveProposer`: guesses up to k tokens for each text, some of them right."""

    def __init__(self, k, lookahead=0):
        self.lookahead = lookahead
        self.k, self.stats, self.right, self.turns, self.under_way = k, self, 0, 0, 0

    def wants(self, num_requests):
        self.turns += 1
        return self.turns % 7 < 4  # on for a while, and off for a while

    def limit(self, num_requests):
        return self.k

    def begin_step(self):
        self.under_way += 1

    def end_step(self, num_requests, guess, tokens):
        self.under_way -= 1
        assert self.under_way >= 0

    def propose(self, texts, from_draft_model, limits):
        guesses = np.full((len(texts), self.k), -1)
        for line, text, limit in zip(guesses, texts, limits.tolist(), strict=True):
            past = text.tolist()
            for i in range(min(limit, (sum(past) + len(past)) % (self.k + 1))):
                line[i] = next_token(past) if (sum(past) + i) % 3 else 22
                past.append(int(line[i]))
        return guesses

    def observe(self, proposed, accepted):
        assert (accepted <= proposed).all()
        self.right += int(accepted.sum())


class CheckingExecutor:
    """Writes tokens into the slots of an imaginary cache, and reads them back as attention would."""

    def __init__(self, num_blocks, block_size, num_rows, max_len, budget=1000):
        self.size, self.cache, self.budget = block_size, {}, budget
        self.tokens = np.full((num_rows, max_len), -1)
        self.tables = np.zeros((num_rows, -(-max_len // block_size)), int)
        self.filled = np.zeros(num_rows, int)  # entries of each table that have been sent
        self.results, self.step, self.num_blocks = [], 0, num_blocks
        self.writer = {}  # of each block: who has begun it

    def submit(self, plan):
        assert plan.step > self.step and len(plan.rows) and (plan.counts >= 1).all()
        assert len(set(plan.rows.tolist())) == len(plan.rows) and plan.counts.sum() <= self.budget
        assert (np.diff(plan.counts > 1) >= 0).all(), "rows with one token come first"
        self.step = plan.step
        for new in plan.new_requests:
            self.tokens[new.row] = -1
            self.tokens[new.row, : len(new.token_ids)] = new.token_ids
            self.filled[new.row] = 0
        if plan.new_blocks is not None:
            for row, column, block in zip(*(a.tolist() for a in plan.new_blocks), strict=True):
                assert column == self.filled[row], "tables grow by one entry after the other"
                assert 1 <= block <= self.num_blocks
                self.tables[row, column], self.filled[row] = block, column + 1
        guesses = np.full((len(plan.rows), 0), -1) if plan.drafts is None else plan.drafts
        for row, start, count, line in zip(plan.rows, plan.starts, plan.counts, guesses, strict=True):
            line = line[line >= 0]
            self.tokens[row, start + count - len(line) : start + count] = line
        self.write(plan)
        touched = {int(b) for row in plan.rows for b in self.tables[row, : self.filled[row]]}
        lines = self.read(plan, (guesses >= 0).sum(1))
        width = max(map(len, lines), default=1)
        tokens = np.array([line + [-1] * (width - len(line)) for line in lines], int).reshape(-1, width)
        counts = np.array([len(line) for line in lines], int) if guesses.size else None
        self.results.append((ModelRunnerOutput(tokens, counts), touched))

    def write(self, plan):
        written, who = {}, zip(plan.rows.tolist(), plan.epochs.tolist(), strict=True)
        for (row, epoch), start, count in zip(who, plan.starts.tolist(), plan.counts.tolist(), strict=True):
            for p in range(start, start + count):
                assert p // self.size < self.filled[row], "a token without a block"
                slot = (int(self.tables[row, p // self.size]), p % self.size)
                assert slot not in written, f"rows {written[slot]} and {row} write the same slot"
                written[slot] = row
                writer = (row, epoch) if slot[1] == 0 else self.writer[slot[0]]
                assert writer == (row, epoch), f"row {row} goes on in block {slot[0]}, which another began"
                self.writer[slot[0]] = writer
                assert self.tokens[row, p] >= 0, "a token is read before it was sampled"
                self.cache[slot] = self.tokens[row, : p + 1].tolist()

    def read(self, plan, num_guesses):
        """What each row that samples says: guesses as long as they are right, and one token more."""
        sampled = []
        for row, start, count, samples, guesses in zip(
            plan.rows, plan.starts, plan.counts, plan.samples, num_guesses, strict=True
        ):
            end = start + count
            past = self.tokens[row, :end].tolist()
            for p in range(end):  # keys and values of the whole past must be there, and be its own
                slot = (int(self.tables[row, p // self.size]), p % self.size)
                assert self.cache.get(slot) == past[: p + 1], f"row {row} finds another text at position {p}"
            assert samples or not guesses
            if samples:
                known, line = end - guesses, []
                while not line or (known + len(line) <= end and line[-1] == past[known + len(line) - 1]):
                    line.append(next_token(past[:known] + line))
                self.tokens[row, known:] = -1
                self.tokens[row, known : known + len(line)] = line
                sampled.append(line)
        return sampled

    def collect(self):
        return self.results.pop(0)[0]


def check_blocks(scheduler, executor=None):
    """Invariants 1, 2 and 6: every block is accounted for, exactly once; none is idle while a step may touch it."""
    manager, batch = scheduler.kv_cache_manager, scheduler.batch
    pool, tables, cache = manager.block_pool, manager.block_tables, manager.prefix_cache
    held = Counter()
    for request in scheduler.queue.running:
        blocks = tables.table[request.row, : tables.length[request.row]].tolist()
        assert len(set(blocks)) == len(blocks)
        held.update(blocks)
    for _, blocks in pool.fenced:
        held.update(blocks)
    assert 0 not in held and 0 not in pool.free_block_queue
    assert [held[b] for b in range(pool.num_blocks + 1)] == pool.ref_counts
    assert {b for b in range(1, pool.num_blocks + 1) if not pool.ref_counts[b]} == set(pool.free_block_queue)
    for _, touched in executor.results if executor else ():
        assert not touched & set(pool.free_block_queue), "a step under way may still touch an idle block"
    for request in scheduler.queue.running:  # only full blocks are shared
        row = request.row
        own = tables.table[row, batch.num_computed[row] // manager.block_size : tables.length[row]]
        assert all(pool.ref_counts[block] == 1 for block in own.tolist()), "a block is shared before it is full"
    if cache:
        assert cache.hits <= cache.queries
        assert {block: name for name, block in cache.blocks.items()} == pool.block_hashes
    running = [r.row for r in scheduler.queue.running]
    free = [row for micro_batch in batch.free_rows for row in micro_batch]
    assert sorted(running + free) == list(range(len(batch.requests)))
    assert [scheduler.queue.key(r) for r in scheduler.queue.running] == sorted(
        scheduler.queue.key(r) for r in scheduler.queue.running
    )


def tables_of(scheduler):
    """The blocks of everybody who runs, by row and how often the row has changed hands."""
    tables, batch = scheduler.kv_cache_manager.block_tables, scheduler.batch
    return {
        (r.row, int(batch.epoch[r.row])): tables.table[r.row, : tables.length[r.row]].tolist()
        for r in scheduler.queue.running
    }


class EngineMachine(RuleBasedStateMachine):
    """Requests come, are aborted and preempted, blocks are evicted, steps are taken: with little memory,
    in every setting."""

    requests = Bundle("requests")

    def __init__(self):
        super().__init__()
        self.core, self.all, self.tables = None, [], {}

    @precondition(lambda self: self.core is None)
    @rule(
        blocks=st.integers(1, 14),
        size=st.sampled_from([1, 2, 4]),
        rows=st.integers(1, 4),
        budget=st.integers(0, 12),
        depth=st.integers(0, 2),
        caching=st.booleans(),
        chunked=st.booleans(),
        policy=st.sampled_from(["fcfs", "priority"]),
        micro_batches=st.sampled_from([1, 1, 2]),
        guesses=st.sampled_from([0, 0, 1, 3]),
        drafted=st.booleans(),
    )
    def start(self, blocks, size, rows, budget, depth, caching, chunked, policy, micro_batches, guesses, drafted):
        rows = max(rows, micro_batches)
        budget = rows + budget if chunked else 40
        self.scheduler = Scheduler(
            blocks,
            size,
            max_num_seqs=rows,
            max_num_batched_tokens=budget,
            max_model_len=32,  # what `add` asks for at most
            policy=policy,
            enable_prefix_caching=caching,
            enable_chunked_prefill=chunked,
            micro_batches=micro_batches,
            speculator=Guesser(guesses, guesses if drafted else 0) if guesses else None,
        )
        self.capacity = blocks * size
        self.core = EngineCore(self.scheduler, CheckingExecutor(blocks, size, rows, 32, budget), depth)

    @precondition(lambda self: self.core is not None)
    @rule(
        target=requests,
        length=st.integers(1, 20),
        kind=st.integers(0, 2),
        wanted=st.integers(1, 12),
        n=st.integers(1, 3),
        priority=st.integers(0, 2),
        salt=st.sampled_from([None, "a"]),
        told=st.sampled_from([None, None, 0]),
    )
    def add(self, length, kind, wanted, n, priority, salt, told):
        prompt = [1 + (7 * kind * (i > 5) + i) % 22 for i in range(length)]
        family = []
        for _ in range(n):
            params = SamplingParams(max_tokens=wanted, prompt_logprobs=told)
            family.append(
                Request("r", prompt, params, stop_token_ids=frozenset({EOS}), priority=priority, salt=salt,
                        siblings=family)
            )  # fmt: skip
        for request in family:
            if length + wanted - 1 > self.capacity:
                with pytest.raises(ValueError, match="KV cache has room for"):
                    self.core.add(request)
                request.finish_reason = "refused"
            else:
                self.core.add(request)
                self.all.append(request)
        return family[-1]

    @precondition(lambda self: self.core is not None)
    @rule(times=st.integers(1, 6))
    def step(self, times):
        for _ in range(times):
            self.core.step()
            check_blocks(self.scheduler, self.core.executor)

    @rule(request=consumes(requests))
    def abort(self, request):
        ended = request.finish_reason
        self.core.abort(request)
        assert request.row == -1 and request not in self.scheduler.queue.running
        assert request.finish_reason == (ended or "abort")

    @precondition(lambda self: self.core is not None and self.scheduler.queue.running)
    @rule(data=st.data())
    def preempt(self, data):
        """Somebody gives way though nothing is short, at any moment, with plans under way or without."""
        queue = self.scheduler.queue
        victim = data.draw(st.sampled_from(range(len(queue.running))))
        request = queue.running.pop(victim)
        self.scheduler.kv_cache_manager.free(request)
        request.num_preemptions += 1
        queue.add_request(request)
        queue.refresh()

    @precondition(lambda self: self.core is not None and self.scheduler.kv_cache_manager.block_pool.free_block_queue)
    @rule(share=st.floats(0, 1))
    def evict(self, share):
        """A stranger takes idle blocks, writes over them, and is gone again."""
        pool = self.scheduler.kv_cache_manager.block_pool
        blocks = pool.get_new_blocks(round(share * pool.num_free_blocks))
        for slot in [slot for slot in self.core.executor.cache if slot[0] in blocks]:
            self.core.executor.cache[slot] = "a stranger's"
        pool.free_blocks(blocks)

    @invariant()
    def blocks_are_conserved_and_tables_only_grow(self):
        if self.core is None:
            return
        check_blocks(self.scheduler, self.core.executor)
        before, self.tables = self.tables, tables_of(self.scheduler)
        for who in before.keys() & self.tables.keys():
            assert self.tables[who][: len(before[who])] == before[who], "a table changed where it was written"

    def teardown(self):
        if self.core is None:
            return
        for _ in range(4000):
            if not self.core.busy and all(r.finish_reason for r in self.all):
                break
            self.core.step()
        assert all(r.finish_reason for r in self.all), "somebody waits for ever"
        check_blocks(self.scheduler)
        pool = self.scheduler.kv_cache_manager.block_pool
        assert pool.num_free_blocks == pool.num_blocks and not pool.fenced
        for request in self.all:
            assert request.params.prompt_logprobs is None or request.num_cached_tokens == 0
            expected = truth(request)
            if request.finish_reason == "abort":
                assert request.output_token_ids == expected[: len(request.output_token_ids)]
            else:
                assert request.output_token_ids == expected
                assert request.finish_reason == ("stop" if expected[-1] == EOS else "length")


EngineMachine.TestCase.settings = PROFILE
TestEngineMachine = EngineMachine.TestCase


def run(requests, depth=0, **options):
    settings = {"num_blocks": 64, "block_size": 4, "max_num_seqs": 8, "max_num_batched_tokens": 64}
    settings.update(max_model_len=128, **options)
    scheduler = Scheduler(**settings)
    sizes = (settings[name] for name in ("num_blocks", "block_size", "max_num_seqs", "max_model_len"))
    executor = CheckingExecutor(*sizes, settings["max_num_batched_tokens"])
    core = EngineCore(scheduler, executor, depth)
    for request in requests:
        core.add(request)
    for _ in range(20_000):
        if not core.busy and all(r.finish_reason for r in requests):
            break
        core.step()
    assert scheduler.kv_cache_manager.block_pool.num_free_blocks == scheduler.kv_cache_manager.block_pool.num_blocks
    return scheduler


def ask(prompt, max_tokens=6, **fields):
    return Request("r", list(prompt), SamplingParams(max_tokens=max_tokens), **fields)


def test_a_row_may_bring_several_tokens_and_none_beyond_its_end():
    class Seer(CheckingExecutor):
        """Brings one to three tokens a row, as if it had guessed them right without computing them."""

        def collect(self):
            lines = super().collect().tokens[:, 0]
            plan, counts = self.plan, np.arange(len(lines)) % 3 + 1
            tokens = np.full((len(lines), 3), -1)
            for line, at in enumerate(np.flatnonzero(plan.samples)):
                end = plan.starts[at] + plan.counts[at]
                past = self.tokens[plan.rows[at], : end + 1].tolist()
                while len(past) < end + counts[line]:
                    past.append(next_token(past))
                tokens[line, : counts[line]] = past[end:]
                self.tokens[plan.rows[at], end : len(past)] = past[end:]
            return ModelRunnerOutput(tokens, counts)

        def submit(self, plan):
            self.plan = plan
            super().submit(plan)

    requests = [ask([i + 1, i + 5], 5 + i, stop_token_ids=frozenset({EOS})) for i in range(9)]
    scheduler = Scheduler(64, 4, max_num_seqs=5, max_num_batched_tokens=64, max_model_len=128)
    core = EngineCore(scheduler, Seer(64, 4, 5, 128))
    for request in requests:
        core.add(request)
    steps, said = 0, 0
    while outputs := core.step():
        steps, said = steps + 1, said + sum(len(o.new_token_ids) for o in outputs)
    assert all(r.output_token_ids == truth(r) for r in requests)
    assert said == sum(map(len, map(truth, requests))) and steps < said / 5
    check_blocks(scheduler)


@pytest.mark.parametrize("depth", [0, 1, 2])
def test_a_pool_of_one_block_serves_one_request_after_the_other(depth):
    requests = [ask([i + 1, i + 2], 3) for i in range(5)]
    run(requests, depth, num_blocks=1)
    assert all(r.output_token_ids == truth(r) for r in requests)


@pytest.mark.parametrize("depth", [0, 1, 2])
def test_a_prompt_found_whole_still_computes_its_last_token(depth):
    first, again = ask(range(1, 13)), ask(range(1, 13))
    scheduler = run([first], depth)
    scheduler.add(again)
    plan = scheduler.schedule()
    assert plan.counts.tolist() == [4] and plan.starts.tolist() == [8]  # blocks of 4: 11 tokens may be shared
    assert again.num_cached_tokens == 8


def test_other_salts_never_share():
    scheduler = run([ask(range(1, 13), salt="alice")])
    for salt, cached in (("bob", 0), (None, 0), ("alice", 8)):
        other = ask(range(1, 13), salt=salt)
        scheduler.add(other)
        scheduler.schedule()
        assert other.num_cached_tokens == cached


@pytest.mark.parametrize("caching", [True, False])
def test_siblings_share_the_full_blocks_of_their_prompt(caching):
    family = []
    family += [ask(range(1, 15), siblings=family) for _ in range(3)]
    scheduler = Scheduler(64, 4, max_num_seqs=8, max_num_batched_tokens=64, enable_prefix_caching=caching)
    for request in family:
        scheduler.add(request)
    plan = scheduler.schedule()
    assert sorted(plan.counts.tolist()) == [2, 2, 14]
    assert sorted(scheduler.kv_cache_manager.block_pool.ref_counts, reverse=True)[:4] == [3, 3, 3, 1]


@pytest.mark.parametrize("depth", [0, 1])
def test_guesses_change_the_number_of_steps_and_no_token(depth):
    prompts = [range(i, i + 9) for i in range(1, 6)]
    plain, guessed, guesser = [ask(p, 30) for p in prompts], [ask(p, 30) for p in prompts], Guesser(3)
    slow, fast = run(plain, depth), run(guessed, depth, speculator=guesser)
    assert [r.output_token_ids for r in guessed] == [r.output_token_ids for r in plain] == list(map(truth, plain))
    assert guesser.right > 20 and guesser.under_way == 0
    assert depth or fast.step < slow.step


def test_nobody_is_preempted_for_a_guess():
    class Stubborn(Guesser):
        def wants(self, num_requests):
            return True

        def propose(self, texts, from_draft_model, limits):
            return np.where(np.arange(self.k) < limits[:, None], 22, -1)

    short, long = ask(range(1, 9), 5), ask(range(2, 10), 9)  # 3 and 4 blocks; the short one ends in time
    scheduler = run([short, long], num_blocks=6, enable_prefix_caching=False, speculator=Stubborn(3))
    assert scheduler.num_preemptions == 0
    assert [r.output_token_ids for r in (short, long)] == [truth(short), truth(long)]


def test_siblings_wait_until_their_prompt_is_computed():
    family = []
    family += [ask(range(1, 15), siblings=family) for _ in range(3)]
    scheduler = Scheduler(64, 4, max_num_seqs=8, max_num_batched_tokens=9)
    for request in family:
        scheduler.add(request)
    ids = np.array(family[0].prompt_token_ids, np.int32)
    assert scheduler.schedule().counts.tolist() == [9]
    assert scheduler.kv_cache_manager.get_computed_blocks(family[1], ids) is None
    assert scheduler.schedule().counts.tolist() == [5, 2, 2]


def test_a_block_gets_no_name_before_the_host_knows_its_tokens():
    request = ask([5, 6, 7], 6)
    scheduler = Scheduler(16, 4, max_num_seqs=1, max_num_batched_tokens=8)
    scheduler.add(request)
    assert [scheduler.schedule().counts.tolist() for _ in range(2)] == [[3], [1]]  # the fourth is unseen
    assert len(request.block_hashes) == 0


def test_preempted_requests_return_to_what_they_had_computed():
    requests = [ask(range(i, 12 + i), 20) for i in range(1, 5)]
    scheduler = run(requests, num_blocks=20)
    assert scheduler.num_preemptions > 0 and scheduler.kv_cache_manager.prefix_cache.hits > 0
    assert all(r.output_token_ids == truth(r) for r in requests)


def test_the_last_to_come_gives_way_and_the_lowest_priority_before_that():
    for policy, order in (("fcfs", [0, 1]), ("priority", [1, 0])):
        requests = [ask([1] * 8, 20, priority=1), ask([2] * 8, 20, priority=0)]
        scheduler = run(requests, num_blocks=8, policy=policy, enable_prefix_caching=False)
        assert scheduler.num_preemptions > 0
        assert requests[order[0]].num_preemptions == 0 < requests[order[1]].num_preemptions


@pytest.mark.parametrize("depth", [0, 1, 2])
@pytest.mark.parametrize("when", range(9))
def test_an_abort_at_any_step_leaves_no_trace(depth, when):
    scheduler = Scheduler(12, 4, max_num_seqs=4, max_num_batched_tokens=8, max_model_len=40)
    core = EngineCore(scheduler, CheckingExecutor(12, 4, 4, 40), depth)
    requests = [ask(range(i, 11 + i), 9) for i in (1, 1, 5)]
    for request in requests:
        core.add(request)
    for _ in range(when):
        core.step()
    had = [len(r.output_token_ids) for r in requests[:2]]
    for request in requests[:2]:
        core.abort(request)
        core.abort(request)
        assert request.row == -1 and request not in scheduler.queue.running
        check_blocks(scheduler, core.executor)
    while requests[2].finish_reason is None or core.busy:
        core.step()
        check_blocks(scheduler)
    assert requests[2].output_token_ids == truth(requests[2])
    assert [len(r.output_token_ids) for r in requests[:2]] == had
    assert scheduler.kv_cache_manager.block_pool.num_free_blocks == 12


def test_a_request_that_can_never_fit_is_refused_and_blocks_nobody():
    scheduler = Scheduler(3, 4, max_num_seqs=2, max_num_batched_tokens=8, max_model_len=64)
    with pytest.raises(ValueError, match=r"prompt has 10 tokens and max_tokens is 4.*room for 12"):
        scheduler.add(ask(range(10), 4))
    with pytest.raises(ValueError, match="max_model_len is 64"):
        scheduler.add(ask(range(60), 5))
    with pytest.raises(ValueError, match="empty"):
        scheduler.add(ask([], 5))
    scheduler.add(ask(range(10), 3))  # the last token is never computed: 12 places are enough
    assert scheduler.schedule() is not None


@pytest.mark.parametrize("depth", [0, 1])
def test_any_of_many_ids_ends_a_request(depth):
    free = [ask([i + 1, i + 5], 12) for i in range(6)]
    run(free, depth)
    ends = frozenset(r.output_token_ids[3] for r in free)  # more ids than a row has room for at first
    requests = [ask(r.prompt_token_ids, 12, stop_token_ids=ends if i else frozenset()) for i, r in enumerate(free)]
    run(requests, depth)
    assert len(ends) > 2 and [r.output_token_ids for r in requests] == [truth(r) for r in requests]
    assert {r.finish_reason for r in requests[1:]} == {"stop"}


def test_sequences_need_a_budget_and_the_refusal_says_which():
    with pytest.raises(ValueError, match="max_num_batched_tokens is 8 but must be at least max_num_seqs, 16"):
        Scheduler(8, max_num_seqs=16, max_num_batched_tokens=8)
    with pytest.raises(ValueError, match="without chunked prefill"):
        Scheduler(8, max_num_seqs=4, max_num_batched_tokens=64, max_model_len=128, enable_chunked_prefill=False)


@pytest.mark.parametrize("policy", ["fcfs", "priority"])
def test_decoders_never_wait_for_a_long_prompt(policy):
    scheduler = Scheduler(100, 4, max_num_seqs=4, max_num_batched_tokens=8, max_model_len=200, policy=policy)
    core = EngineCore(scheduler, CheckingExecutor(100, 4, 4, 200, 8))
    decoder, long = ask([1, 2], 30, priority=1), ask([3] * 100, 3)  # with priorities the long one goes first
    core.add(decoder)
    core.step()
    core.add(long)
    while long.finish_reason is None:
        before = len(decoder.output_token_ids)
        core.step()
        assert len(decoder.output_token_ids) == before + 1


def test_thousands_of_requests_pass_through_a_few_rows():
    requests = [ask([1 + i % 20] * (1 + i % 9), 1 + i % 3) for i in range(3000)]
    run(requests, depth=1, num_blocks=200, max_num_seqs=64)
    assert all(r.output_token_ids == truth(r) for r in requests)


def test_bookkeeping_imports_without_torch():
    import subprocess
    import sys

    code = "import sys; sys.modules['torch'] = None; import tinyllm.engine.scheduler"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_what_a_step_of_bookkeeping_costs(capsys):
    """Printed, not asserted: a busy machine is no bug."""
    import time

    class Seven:
        def __init__(self):
            self.sizes = []

        def submit(self, plan):
            self.sizes.append(int(plan.samples.sum()))

        def collect(self):
            return ModelRunnerOutput(np.full((self.sizes.pop(0), 1), 7))

    figures = []
    for n in (64, 256, 1024):
        scheduler = Scheduler(n * 20, max_num_seqs=n, max_num_batched_tokens=8192, max_model_len=512)
        core = EngineCore(scheduler, Seven())
        for i in range(n):
            core.add(ask(range(i, i + 40 + i % 16), 250, stop_token_ids=frozenset({0, 1})))
        while scheduler.queue.waiting:
            core.step()
        times = []
        for _ in range(200):
            start = time.perf_counter()
            assert len(core.step()) == n
            times.append(time.perf_counter() - start)
        figures.append(f"{n} requests: {np.median(times) * 1e6:.0f} us")
    with capsys.disabled():
        print("\nbookkeeping of a decode step:", ", ".join(figures))


def test_in_a_pipeline_nobody_starts_with_the_blocks_that_a_running_request_waits_for():
    """One micro-batch preempted a request, the other let it start again at once, over and over."""
    first, second = [14, 20, 19, 13, 13, 21, 15, 10, 8, 20, 8, 12], [12, 17, 17, 19, 9]
    requests = [ask(first, 2), ask(second, 8)]
    scheduler = Scheduler(7, 2, max_num_seqs=2, max_num_batched_tokens=3, max_model_len=32, micro_batches=2)
    core = EngineCore(scheduler, CheckingExecutor(7, 2, 2, 32, 3), depth=1)
    for request in requests:
        core.add(request)
    for _ in range(200):
        core.step()
    assert [r.output_token_ids for r in requests] == [truth(r) for r in requests]
    assert scheduler.num_preemptions <= 2
