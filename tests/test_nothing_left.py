"""Where bans, minimum lengths and grammars meet: refused in advance, ended in time, or an error that says so."""

import json
from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("llguidance")

from test_fields import ENGINES, SIZES, grammar
from test_text import llama2

from tinyllm.engine.generate import generate
from tinyllm.engine.grammar import JsonGrammar
from tinyllm.engine.input_processor import bad_word_ids
from tinyllm.engine.params import NOTHING_LEFT, SamplingParams, StructuredOutputsParams
from tinyllm.llm import LLM
from tinyllm.model.config_reader import resolve
from tinyllm.model.hf_tokenizer import Tokenizer

PROMPT = "Once upon a time"
GREEDY = SamplingParams(temperature=0, max_tokens=12)
HAPPY = ("happy", "tiger", "garden", "morning", "dragon", "lovely", "friend", "castle", "window", "yellow")


@pytest.fixture(scope="module")
def llm():
    torch.set_num_threads(1)
    return LLM("fable", enforce_eager=True, **SIZES)


def say(llm, prompt=PROMPT, **wishes):
    return llm.generate(prompt, replace(GREEDY, **wishes), use_tqdm=False)[0].outputs[0]


@pytest.fixture(scope="module", params=["the reference", *ENGINES])
def any_llm(request, llm):
    return llm if request.param == "the reference" else ENGINES[request.param]()


class Shrinking:
    """A grammar whose choice becomes smaller, and after three tokens is none at all."""

    def __call__(self):
        return lambda said: np.arange(4096) < (4096, 400, 40, 0)[min(len(said), 3)]


class Fails:
    """A grammar that fails after two tokens."""

    def __init__(self, error):
        self.error = error

    def __call__(self):
        return self.mask

    def mask(self, said):
        if len(said) == 2:
            raise self.error
        return np.ones(4096, bool)


def test_an_answer_that_may_say_nothing_more_ends_with_an_error_and_its_neighbours_go_on(any_llm, llm):
    """For every sampler; greedy and not, with log-probabilities and without."""
    words = [{"grammar": Shrinking()}, {"grammar": Shrinking(), "logprobs": 2},
             {"grammar": Shrinking(), "temperature": 0.8, "seed": 5, "top_k": 20, "top_p": 0.9, "min_p": 0.01},
             {"grammar": Fails(ValueError("too hard"))}, {"grammar": Fails(RuntimeError("inside"))},
             {"allowed_token_ids": (50, 60), "bad_words": llm.tokenizer.decode([50])}]  # fmt: skip
    words[-1]["bad_words"] = [llm.tokenizer.decode([50])]
    params = [GREEDY, *(replace(GREEDY, **wish) for wish in words), GREEDY]
    first, *found, last = (o.outputs[0] for o in any_llm.generate([PROMPT] * len(params), params, use_tqdm=False))
    assert first.token_ids == last.token_ids == say(llm).token_ids
    for out in found[:3]:
        assert (len(out.token_ids), out.finish_reason, out.stop_reason) == (3, "error", NOTHING_LEFT)
        assert out.logprobs is None or len(out.logprobs) == 3
    for out, why in zip(found[3:5], ("too hard", "the grammar has failed"), strict=True):
        assert (len(out.token_ids), out.finish_reason, out.stop_reason) == (2, "error", why)
    pool = any_llm.core.scheduler.kv_cache_manager.block_pool
    assert pool.num_free_blocks == pool.num_blocks and not any_llm.engine.requests


def test_words_that_forbid_the_second_token_end_the_answer_before_it(any_llm):
    """Only 50 and 60 may come, never 60, and 50 never twice: seen only on the way."""
    one, other = (any_llm.tokenizer.decode([token]) for token in (50, 60))
    if any_llm.tokenizer.encode(one + one) != [50, 50]:
        pytest.skip("these two make another token")
    out = say(any_llm, allowed_token_ids=(50, 60), bad_words=(other, one + one))
    assert (out.token_ids, out.finish_reason, out.stop_reason) == ([50], "error", NOTHING_LEFT)


def test_the_naive_loop_raises_where_nothing_is_left(llm):
    loop = generate(llm.model, [5], replace(GREEDY, allowed_token_ids=(50,), bad_words=("x",)), bad_words=[[50, 50]])
    assert next(loop) == 50
    with pytest.raises(ValueError, match="no token may come next"):
        next(loop)


def test_a_finished_grammar_ends_though_more_tokens_were_wanted(any_llm):
    for wish in ({"min_tokens": 12}, {"ignore_eos": True}, {"min_tokens": 12, "ignore_eos": True}):
        out = say(any_llm, grammar=grammar(), **wish)
        assert json.loads(out.text) in ("king", "wolf") and out.finish_reason == "stop", wish


def test_min_tokens_holds_as_long_as_the_grammar_has_more_to_say(llm):
    config = llm.engine.config
    digits = JsonGrammar('{"type": "integer"}', str(resolve("fable")), config.vocab_size, config.eos_token_ids)
    wish = {"grammar": digits, "logit_bias": {config.eos_token_ids[0]: 100}}
    short, long = say(llm, **wish), say(llm, min_tokens=5, **wish)
    assert len(short.token_ids) < 5 <= len(long.token_ids) and long.finish_reason == "stop"
    assert isinstance(json.loads(long.text), int)


HOPELESS = [
    ({"allowed_token_ids": (50,), "bad_words": "50"}, "forbid all of allowed_token_ids"),
    ({"allowed_token_ids": (0,), "min_tokens": 2}, "forbid all of allowed_token_ids"),
    ({"allowed_token_ids": (7, 8), "stop_token_ids": (7, 8), "min_tokens": 2}, "forbid all of allowed_token_ids"),
    ({"allowed_token_ids": (50,), "grammar": True}, "forbid every token with which the grammar can begin"),
]


@pytest.mark.parametrize("wish, why", HOPELESS, ids=[str(list(wish)) for wish, _ in HOPELESS])
def test_what_can_never_come_is_refused_in_advance(llm, wish, why):
    if wish.get("bad_words") == "50":
        wish = wish | {"bad_words": (llm.tokenizer.decode([50]),)}
    if "grammar" in wish:
        wish = wish | {"grammar": grammar()}
    with pytest.raises(ValueError, match=why):
        say(llm, **wish)
    assert say(llm).token_ids


def test_a_bad_word_is_banned_after_a_space_too_however_many_tokens_that_takes(llm):
    tokenizer = llm.tokenizer
    lengths = set()
    for word in HAPPY:
        forms = [tokenizer.encode(space + word) for space in ("", " ")]
        assert bad_word_ids([word], tokenizer) == forms
        lengths.add(len(forms[0]) - len(forms[1]))
        ids = forms[1]
        favoured = dict.fromkeys(ids, 100.0)
        wish = {"logit_bias": favoured, "repetition_penalty": 3.0, "max_tokens": 4}
        loud, quiet = (say(llm, "The", **wish, bad_words=words) for words in ((), (word,)))
        assert any(loud.token_ids[i : i + len(ids)] == ids for i in range(4)) or len(ids) > 1
        assert not any(quiet.token_ids[i : i + len(ids)] == ids for i in range(4))
    assert lengths - {0}, "all of these words have as many tokens after a space: the test shows nothing"


def test_a_bad_word_is_banned_inside_a_text_too_where_words_begin_with_their_space():
    tokenizer = Tokenizer(llama2(), {})
    begin, inside = tokenizer.encode("king"), tokenizer.encode("\nking")[2:]
    assert begin != inside and tokenizer.decode([*tokenizer.encode("\n"), *inside]) == "\nking"
    assert all(form in bad_word_ids(["king"], tokenizer) for form in (begin, inside))


def test_a_bad_word_too_long_to_be_one_is_refused_before_the_table_of_bans_grows_for_everybody(llm):
    with pytest.raises(ValueError, match=r"bad_words has a text of 2\d\d tokens, 'never ever never eve'..., .* 64"):
        say(llm, bad_words=["garden", "never ever " * 100])
    assert say(llm, bad_words=["garden", "never ever " * 10]).token_ids


def test_of_several_ends_none_comes_before_what_must_keep_a_form_is_complete(llm):
    tokenizer = llm.tokenizer
    ends = (*llm.engine.config.eos_token_ids, *tokenizer.encode(" D"))  # to the library the second one is text
    assert len(ends) == 2
    mask, said = JsonGrammar('{"type": "string"}', str(resolve("fable")), 4096, ends)(), tokenizer.encode('"a"')
    for count in range(len(said) + 1):
        assert mask(said[:count])[list(ends)].tolist() == [count == len(said)] * 2


@pytest.mark.parametrize("prompt, why", [
    ({"prompt": "Once", "cache_salt": 5}, "cache_salt is 5 but must be a text"),
    ({"prompt": "Once", "cache_salt": "\ud800"}, "half of a surrogate pair"),
    ({"prompt_token_ids": [1.5, 2]}, "prompt_token_ids must be a list of whole numbers"),
    ({"prompt_token_ids": "Once"}, "prompt_token_ids must be a list of whole numbers"),
    ({"prompt_token_ids": 5}, "prompt_token_ids must be a list of whole numbers"),
])  # fmt: skip
def test_a_prompt_that_is_none_is_refused_at_the_gate_and_no_other_is_lost(llm, prompt, why):
    with pytest.raises(ValueError, match=why):
        llm.generate([PROMPT, prompt], GREEDY, use_tqdm=False)
    assert say(llm).token_ids


@pytest.mark.parametrize("count", [600, 900])
def test_a_schema_too_large_for_the_library_is_refused_and_never_looks_like_an_answer(llm, count):
    config = llm.engine.config
    schema = json.dumps({"type": "object", "properties": {f"p{i}": {"type": "string"} for i in range(count)}})
    wide = JsonGrammar(schema, str(resolve("fable")), config.vocab_size, config.eos_token_ids)
    with pytest.raises(ValueError, match=r"the JSON schema cannot be used: .*max is 2000"):
        wide.check()
    out = say(llm, grammar=wide)  # who has not checked is told on the way
    assert out.finish_reason == "error" and "too large to be followed any further" in out.stop_reason


FAR, NEAR, ALSO = {"multipleOf": 999983}, {"multipleOf": 997}, {"multipleOf": 991}


@pytest.mark.parametrize("form", [
    {"json": FAR}, {"json": {"items": {"anyOf": [FAR, {"type": "null"}]}}}, {"json": {"allOf": [NEAR, ALSO]}},
    {"json": NEAR | {"anyOf": [ALSO]}}, {"json": {"$defs": {"a": ALSO}, "$ref": "#/$defs/a"} | NEAR},
    {"json": {"properties": {f"k{i}": {"multipleOf": 9001 + i} for i in range(9)}}},
    {"grammar": "start: X\nX: %json " + json.dumps(FAR)}, {"grammar": 'start: %json{"multiple\\u004ff": 999983}'},
    {"grammar": 'start: %json {"multipleOf": 9999.91}'}], ids=str)  # fmt: skip
def test_a_table_of_remainders_that_would_stop_the_server_for_minutes_is_not_begun(llm, form, monkeypatch):
    def stop(grammar):
        pytest.fail("the library was asked")

    monkeypatch.setattr(JsonGrammar, "matcher", stop)
    with pytest.raises(ValueError, match="multipleOf have"):
        say(llm, structured_outputs=StructuredOutputsParams(**form))


@pytest.mark.parametrize("step", [True, "7", None, [7], -7, 0, 1e400, float("nan")])
def test_multiples_of_what_is_no_number_are_the_librarys_to_refuse(llm, step):
    try:
        say(llm, structured_outputs=StructuredOutputsParams(grammar="start: %json " + json.dumps({"multipleOf": step})))
    except ValueError as error:
        assert "cannot be used" in str(error)


@pytest.mark.parametrize("step", [0.01, 1000, 7, 1.5])
def test_ordinary_multiples_are_kept(llm, step):
    schema = {"type": "number", "multipleOf": step, "minimum": -10_000, "maximum": 10_000}
    both = {"type": "object", "properties": {"a": schema, "b": schema}, "required": ["a", "b"],
            "additionalProperties": False}  # fmt: skip
    form = StructuredOutputsParams(json=both)
    out = say(llm, n=3, temperature=1.0, seed=2, max_tokens=60, structured_outputs=form)
    for value in json.loads(out.text).values() if out.finish_reason == "stop" else ():
        assert abs(value / step - round(value / step)) < 1e-6


def test_a_grammar_lives_with_a_vocabulary_larger_or_smaller_than_the_tokenizers(llm):
    folder, end = str(resolve("fable")), llm.engine.config.eos_token_ids
    for size in (4096 + 64, 4096 - 64):
        mask = JsonGrammar('{"enum": ["king"]}', folder, size, (*end, size + 5))()
        said = llm.tokenizer.encode('"king"')
        allowed = [mask(said[:i]) for i in range(len(said) + 1)]
        assert all(len(line) == size for line in allowed) and np.flatnonzero(allowed[-1]).tolist() == list(end)
    with pytest.raises(ValueError, match="no end-of-sequence token"):
        JsonGrammar('{"enum": ["king"]}', folder, 4096, (5000,)).check()
