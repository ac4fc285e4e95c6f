"""Fable on the card says what Fable says on the processor."""
import pytest
import torch

from tinyllm.engine.generate import generate
from tinyllm.engine.params import SamplingParams
from tinyllm.engine.noise import Purpose, gumbel_noise
from tinyllm.model.batch_inputs import AttentionInputs
from tinyllm.model.config_reader import resolve
from tinyllm.model.hf_tokenizer import load_tokenizer
from tinyllm.model.weights import load_model

PROMPTS = ("Once upon a time", "The king said to his youngest daughter", "In the forest")
TIE = 1e-4  # two logits closer than this are a tie, and a tie may fall either way


@pytest.fixture(scope="module")
def tokenizer():
    return load_tokenizer(resolve("fable"))


def logits_of(model, rows):
    device = next(model.parameters()).device
    ids = torch.tensor([t for row in rows for t in row], device=device)
    with torch.inference_mode():
        return model.logits(model(ids, AttentionInputs.from_lengths([len(r) for r in rows], device=device))).cpu()


@pytest.mark.parametrize(("dtype", "limit"), [("float32", 1e-3), ("bfloat16", 0.5)])
def test_logits_on_the_card_are_those_of_the_processor(tokenizer, dtype, limit):
    rows = [tokenizer.encode(p) for p in PROMPTS]
    expected = logits_of(load_model("fable"), rows)
    found = logits_of(load_model("fable", dtype, "cuda"), rows)
    error = (found - expected).abs().max().item()
    print(f"\n{dtype}: largest difference of a logit {error:.2g}")
    assert error < limit


@pytest.mark.parametrize("params", [SamplingParams(temperature=0.0, max_tokens=60),
                                    SamplingParams(temperature=0.8, top_p=0.95, seed=3, max_tokens=60)],
                         ids=["greedy", "sampled"])
def test_tokens_on_the_card_are_those_of_the_processor(tokenizer, params):
    card, processor = load_model("fable", "float32", "cuda"), load_model("fable")
    for prompt in PROMPTS:
        ids = tokenizer.encode(prompt)
        found, expected = list(generate(card, ids, params)), list(generate(processor, ids, params))
        if found == expected:
            continue
        at = next(i for i, (a, b) in enumerate(zip(found, expected, strict=False)) if a != b)
        best = logits_of(processor, [ids + expected[:at]])[-1].topk(2).values
        assert params.greedy and best[0] - best[1] < TIE, f"{prompt!r} differs at token {at}"


def test_noise_on_the_card_is_that_of_the_processor():
    seeds, index = torch.tensor([0, 7, 2**62]), torch.tensor([0, 1, 500])
    expected = gumbel_noise(seeds, index, Purpose.TARGET, 5000)
    found = gumbel_noise(seeds.cuda(), index.cuda(), Purpose.TARGET, 5000).cpu()
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
