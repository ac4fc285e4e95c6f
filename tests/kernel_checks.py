"""Each kernel against its torch reference in float64. On a card, and on a CPU through Triton's interpreter:

    TRITON_INTERPRET=1 python tests/kernel_checks.py
"""
import itertools
import sys
from pathlib import Path

import torch
import triton
import triton.language as tl

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the package need not be installed

from tinyllm.kernels.sampling import noise_of

LIMITS = {torch.float32: 2e-6, torch.float16: 2e-3, torch.bfloat16: 1.2e-2}


def relative_error(found: torch.Tensor, expected: torch.Tensor) -> float:
    """Size of the difference beside the size of what was expected; NaN counts as wrong."""
    difference = (found.double() - expected.double()).norm() / expected.double().norm().clamp(min=1e-30)
    return difference.item() if not difference.isnan() else float("inf")


def close(found, expected, dtype, what):
    error = relative_error(found, expected)
    assert error < LIMITS[dtype], f"{what}: relative error {error:.2g} is above {LIMITS[dtype]:.2g}"
    return error


def randn(generator, *shape, dtype, device, scale=1.0):
    return (torch.randn(*shape, generator=generator, dtype=torch.float32) * scale).to(device, dtype)


def check_norm(device, dtype, tokens=3, dim=48, seed=0):
    from tinyllm.kernels.norm import add_rms_norm, add_rms_norm_reference
    g = torch.Generator().manual_seed(seed)
    x, stream, gain = (randn(g, *s, dtype=dtype, device=device) for s in ((tokens, dim), (tokens, dim), (dim,)))
    errors = [close(add_rms_norm(x, None, gain, 1e-5),
                    add_rms_norm_reference(x.double(), None, gain.double(), 1e-5), dtype, "norm")]
    wide = stream.double()
    expected = add_rms_norm_reference(x.double(), wide, gain.double(), 1e-5)
    errors.append(close(add_rms_norm(x, stream, gain, 1e-5), expected, dtype, "add and norm"))
    errors.append(close(stream, wide, dtype, "stream"))
    return max(errors)


def check_swiglu(device, dtype, tokens=3, width=40, seed=0):
    from tinyllm.kernels.activation import swiglu, swiglu_reference
    x = randn(torch.Generator().manual_seed(seed), tokens, 2 * width, dtype=dtype, device=device)
    return close(swiglu(x), swiglu_reference(x.double()), dtype, "swiglu")


def check_rope(device, dtype, tokens=3, heads=4, kv_heads=2, size=16, norm=True, page=4, seed=0):
    from tinyllm.kernels.rope import norm_rope_write, norm_rope_write_reference
    g = torch.Generator().manual_seed(seed)
    blocks = -(-tokens // page) + 2
    qkv = randn(g, tokens, (heads + 2 * kv_heads) * size, dtype=dtype, device=device)
    norms = tuple(randn(g, size, dtype=dtype, device=device) for _ in range(2)) if norm else None
    angles = torch.rand(50, size // 2, generator=g) * 6
    cos_sin = torch.cat((angles.cos(), angles.sin()), 1).to(device)
    positions = torch.randint(50, (tokens,), generator=g, dtype=torch.int32).to(device)
    slots = (torch.randperm((blocks - 1) * page, generator=g)[:tokens].int() + page).to(device)
    caches = [torch.full((blocks, page, kv_heads, size), 7.0, dtype=dtype, device=device) for _ in range(2)]
    wide = [c.double() for c in caches]
    wide_norms = tuple(n.double() for n in norms) if norm else None
    expected = norm_rope_write_reference(qkv.double(), wide_norms, 1e-6, cos_sin.double(), positions, slots, *wide)
    found = norm_rope_write(qkv, norms, 1e-6, cos_sin, positions, slots, *caches)
    errors = [close(found, expected, dtype, "queries")]
    errors += [close(c, w, dtype, n) for c, w, n in zip(caches, wide, ("keys", "values"), strict=True)]
    return max(errors)


def check_attention(device, dtype, queries=(1,), contexts=(5,), heads=4, kv_heads=2, size=16, page=4,
                    splits=1, seed=0, padding=0, shapes=None, few=1):
    """queries, contexts: for each request, how many tokens are new and how many there are in all."""
    from tinyllm.kernels.paged_attention import Pages, paged_attention, paged_attention_reference
    g = torch.Generator().manual_seed(seed)
    requests, tokens = len(queries), sum(queries)
    width = -(-max(contexts) // page)
    numbers = torch.randperm(requests * width, generator=g).int() + 1
    tables = numbers.view(requests, width)[torch.randperm(requests, generator=g)]
    rows = torch.randperm(requests, generator=g).int()
    caches = [randn(g, requests * width + 1, page, kv_heads, size, dtype=dtype, device=device) for _ in range(2)]
    for cache in caches:
        cache[0] = float("nan")  # nobody may read padding's block and use it
    qkv = randn(g, tokens + padding, (heads + 2 * kv_heads) * size, dtype=dtype, device=device)
    q = qkv.unflatten(1, (-1, size))[:, :heads]
    starts = torch.tensor([0, *torch.tensor(queries).cumsum(0).tolist()] + [tokens] * padding, dtype=torch.int32)
    lengths = torch.tensor(list(contexts) + [0] * padding, dtype=torch.int32)
    rows = torch.cat((rows, torch.zeros(padding, dtype=torch.int32)))
    many = max(queries) > few
    arrivals = torch.zeros(len(lengths) * kv_heads, dtype=torch.int32, device=device)
    pages = Pages(*(x.to(device) for x in (starts, lengths, rows, tables)), many, splits, arrivals, few)
    found = paged_attention(q, *caches, pages, size**-0.5, shapes=shapes)[:tokens]
    expected = paged_attention_reference(q.double(), *(c.nan_to_num() for c in caches), pages, size**-0.5)[:tokens]
    assert not arrivals.any()
    return close(found, expected, dtype, f"attention of {queries} in {contexts}")


def check_raw_attention(device, dtype, contexts=(5,), heads=4, kv_heads=2, size=16, page=4, splits=1, norm=True,
                        seed=0):
    """One query each, straight from the projection: as rotation, then attention."""
    from tinyllm.kernels.paged_attention import Pages, attend_few, paged_attention_reference
    from tinyllm.kernels.rope import norm_rope_write_reference
    g = torch.Generator().manual_seed(seed)
    requests, width = len(contexts), -(-max(contexts) // page)
    kind = dict(dtype=dtype, device=device)
    tables = (torch.randperm(requests * width, generator=g).int() + 1).view(requests, width).to(device)
    caches = [randn(g, requests * width + 1, page, kv_heads, size, **kind) for _ in range(2)]
    qkv = randn(g, requests, (heads + 2 * kv_heads) * size, **kind)
    norms = tuple(randn(g, size, **kind) for _ in range(2)) if norm else None
    angles = torch.rand(max(contexts), size // 2, generator=g) * 6
    cos_sin = torch.cat((angles.cos(), angles.sin()), 1).to(device)
    lengths = torch.tensor(contexts, dtype=torch.int32, device=device)
    starts, arrivals = (torch.arange(n, dtype=torch.int32, device=device) for n in (requests + 1, requests * kv_heads))
    pages = Pages(starts, lengths, starts[:-1], tables, False, splits, arrivals.zero_())
    at = (lengths - 1).long()
    slots = tables.long().gather(1, (at // page)[:, None])[:, 0] * page + at % page
    wide, wide_norms = [c.double() for c in caches], tuple(n.double() for n in norms) if norm else None
    q = norm_rope_write_reference(qkv.double(), wide_norms, 1e-6, cos_sin.double(), at, slots, *wide)
    expected = paged_attention_reference(q, *wide, pages, size**-0.5)
    out = torch.full((requests, heads, size), float("nan"), **kind)
    attend_few(qkv.unflatten(1, (-1, size))[:, :heads], *caches, pages, size**-0.5, out, raw=(norms, 1e-6, cos_sin))
    errors = [close(out, expected, dtype, f"raw attention in {contexts}")]
    errors += [close(c, w, dtype, n) for c, w, n in zip(caches, wide, ("keys", "values"), strict=True)]
    assert not arrivals.any()
    return max(errors)


def check_linear(device, dtype, rows=1, outputs=10, width=24, norm=True, gate=False, add=False, bias=False,
                 seed=0):
    from tinyllm.kernels.linear import linear_few_rows, linear_few_rows_reference
    g = torch.Generator().manual_seed(seed)
    kind = dict(dtype=dtype, device=device)
    x, weight = randn(g, rows, width, **kind), randn(g, (1 + gate) * outputs, width, **kind, scale=width**-0.5)
    options = {"gate": gate}
    if norm:
        options |= {"gain": randn(g, width, **kind), "eps": 1e-6}
    if bias:
        options["bias"] = randn(g, outputs, **kind)
    if add:
        options["add_to"] = randn(g, rows, outputs, **kind)
    wide = {k: v.double() if isinstance(v, torch.Tensor) else v for k, v in options.items()}
    expected = linear_few_rows_reference(x.double(), weight.double(), **wide)
    return close(linear_few_rows(x, weight, **options), expected, dtype, f"linear {rows} {options.keys()}")


@triton.jit
def noise_kernel(words, found, FAST: tl.constexpr, BLOCK: tl.constexpr):
    """The noise of each word."""
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(found + at, noise_of(tl.load(words + at).to(tl.uint32, bitcast=True), FAST))


def check_noise(device, number=65_536, seed=0):
    """Noise is what the words of chapter 10 make in double precision; the largest error is returned."""
    g = torch.Generator().manual_seed(seed)
    edges = [0, 1, 2, 2**28 - 1, 2**28, 2**28 + 1, 2**31 - 1, 2**31, 2**32 - 2, 2**32 - 1]
    words = torch.cat((torch.tensor(edges), torch.randint(0, 2**32, (number - len(edges),), generator=g)))
    words[len(edges) : number // 2] >>= torch.randint(0, 32, (number // 2 - len(edges),), generator=g)
    found = torch.empty(number, device=device)
    noise_kernel[(number // 1024,)](words.int().to(device), found, FAST=device != "cpu", BLOCK=1024)
    u = ((2 * words + 1).float() * 2.0**-33).clamp(max=1 - 2.0**-24).double()
    worst = float((found.cpu().double() + (-torch.log1p(-u)).log()).abs().max())
    assert worst < 1e-5, worst
    return worst


def check_sampler(device, dtype, vocab=50, seed=0, temperatures=(0.0, 0.6, 1.3), requests=None):
    """The tokens are those of the torch sampler, and they are written where they belong."""
    from tinyllm.engine.params import SamplingParams
    from tinyllm.engine.sampling import SamplingInputs, sample
    from tinyllm.kernels.sampling import gumbel_max
    g = torch.Generator().manual_seed(seed)
    number = requests or len(temperatures)
    heat = [temperatures[i % len(temperatures)] for i in range(number)]
    logits = randn(g, number + 1, vocab, dtype=dtype, device=device)
    rows = torch.randperm(number + 2, generator=g)[:number].int()
    seeds = torch.randint(-2**62, 2**62, (number,), generator=g)
    prompts, outputs = (torch.randint(1, 9, (number,), generator=g) for _ in range(2))
    params = [SamplingParams(temperature=t) for t in heat]
    expected = sample(logits[:number].float(), SamplingInputs.from_params(
        params, seeds.tolist(), outputs.tolist(), vocab, device))
    columns = [torch.zeros(number + 2, dtype=t, device=device) for t in (torch.float32, torch.int64, torch.int32)]
    at = rows.long().to(device)
    for column, value in zip(columns, (torch.tensor(heat), seeds, prompts.int()), strict=True):
        column[at] = value.to(device, column.dtype)
    ends = torch.cat((prompts + outputs, torch.zeros(1))).int().to(device)
    samples = (torch.arange(number + 1) % 2 == 0).int().to(device)
    tokens = torch.full((number + 2, 20), -1, dtype=torch.int64, device=device)
    out = torch.full((number + 1,), -1, dtype=torch.int64, device=device)
    padded = torch.cat((rows, torch.zeros(1, dtype=torch.int32))).to(device)
    gumbel_max(logits, padded, *columns, ends, samples, tokens, out)
    assert out[:number].tolist() == expected.tolist() and out[number] == -1
    written = tokens[at, ends[:number].long()]
    assert written.tolist() == [t if i % 2 == 0 else -1 for i, t in enumerate(expected.tolist())]
    assert (tokens >= 0).sum() == (number + 1) // 2
    return 0.0


def wishes_of(number, vocab):
    """Top-k, top-p and min-p of so many requests: off, at their ends, alone and together."""
    some = [(1, 1, 0), (50, 1, 0), (vocab, 0.9, 0), (vocab, 0.1, 0), (vocab, 0.5, 0), (vocab - 1, 1, 0), (20, 0.95, 0),
            (vocab, 1, 0.1), (50, 0.8, 0.05), (vocab, 0.999, 0), (3, 0.3, 0.5), (vocab, 1, 0)]
    return [(min(max(k, 1), vocab), p, m) for k, p, m in (some[i % len(some)] for i in range(number))]


def rows_of(g, number, vocab, dtype, device):
    """Logits of several kinds: flat, steep, in steps so that many are equal, with tokens ruled out, all the same."""
    logits = torch.randn(number, vocab, generator=g)
    for i in range(number):
        kind = i % 5
        logits[i] *= (1, 4, 2, 3, 0)[kind]
        if kind == 2:
            logits[i] = logits[i].round()
        if kind == 3:
            logits[i, :: 1 + i % 3] = -torch.inf
            logits[i, : 1 + vocab // 3] = 0.5
    return logits.to(device, dtype)


def check_thresholds(device, dtype, vocab=50, number=12, seed=0):
    """Survivors are those of the sort, but for tokens where float32's sums may fall on either side of top-p."""
    from tinyllm.engine.params import SamplingParams
    from tinyllm.engine.sampling import SamplingInputs, apply_min_p, apply_top_k_top_p, sample
    from tinyllm.kernels.sampling import gumbel_max
    from tinyllm.kernels.thresholds import find_pivots
    g = torch.Generator().manual_seed(seed)
    logits, wishes = rows_of(g, number, vocab, dtype, device), wishes_of(number, vocab)
    heat = [(0.7, 1.0, 1.3)[i % 3] for i in range(number)]
    params = [SamplingParams(temperature=t, top_k=k, top_p=p, min_p=m)
              for t, (k, p, m) in zip(heat, wishes, strict=True)]
    seeds, done = list(range(7, 7 + number)), [i % 4 for i in range(number)]
    inputs = SamplingInputs.from_params(params, seeds, done, vocab, device)
    scores = logits.float() / inputs.temperature[:, None]
    filters = torch.stack((inputs.top_k.float(), inputs.top_p, inputs.min_p.log()), 1)
    rows = torch.arange(number, dtype=torch.int32, device=device)
    ends = torch.tensor(done, dtype=torch.int32, device=device) + 1
    cuts, last = find_pivots(logits, rows, inputs.temperature, filters, ends)
    ids = torch.arange(vocab, device=device)
    stays = (scores > cuts[:, None]) | ((scores == cuts[:, None]) & (ids <= last[:, None]))
    stays &= scores > -torch.inf
    expected = apply_top_k_top_p(apply_min_p(scores, inputs.min_p), inputs.top_k, inputs.top_p) > -torch.inf
    left = apply_top_k_top_p(apply_min_p(scores, inputs.min_p), inputs.top_k, torch.ones_like(inputs.top_p))
    order = left.sort(dim=-1, descending=True, stable=True).indices
    probs = left.double().softmax(-1).gather(1, order)
    before = torch.zeros_like(probs).scatter_(1, order, probs.cumsum(-1) - probs)
    wrong = (stays != expected) & ((before - inputs.top_p[:, None]).abs() > 3e-5)
    assert not wrong.any(), f"vocabulary {vocab}: {wrong.sum(1).tolist()} of {expected.sum(1).tolist()}, {wishes}"
    assert stays.any(1).all()
    tokens, out = torch.zeros(number, 9, dtype=torch.int64, device=device), torch.full((number,), -1).to(device)
    one = torch.ones_like(ends)
    gumbel_max(logits, rows, inputs.temperature, inputs.seed, one, ends, one, tokens, out, (cuts, last))
    theirs = sample(logits.float(), inputs)
    same = out == theirs
    assert (same | (stays != expected).any(1)).all(), f"vocabulary {vocab}: {out.tolist()}, not {theirs.tolist()}"
    return 0.0


def check_logprobs(device, dtype, vocab=50, number=5, k=6, seed=0):
    """Log-probabilities, ranks and the likeliest are those of float64; of equals the lower id comes first."""
    from tinyllm.kernels.thresholds import top_logprobs
    g = torch.Generator().manual_seed(seed)
    logits = rows_of(g, number, vocab, dtype, device)
    chosen = logits.float().softmax(-1).multinomial(1)[:, 0] if vocab < 2**20 else None
    ids, found, ranks = top_logprobs(logits, chosen, k)
    wide = logits.double()
    expected = wide.log_softmax(-1)
    order = wide.sort(dim=-1, descending=True, stable=True).indices[:, :k]
    order = order.where(expected.gather(1, order) > -torch.inf, 0)
    assert ids.tolist() == torch.cat((chosen[:, None], order), 1).tolist()
    assert ranks.tolist() == (wide >= wide.gather(1, chosen[:, None])).sum(1).tolist()
    theirs = torch.cat((expected.gather(1, chosen[:, None]), expected.sort(-1, descending=True).values[:, :k]), 1)
    assert ((found == -torch.inf) == (theirs == -torch.inf)).all()
    error = (found.double() - theirs).nan_to_num(0).abs().max().item()
    assert error < 2e-5, f"vocabulary {vocab}: log-probabilities are {error:.2g} off"
    return error


def check_inputs(device, counts=(1, 1, 3, 2), single=False, page=4, padding=3, seed=0, guesses=0):
    """Tokens, positions and slots of a step, new blocks and new rows, as the plain batch has them."""
    from tinyllm.kernels.inputs import NEW, admit, find_tokens
    g = torch.Generator().manual_seed(seed)
    number, width, places = len(counts), 6, 24
    tokens = torch.randint(0, 99, (number + 1, places), generator=g).to(device)
    tables = torch.randperm((number + 1) * width, generator=g).int().view(number + 1, width).to(device)
    starts = torch.randint(0, places - max(counts), (number,), generator=g).int()
    rows = torch.randperm(number + 1, generator=g)[:number].int()
    firsts = torch.tensor([0, *torch.tensor(counts).cumsum(0).tolist()] + [sum(counts)] * 2, dtype=torch.int32)
    updates = torch.tensor([[3, 777], [width + 1, 778]], dtype=torch.int32)
    more = torch.zeros(2, dtype=torch.int32)
    total, wanted, table = sum(counts) + padding, tokens.cpu().clone(), None
    if guesses:  # as many as fit behind the first of a request's tokens
        table = torch.full((number + 2, guesses), -1, dtype=torch.int32)
        for i, (row, start, count) in enumerate(zip(rows.tolist(), starts.tolist(), counts, strict=True)):
            table[i, : count - 1] = 1000 + 10 * i + torch.arange(guesses)[: count - 1]
            some = table[i][table[i] >= 0].long()
            wanted[row, start + 1 : start + 1 + len(some)] = some
        table = table.to(device)
    found = find_tokens(torch.cat((rows, more)).to(device), torch.cat((starts, more)).to(device), firsts.to(device),
                        torch.tensor([2], dtype=torch.int32).to(device), updates.to(device), tokens, tables,
                        total, page, single, table)
    assert torch.equal(tokens.cpu(), wanted)
    assert tables.view(-1)[[3, width + 1]].tolist() == [777, 778]
    position = torch.cat([torch.arange(s, s + c) for s, c in zip(starts.tolist(), counts, strict=True)])
    row = rows.repeat_interleave(torch.tensor(counts)).long()
    slot = tables.cpu()[row, position // page] * page + position % page
    none = torch.zeros(padding)
    for one, expected in zip(found, (wanted[row, position], position, slot), strict=True):
        assert one.tolist() == torch.cat((expected, none)).tolist()
    ids = torch.arange(5, 12, dtype=torch.int32)
    heat = torch.tensor([0.7]).view(torch.int32).item()
    letter = torch.tensor([2, NEW, 7, 4, heat, -3, 5, 0, *ids.tolist()], dtype=torch.int32, device=device)
    state = [torch.zeros(number + 1, dtype=t, device=device) for t in (torch.float32, torch.int64, torch.int32)]
    admit(letter, 1, 7, tokens, *state)
    assert tokens[2, :7].tolist() == ids.tolist()
    assert [s[2].item() for s in state] == [torch.tensor(0.7).item(), (5 << 32) + 2**32 - 3, 4]
    return 0.0


def check_verdicts(device, requests=5, k=3, seed=0):
    """Lines and verdicts of a step with guesses, as chapter 18 has them."""
    from tinyllm.engine.speculative import verify_own
    from tinyllm.kernels.inputs import count_accepted, find_lines
    g = torch.Generator().manual_seed(seed)
    guessed = torch.randint(0, k + 1, (requests,), generator=g)
    guessed[-1], samples = 0, (guessed + 1).int()
    samples[-1] = 0  # a piece of a prompt: nothing is sampled
    counts = guessed + torch.randint(1, 3, (requests,), generator=g)
    ends = (counts + torch.randint(0, 50, (requests,), generator=g)).int()
    query_starts = torch.tensor([0, *counts.cumsum(0).tolist()], dtype=torch.int32)
    ids, rows = torch.randint(0, 4, (int(counts.sum()),), generator=g), torch.randperm(requests, generator=g).int()
    guesses = torch.zeros(requests, k, dtype=torch.int64, device=device)
    inputs = [x.to(device) for x in (rows, ends, samples, query_starts, ids)]
    kept = torch.zeros(3, requests * (k + 1), dtype=torch.int32, device=device)
    after, *lines = (x.view(requests, k + 1).tolist() for x in (find_lines(*inputs, guesses, kept), *kept))
    for i, (first, last) in enumerate(itertools.pairwise(query_starts.tolist())):
        due = int(samples[i])
        for j in range(due):
            assert after[i][j] == last - (due - 1 - j) > first
            assert [line[i][j] for line in lines] == [int(rows[i]), int(ends[i]) - (due - 1 - j), 1]
        assert [line[i][due:] for line in lines[1:]] == [[0] * (k + 1 - due)] * 2
        expected = ids[last - due + 1 : last].tolist() if due else []
        assert guesses[i].tolist() == expected + [-1] * (k - len(expected))
    sampled = torch.randint(0, 4, (requests, k + 1), generator=g).to(device)
    found, lens = torch.zeros(requests, dtype=torch.int64, device=device), inputs[1].clone()
    count_accepted(sampled, guesses, inputs[1], inputs[2], found, lens)
    accepted = verify_own(sampled, guesses).cpu()
    assert found.tolist() == (accepted + 1).tolist()
    assert lens.tolist() == torch.where(samples > 0, ends - samples + accepted + 2, ends).tolist()


def what_stays(logits, heat, cuts):
    """Scores after `find_pivots`: which of those that a float32 sum may put on either side stay is its decision."""
    scores, (cut, last) = logits.float() / heat[:, None], (x[:, None] for x in cuts)
    ids = torch.arange(logits.shape[1], device=logits.device)
    return scores.masked_fill(~((scores > cut) | ((scores == cut) & (ids <= last))), -torch.inf)


def check_drawn(device, dtype, vocab=50, number=6, k=3, seed=0, closeness=0.5):
    """Guesses have their own noise and their scores are kept; they are judged, and replaced, as chapter 18 has it."""
    from tinyllm.engine.draft import replace_rejected
    from tinyllm.engine.noise import Purpose, gumbel_noise
    from tinyllm.engine.params import SamplingParams
    from tinyllm.engine.sampling import SamplingInputs
    from tinyllm.engine.speculative import verify_drawn as verify_in_torch
    from tinyllm.kernels.sampling import gumbel_max, verify_drawn
    from tinyllm.kernels.thresholds import find_pivots
    g = torch.Generator().manual_seed(seed)
    wishes = [SamplingParams(temperature=(0.7, 1.3)[i % 2], top_p=(1, 0.8)[i % 2], top_k=(-1, 20)[i % 3 == 1])
              for i in range(number)]
    seeds, prompts = list(range(7, 7 + number)), torch.randint(1, 9, (number,), generator=g).int().to(device)
    rows = torch.randperm(number + 2, generator=g)[:number].int().to(device)
    at, drawn = rows.long(), torch.zeros(number + 2, dtype=torch.int32, device=device)
    drawn[at[:-1]] = 1  # the last one's guesses are judged by the target's own draws
    guessed = [k - i % (k + 1) if i else k for i in range(number)]
    kept = torch.full((number + 2, k, vocab), torch.nan, device=device)
    tokens = torch.full((number + 2, 30), -1, dtype=torch.int64, device=device)
    guesses = torch.full((number, k), -1, dtype=torch.int64, device=device)
    own = SamplingInputs.from_params(wishes, seeds, [0] * number, vocab, device)
    columns = {"temperature": torch.ones(number + 2, device=device),
               "seed": torch.zeros(number + 2, dtype=torch.int64, device=device),
               "prompts": torch.zeros(number + 2, dtype=torch.int32, device=device),
               "filters": torch.ones(number + 2, 3, device=device)}
    for name, value in (("temperature", own.temperature), ("seed", own.seed), ("prompts", prompts),
                        ("filters", torch.stack((own.top_k.float(), own.top_p, own.min_p.log()), 1))):
        columns[name][at] = value
    heat, filters = columns["temperature"], columns["filters"]
    wish = heat, columns["seed"], columns["prompts"]
    truth = rows_of(g, number * (k + 1), vocab, dtype, device)
    done = 4  # tokens that each answer has
    one, q = torch.ones_like(prompts), []
    for j in range(k):
        logits = (truth.view(number, k + 1, vocab)[:, j].float()
                  + closeness * torch.randn(number, vocab, generator=g).to(device)).to(dtype)
        inputs = SamplingInputs.from_params(wishes, seeds, [done + j] * number, vocab, device)
        ends, out = prompts + done + j, torch.zeros(number, dtype=torch.int64, device=device)
        cuts = find_pivots(logits, rows, heat, filters, ends)
        turn = torch.tensor([j], device=device)
        gumbel_max(logits, rows, *wish, ends, one, tokens, out, cuts, guess=(drawn, kept, turn))
        left = what_stays(logits, own.temperature, cuts)
        q.append(left.softmax(-1))
        noise = gumbel_noise(inputs.seed, inputs.output_index, Purpose.DRAFT, vocab)
        assert out[:-1].tolist() == (left + noise).argmax(-1)[:-1].tolist()
        own_noise = gumbel_noise(inputs.seed, inputs.output_index, Purpose.TARGET, vocab)
        assert out[-1] == (left + own_noise).argmax(-1)[-1]
        assert torch.allclose(kept[at[:-1], j].softmax(-1), q[-1][:-1], atol=1e-5)
        guesses[:, j] = torch.where(torch.tensor(guessed, device=device) > j, out, -1)
    assert kept[at[-1]].isnan().all()
    samples = torch.tensor(guessed, dtype=torch.int32, device=device) + 1
    ends = prompts + done + samples - 1
    place = torch.arange(k + 1, dtype=torch.int32, device=device)
    real = place < samples[:, None]
    line_ends = torch.where(real, (prompts + done)[:, None] + place, 0).int().flatten()
    cuts = find_pivots(truth, rows.repeat_interleave(k + 1), heat, filters, line_ends)
    sampled = torch.randint(0, vocab, (number * (k + 1),), generator=g).to(device)
    before, counts, lens = sampled.clone(), torch.full((number,), -5, device=device), ends.clone()
    verify_drawn(truth, kept, guesses, rows, ends, samples, line_ends, drawn, *wish, tokens, sampled, counts, lens,
                 cuts)
    p = what_stays(truth, own.temperature.repeat_interleave(k + 1), cuts).softmax(-1).view(number, k + 1, vocab)[:, :-1]
    count, instead = verify_in_torch(p, torch.stack(q, 1), guesses, own.seed, torch.full_like(own.seed, done))
    expected = replace_rejected(before.view(number, k + 1), guesses, count, instead)
    assert counts.tolist() == [*(count[:-1] + 1).tolist(), -5], (counts, count)
    assert lens[:-1].tolist() == (ends - samples + count.int() + 2)[:-1].tolist() and lens[-1] == ends[-1]
    assert sampled.view(number, -1)[:-1].tolist() == expected[:-1].tolist()
    assert sampled.view(number, -1)[-1].tolist() == before.view(number, -1)[-1].tolist()
    for i in range(number - 1):
        said = [int(x) for x in tokens[at[i], int(prompts[i]) + done :][: int(count[i]) + 1]]
        some = int(count[i]) + (count[i] < guessed[i])  # the target's own draw after the last guess is written already
        assert said[:some] == expected[i, :some].tolist()
    return count[:-1].tolist()


def tiny(device):
    """Every kernel at the smallest shapes that reach all of its branches."""
    from tinyllm.kernels.paged_attention import Shape
    for dtype in (torch.float32, torch.float16):
        check_norm(device, dtype)
        check_swiglu(device, dtype)
        check_rope(device, dtype)
        check_rope(device, dtype, norm=False, heads=3, kv_heads=1, size=10)
        for queries, contexts, splits in (((1,), (5,), 1), ((1, 1), (4, 9), 2), ((1, 3, 2), (70, 70, 2), 2)):
            check_attention(device, dtype, queries, contexts, splits=splits, padding=1)
        for few, splits in ((2, 1), (3, 4)):
            check_attention(device, dtype, (few, 1, 7, 2), (few, 70, 40, 33), heads=6, splits=splits, padding=1,
                            few=few)
        packed = Shape(16, 16, 4, 2, pack=2), Shape(16, 16, 4, 2)
        for heads, splits in ((4, 1), (6, 4)):
            check_attention(device, dtype, (1, 1), (5, 70), heads=heads, splits=splits, padding=1, shapes=packed)
        check_raw_attention(device, dtype)
        check_raw_attention(device, dtype, (4, 70), splits=4, norm=False, heads=3, kv_heads=1, size=10)
        check_linear(device, dtype, 1, norm=True)
        check_linear(device, dtype, 1, outputs=5, width=4100, norm=True, gate=True)
        check_linear(device, dtype, 2, norm=True, gate=True)
        check_linear(device, dtype, 1, norm=False, add=True, bias=True)
        check_sampler(device, dtype)
    check_noise(device, 4096)
    check_thresholds(device, torch.float32)
    check_thresholds(device, torch.float16, vocab=37, number=4)
    check_logprobs(device, torch.float32)
    check_logprobs(device, torch.float16, k=0, number=2)
    check_inputs(device)
    check_inputs(device, counts=(1, 1, 1), single=True)
    check_inputs(device, guesses=2)
    for seed in range(4):
        check_verdicts(device, seed=seed)
    counts = [check_drawn(device, dtype, seed=seed) for seed, dtype in enumerate((torch.float32, torch.float16))]
    assert any(3 in some for some in counts) and any(0 in some for some in counts)  # all accepted, the first refused


if __name__ == "__main__":
    if not torch.cuda.is_available():
        from interpreter import hurry

        hurry(look_for_overflow=True)
    tiny("cuda" if torch.cuda.is_available() else "cpu")
    print("kernels agree")
