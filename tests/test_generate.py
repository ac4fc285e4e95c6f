"""The naive loop, first rung of the equality ladder: transformers' tokens, and an end where it should be."""

import itertools

import pytest

torch = pytest.importorskip("torch")
from torch import nn

from tinyllm.engine.generate import generate
from tinyllm.engine.params import SamplingParams
from tinyllm.engine.sampling import SamplingInputs, sample
from tinyllm.model.transformer import ModelConfig, Transformer

GREEDY = SamplingParams(temperature=0, max_tokens=24)
TIE = 1e-4


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Tiny matrices lose more by waiting for threads than they gain."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def tiny_config(**changes):
    shape = {
        "vocab_size": 97,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "max_position_embeddings": 64,
    }
    return ModelConfig(**{**shape, **changes})


@pytest.fixture(scope="module")
def tiny():
    torch.manual_seed(0)
    model = Transformer(tiny_config()).eval()
    for parameter in model.parameters():
        if parameter.dim() > 1:
            nn.init.normal_(parameter, std=0.2)
    return model


class Counting(nn.Module):
    """A model that always finds the next number likeliest: 5 after 4, 0 after the last."""

    def __init__(self, eos_token_ids=(), limit=64):
        super().__init__()
        self.config = tiny_config(vocab_size=10, eos_token_ids=eos_token_ids, max_position_embeddings=limit)
        self.weight = nn.Parameter(torch.zeros(1))

    def forward(self, token_ids, inputs, caches=None):
        return nn.functional.one_hot((token_ids + 1) % 10, 10).float()

    def logits(self, hidden):
        return hidden * 9


def numbers(prompt, *, eos_token_ids=(), limit=64, **wishes):
    return list(generate(Counting(eos_token_ids, limit), prompt, SamplingParams(temperature=0, **wishes)))


def test_an_end_of_sequence_token_is_yielded_and_ends_the_text():
    assert numbers([1], eos_token_ids=(4,)) == [2, 3, 4]
    assert numbers([1], eos_token_ids=(7, 3)) == [2, 3]  # any of the set


def test_ignore_eos_runs_on_but_still_stops_at_the_request_s_own_tokens():
    assert numbers([1], eos_token_ids=(3,), ignore_eos=True, max_tokens=4) == [2, 3, 4, 5]
    assert numbers([1], eos_token_ids=(3,), ignore_eos=True, stop_token_ids=[5]) == [2, 3, 4, 5]
    assert numbers([1], stop_token_ids=[3, 6]) == [2, 3]


def test_an_end_token_in_the_prompt_ends_nothing():
    assert numbers([3, 4], eos_token_ids=(4,), max_tokens=3) == [5, 6, 7]


@pytest.mark.parametrize("n", [1, 2, 17])
def test_max_tokens_is_exact(n):
    assert numbers([0], max_tokens=n) == [(i + 1) % 10 for i in range(n)]


def test_without_max_tokens_the_context_is_filled_to_the_last_place():
    assert len(numbers([0] * 50, max_tokens=None)) == 14
    assert len(numbers([0] * 63, max_tokens=None)) == 1
    assert len(numbers([0] * 40, max_tokens=24)) == 24


@pytest.mark.parametrize(
    "prompt, wishes, words",
    [
        ([], {}, ["empty"]),
        ([10], {}, ["10", "vocabulary of 10", "tokenizer"]),
        ([3, -1], {}, ["-1", "vocabulary of 10"]),
        ([0] * 64, {}, ["64 tokens", "context is 64", "shorten"]),
        ([0] * 1000, {"max_tokens": None}, ["1,000 tokens", "context is 64", "shorten"]),
        ([0] * 60, {"max_tokens": 5}, ["60 tokens", "max_tokens is 5", "context of 64", "at most 4"]),
        ([0], {"stop_token_ids": [10]}, ["stop token id 10", "vocabulary of 10"]),
    ],
)
def test_a_request_that_cannot_run_is_refused_at_once(prompt, wishes, words):
    with pytest.raises(ValueError) as error:  # by the call itself: no token has been asked for
        generate(Counting(), prompt, SamplingParams(**wishes))
    for word in words:
        assert word in str(error.value)


def test_the_same_seed_gives_the_same_tokens_and_another_seed_others(tiny):
    wish = SamplingParams(max_tokens=24, seed=5)
    first = list(generate(tiny, [1, 2, 3], wish))
    assert list(generate(tiny, [1, 2, 3], wish, seed=999)) == first  # the request's own seed counts
    assert list(generate(tiny, [1, 2, 3], SamplingParams(max_tokens=24), seed=5)) == first
    assert list(generate(tiny, [1, 2, 3], SamplingParams(max_tokens=24, seed=6))) != first


def test_a_shorter_request_gets_the_beginning_of_a_longer_one(tiny):
    long = list(generate(tiny, [4, 5], SamplingParams(max_tokens=20, seed=1)))
    assert list(generate(tiny, [4, 5], SamplingParams(max_tokens=7, seed=1))) == long[:7]


def test_two_requests_in_turn_do_not_disturb_each_other(tiny):
    def run(seed):
        return generate(tiny, [7, seed], SamplingParams(max_tokens=12, seed=seed))

    woven = list(itertools.chain.from_iterable(zip(run(1), run(2), strict=True)))
    assert woven[::2] == list(run(1)) and woven[1::2] == list(run(2))


def test_the_prompt_is_left_alone_and_the_caller_s_grad_mode_too(tiny):
    prompt = [1, 2, 3]
    tokens = generate(tiny, prompt, GREEDY)
    next(tokens)
    assert torch.is_grad_enabled() and not torch.is_inference_mode_enabled()
    next(tokens)
    assert prompt == [1, 2, 3]


def test_each_token_is_drawn_with_its_own_index(tiny):
    from tinyllm.model.batch_inputs import AttentionInputs

    tokens, ids = list(generate(tiny, [1, 2], SamplingParams(max_tokens=10, seed=3, temperature=1.2))), [1, 2]
    for index, token in enumerate(tokens):
        hidden = tiny(torch.tensor(ids), AttentionInputs.from_lengths([len(ids)]))
        inputs = SamplingInputs.from_params([SamplingParams(temperature=1.2)], [3], [index], 97)
        assert sample(tiny.logits(hidden[-1:]), inputs).item() == token
        ids.append(token)


def compare_with_transformers(folder, prompts, count):
    """Token streams may part only where the reference all but ties; returns (tokens compared, ties)."""
    transformers = pytest.importorskip("transformers")
    from tinyllm.model.weights import load_model

    ours = load_model(folder)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    compared = ties = 0
    for prompt in prompts:
        mine = list(generate(ours, prompt, SamplingParams(temperature=0, max_tokens=count)))
        ids = torch.tensor([prompt])  # with its mask: transformers would take a 0 in the prompt for padding
        reference = theirs.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=count, do_sample=False, pad_token_id=0
        )
        reference = reference[0, len(prompt) :].tolist()
        for place, (a, b) in enumerate(itertools.zip_longest(mine, reference)):
            compared += 1
            if a != b:
                with torch.no_grad():
                    top = theirs(torch.tensor([prompt + reference[:place]])).logits[0, -1].topk(2).values
                assert top[0] - top[1] < TIE, f"token {place} is {a}, transformers says {b}"
                ties += 1
                break
    return compared, ties


def test_greedy_tokens_are_those_of_transformers_on_a_random_model(tmp_path, tiny):
    from tinyllm.model.weights import save_model

    save_model(tiny, tmp_path)
    prompts = [[1], [5, 6, 7], list(range(30)), [96] * 10]
    compared, ties = compare_with_transformers(tmp_path, prompts, 24)
    assert compared > 80 and ties == 0


def test_greedy_tokens_are_those_of_transformers_on_fable():
    from tinyllm.model.hf_tokenizer import load_tokenizer
    from tinyllm.model.config_reader import resolve

    try:
        folder = resolve("fable")
        assert (folder / "model.safetensors").exists()
    except (ValueError, AssertionError):
        pytest.skip("the weights of fable are not there yet")
    encode = load_tokenizer(folder).encode
    prompts = [
        encode(text) for text in ("Once upon a time", "The king said", '"Who are you?" asked the', "I")
    ]
    compared, ties = compare_with_transformers(folder, prompts, 100)
    assert compared >= 100 and ties <= 1
