"""The front door: vLLM's names and shapes, in order, with clear refusals."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import subprocess
import sys

import pytest

torch = pytest.importorskip("torch")

import tinyllm
from tinyllm.engine.generate import generate
from tinyllm.engine.params import RequestOutputKind, SamplingParams
from tinyllm.llm import LLM

GREEDY = SamplingParams(temperature=0, max_tokens=12)


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def llm():
    return LLM("fable", max_model_len=128, max_num_seqs=4, num_gpu_blocks_override=40)


def idle(llm):
    pool = llm.core.scheduler.kv_cache_manager.block_pool
    return pool.num_free_blocks == pool.num_blocks and not llm.engine.requests and not llm.core.busy


def test_the_package_gives_it_away_lazily():
    assert tinyllm.LLM is LLM and tinyllm.SamplingParams is SamplingParams
    with pytest.raises(AttributeError, match="nothing"):
        tinyllm.nothing  # noqa: B018


def test_answers_come_in_the_order_of_the_prompts(llm):
    prompts = ["Once upon a time", "A", "The king said to the queen", "One day", "She", "There was a wolf"]
    params = [SamplingParams(temperature=0, max_tokens=20 - 3 * i) for i in range(6)]
    answers = llm.generate(prompts, params, use_tqdm=False)
    for prompt, wish, answer in zip(prompts, params, answers, strict=True):
        assert answer.prompt == prompt and answer.finished and len(answer.outputs) == 1
        assert answer.prompt_token_ids == llm.tokenizer.encode(prompt)
        assert answer.outputs[0].token_ids == list(generate(llm.model, answer.prompt_token_ids, wish))
    assert idle(llm)


def test_text_and_token_ids_are_two_ways_to_say_the_same(llm):
    text = llm.generate("Once upon a time", GREEDY, use_tqdm=False)[0]
    ids = llm.generate({"prompt_token_ids": llm.tokenizer.encode("Once upon a time")}, GREEDY, use_tqdm=False)[0]
    assert text.outputs == ids.outputs and ids.prompt is None


def test_the_token_that_ends_an_answer_is_not_in_its_text(llm):
    plain = llm.generate("Once upon a time", GREEDY, use_tqdm=False)[0].outputs[0]
    stop = plain.token_ids[5]
    wish = SamplingParams(temperature=0, max_tokens=12, stop_token_ids=[stop])
    short = llm.generate("Once upon a time", wish, use_tqdm=False)[0].outputs[0]
    end = plain.token_ids.index(stop)
    assert short.token_ids == plain.token_ids[: end + 1]
    assert (short.finish_reason, short.stop_reason) == ("stop", stop)
    assert short.text == llm.tokenizer.decode(plain.token_ids[:end])
    assert (plain.finish_reason, plain.stop_reason) == ("length", None)


def test_n_answers_differ_and_each_is_what_its_seed_says(llm):
    answer = llm.generate("Once upon a time", SamplingParams(n=3, seed=5, max_tokens=8), use_tqdm=False)[0]
    for i, one in enumerate(answer.outputs):
        assert one.index == i
        alone = SamplingParams(seed=5 + i, max_tokens=8)
        assert one.token_ids == list(generate(llm.model, answer.prompt_token_ids, alone))
    assert len({tuple(one.token_ids) for one in answer.outputs}) == 3


def test_a_stream_grows_to_what_generate_says(llm):
    whole = llm.generate("The king", GREEDY, use_tqdm=False)[0].outputs[0]
    seen = [output.outputs[0] for output in llm.stream("The king", GREEDY)]
    assert [len(one.token_ids) for one in seen] == list(range(1, 13))
    assert all(whole.text.startswith(one.text) for one in seen) and seen[-1] == whole


def test_leaving_a_stream_aborts_it(llm):
    stream = llm.stream("The king", GREEDY)
    next(stream)
    stream.close()
    assert idle(llm)


def test_abort_ends_a_stream_with_what_it_has(llm):
    outputs = []
    for output in llm.stream("The king", GREEDY):
        outputs.append(output)
        if len(outputs) == 3:
            llm.abort(output.request_id)
    assert outputs[-1].finished and outputs[-1].outputs[0].finish_reason == "abort"
    assert len(outputs[-1].outputs[0].token_ids) == 3 and idle(llm)


def test_two_streams_in_turn(llm):
    alone = [llm.generate(p, GREEDY, use_tqdm=False)[0].outputs[0] for p in ("The king", "A wolf")]
    woven = list(zip(llm.stream("The king", GREEDY), llm.stream("A wolf", GREEDY), strict=False))
    assert woven[-1][0].outputs[0].text == alone[0].text
    assert alone[1].text.startswith(woven[-1][1].outputs[0].text)


def test_chat_goes_through_the_template(llm):
    talk = [{"role": "user", "content": "Once upon a time"}]
    answer = llm.chat(talk, GREEDY, use_tqdm=False)[0]
    assert answer.prompt == llm.tokenizer.apply_chat_template(talk)


@pytest.mark.parametrize("messages", [
    None, "hi", {"role": "user", "content": "hi"}, [{"role": "user", "content": "hi"}, "hi"], ["hi"], 5,
    [[{"role": "user", "content": "hi"}], "hi"], [[{"role": "user", "content": "hi"}], [5]]], ids=str)  # fmt: skip
def test_what_is_no_conversation_is_refused_with_the_form_of_one(llm, messages):
    with pytest.raises(ValueError, match="'role': 'user'"):
        llm.chat(messages, GREEDY, use_tqdm=False)
    assert llm.chat([], GREEDY, use_tqdm=False) == []


def test_token_ids_are_a_prompt_as_they_are(llm):
    want = llm.generate({"prompt_token_ids": [5, 6]}, GREEDY, use_tqdm=False)[0]
    for prompts in ([5, 6], [[5, 6]], [(5, 6)], ["The king", [5, 6]]):
        got = llm.generate(prompts, GREEDY, use_tqdm=False)[-1]
        assert got.prompt_token_ids == [5, 6] and got.outputs[0].token_ids == want.outputs[0].token_ids
    for wrong in ([5, "a"], [["a"]], [5.0], [[5], None]):
        with pytest.raises(ValueError, match="token"):
            llm.generate(wrong, GREEDY, use_tqdm=False)


@pytest.mark.parametrize("wrong", ["x", 1.5, None])
def test_a_priority_that_cannot_be_compared_is_refused_before_it_meets_others(llm, wrong):
    with pytest.raises(TypeError, match="priority is"):
        llm.generate(["The king", "A wolf"], GREEDY, use_tqdm=False, priority=[1, wrong])
    assert idle(llm)


def test_no_tokenizer_is_needed_for_token_ids():
    llm = LLM("fable", skip_tokenizer_init=True, max_model_len=64, num_gpu_blocks_override=8)
    answer = llm.generate({"prompt_token_ids": [5, 6, 7]}, GREEDY, use_tqdm=False)[0].outputs[0]
    assert len(answer.token_ids) == 12 and answer.text == ""
    with pytest.raises(ValueError, match="no tokenizer"):
        llm.generate("text", GREEDY, use_tqdm=False)


@pytest.mark.parametrize(
    "prompt, wish, words",
    [
        ("", {}, "empty"),
        ({"prompt_token_ids": [4096]}, {}, "vocabulary"),
        ({"prompt_token_ids": [1] * 128}, {}, "shorten"),
        ({"prompt_token_ids": [1] * 100}, {"max_tokens": 29}, "at most 28"),
        ({"prompt_ids": [1]}, {}, "known are"),
        (7, {}, "give text"),
    ],
)
def test_a_prompt_that_cannot_run_is_refused_and_nothing_starts(llm, prompt, wish, words):
    with pytest.raises(ValueError, match=words):
        llm.generate(["Once", prompt] if prompt else ["Once", ""], SamplingParams(**wish), use_tqdm=False)
    assert idle(llm)


def test_a_prompt_too_large_for_the_cache_is_refused_and_nothing_starts():
    llm = LLM("fable", max_model_len=128, max_num_seqs=4, num_gpu_blocks_override=4)
    with pytest.raises(ValueError, match="room for 64"):
        llm.generate(["Once", {"prompt_token_ids": [1] * 60}], SamplingParams(max_tokens=6), use_tqdm=False)
    assert idle(llm)


def test_options_are_known_or_refused():
    with pytest.raises(TypeError, match=r"unknown option max_sequences .*max_num_seqs"):
        LLM("fable", max_sequences=3)
    with pytest.raises(ValueError, match="max_model_len is 4,096"):
        LLM("fable", max_model_len=4096)


@pytest.mark.parametrize("options, words", [
    ({"device": "tpu"}, "device is 'tpu' but must be"),
    ({"tensor_parallel_size": 3}, "tensor_parallel_size is 3 .* choose a size that does"),
    ({"pipeline_parallel_size": 90}, "pipeline_parallel_size is 90 .* choose at most 8"),
    ({"data_parallel_size": 2, "tensor_parallel_size": 3}, "tensor_parallel_size is 3"),
])  # fmt: skip
def test_what_cannot_be_is_refused_before_a_process_is_started(options, words, monkeypatch):
    monkeypatch.setattr("tinyllm.parallel.executors.start_process", None)
    with pytest.raises(ValueError, match=words):
        LLM("fable", **options)


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_a_gpu_that_is_not_there_is_refused_by_name():
    with pytest.raises(ValueError, match="device is 'cuda' but torch finds no GPU here"):
        LLM("fable", device="cuda")


@pytest.mark.parametrize("words, ask", [
    ("prompts is NoneType", lambda llm: llm.generate(None)),
    ("prompts is int", lambda llm: llm.generate(5)),
    ("sampling_params has a dict", lambda llm: llm.generate("Once", {"max_tokens": 3})),
    ("sampling_params has a int", lambda llm: list(llm.stream("Once", 3))),
])  # fmt: skip
def test_something_else_than_a_prompt_or_parameters_is_named(llm, words, ask):
    with pytest.raises(TypeError, match=words):
        ask(llm)
    assert idle(llm)


def test_dummy_weights_are_the_same_each_time_for_a_seed():
    first, second = (
        LLM("fable", load_format="dummy", seed=3, max_model_len=64, num_gpu_blocks_override=8).generate(
            "Once", GREEDY, use_tqdm=False
        )[0].outputs[0].token_ids
        for _ in range(2)
    )  # fmt: skip
    assert first == second


def test_a_list_of_parameters_must_fit(llm):
    with pytest.raises(ValueError, match="1 entries for 2 prompts"):
        llm.generate(["a", "b"], [GREEDY], use_tqdm=False)


def say(llm, prompt="Once upon a time", **wishes):
    return llm.generate(prompt, SamplingParams(**{"temperature": 0, "max_tokens": 24, **wishes}), use_tqdm=False)[0]


@pytest.mark.parametrize("depth", [0, 1])
def test_a_stop_text_ends_the_answer_before_it_however_it_is_cut_into_tokens(depth):
    llm = LLM("fable", max_model_len=128, max_num_seqs=4, num_gpu_blocks_override=40, async_scheduling=bool(depth))
    whole = say(llm).outputs[0]
    for start in range(3, len(whole.text) - 6, 7):
        stop = whole.text[start : start + 5]
        cut = say(llm, stop=["never said", stop]).outputs[0]
        place = whole.text.index(stop)
        assert cut.text == whole.text[:place] and cut.finish_reason == "stop" and cut.stop_reason == stop
        assert cut.token_ids == whole.token_ids[: len(cut.token_ids)]
        assert stop in llm.tokenizer.decode(cut.token_ids) and stop not in llm.tokenizer.decode(cut.token_ids[:-1])
        kept = say(llm, stop=stop, include_stop_str_in_output=True).outputs[0]
        assert kept.text == whole.text[: place + len(stop)] and kept.token_ids == cut.token_ids
    assert idle(llm) and not llm.engine.with_stop_texts


def test_a_stream_never_shows_what_may_be_the_beginning_of_a_stop_text(llm):
    whole = say(llm).outputs[0].text
    stop = whole[20:30]
    shown = [
        o.outputs[0] for o in llm.stream("Once upon a time", SamplingParams(temperature=0, max_tokens=24, stop=stop))
    ]
    assert all(whole[:20].startswith(answer.text) for answer in shown) and shown[-1].text == whole[:20]
    almost = stop[:-1] + "%"  # held back in vain
    shown = [
        o.outputs[0].text
        for o in llm.stream("Once upon a time", SamplingParams(temperature=0, max_tokens=24, stop=almost))
    ]
    assert shown[-1] == whole and all(whole.startswith(text) for text in shown)


def test_a_long_stop_text_holds_back_all_of_a_short_text(llm):
    wish = SamplingParams(temperature=0, max_tokens=10, stop="x" * 12)
    shown = [output.outputs[0].text for output in llm.stream("Once upon a time", wish)]
    assert shown[0] == "" and all(shown[-1].startswith(text) for text in shown)
    assert shown[:-1] == sorted(shown[:-1], key=len), "what was shown is taken back"


def test_a_stop_text_does_not_count_before_min_tokens(llm):
    whole = say(llm).outputs[0]
    stop = llm.tokenizer.decode(whole.token_ids[2:4])
    assert len(say(llm, stop=stop).outputs[0].token_ids) == 4
    assert say(llm, stop=stop, min_tokens=4).outputs[0].text != say(llm, stop=stop).outputs[0].text


def test_an_ending_token_may_stay_in_the_text(llm):
    plain = say(llm).outputs[0]
    stop = plain.token_ids[5]
    kept = say(llm, stop_token_ids=[stop], include_stop_str_in_output=True).outputs[0]
    assert kept.text == llm.tokenizer.decode(kept.token_ids) and kept.stop_reason == stop


def test_a_stream_of_differences_joins_to_the_whole(llm):
    wish = {"temperature": 0, "max_tokens": 24, "logprobs": 1, "stop": "%%%%"}
    whole = say(llm, **wish).outputs[0]
    parts = [
        o.outputs[0]
        for o in llm.stream("Once upon a time", SamplingParams(**wish, output_kind=RequestOutputKind.DELTA))
    ]
    assert "".join(p.text for p in parts) == whole.text and [t for p in parts for t in p.token_ids] == whole.token_ids
    assert [e for p in parts for e in p.logprobs] == whole.logprobs and len(parts) == 24
    wish |= {"output_kind": RequestOutputKind.FINAL_ONLY}
    assert [o.outputs[0] for o in llm.stream("Once upon a time", SamplingParams(**wish))] == [whole]


def test_logprobs_have_vllms_shape(llm):
    answer = say(llm, logprobs=2, prompt_logprobs=1)
    out, prompt = answer.outputs[0], answer.prompt_token_ids
    assert len(out.logprobs) == len(out.token_ids) and answer.prompt_logprobs[0] is None
    assert len(answer.prompt_logprobs) == len(prompt)
    for token, entry in zip(out.token_ids, out.logprobs, strict=True):
        assert next(iter(entry)) == token and entry[token].rank == 1 and len(entry) == 2  # greedy: the likeliest
        assert [e.rank for e in entry.values()] == [1, 2] and entry[token].decoded_token == llm.tokenizer.decode(
            [token]
        )
    for token, entry in zip(prompt[1:], answer.prompt_logprobs[1:], strict=True):
        assert next(iter(entry)) == token and 1 in [e.rank for e in entry.values()]
    assert out.cumulative_logprob == pytest.approx(
        sum(e[t].logprob for t, e in zip(out.token_ids, out.logprobs, strict=True))
    )
    assert say(llm).outputs[0].logprobs is None and say(llm).prompt_logprobs is None


def test_prompt_logprobs_do_not_read_the_prefix_cache_but_fill_it(llm):
    prompt = "The old king said to the young queen that he would not go into the dark forest again, and she wept."
    first = say(llm, prompt, prompt_logprobs=0)
    assert first.num_cached_tokens == 0
    assert say(llm, prompt).num_cached_tokens > 0
    again = say(llm, prompt, prompt_logprobs=0, n=1)
    assert again.num_cached_tokens == 0 and again.prompt_logprobs == first.prompt_logprobs
    three = say(llm, prompt, prompt_logprobs=0, n=3, temperature=1, seed=1)
    assert three.prompt_logprobs == first.prompt_logprobs


def test_bad_words_never_come_with_or_without_a_space_before_them(llm):
    words = [w for w in ("he", "and", "his", "that") if len(llm.tokenizer.encode(w)) == 1]
    banned = {i for word in words for space in ("", " ") for i in llm.tokenizer.encode(space + word)}
    assert len(banned) == 2 * len(words) > 0  # each is one token, with a space and without
    assert banned & set(say(llm).outputs[0].token_ids)
    assert not banned & set(say(llm, bad_words=words).outputs[0].token_ids)


def test_a_long_bad_word_is_refused_before_it_is_encoded(llm, monkeypatch):
    """The engine encodes bad words between two steps: a text of megabytes would hold up all requests."""
    sizes, encode = [], llm.tokenizer.encode
    monkeypatch.setattr(llm.tokenizer, "encode", lambda text, *rest, **more: sizes.append(len(text)) or encode(
        text, *rest, **more))  # fmt: skip
    with pytest.raises(ValueError, match=r"bad_words has a text of 300,000 characters, 'ab ab .*at most 4,096"):
        say(llm, bad_words=["wolf", "ab " * 100_000])
    with pytest.raises(ValueError, match=r"bad_words has a text of [\d,]+ tokens, .*at most 64"):
        say(llm, bad_words=["ab " * 1000])
    assert max(sizes) < 5000


def test_characters_are_whole_in_every_piece_of_a_stream(llm):
    ids = llm.tokenizer.encode("é✨日", add_special_tokens=False)

    def spell():
        return lambda said: np.arange(llm.model.config.vocab_size) == ids[len(said) % len(ids)]

    wish = SamplingParams(temperature=0, max_tokens=2 * len(ids), grammar=spell, output_kind=RequestOutputKind.DELTA)
    pieces = [o.outputs[0].text for o in llm.stream("A", wish)]
    assert "".join(pieces) == "é✨日é✨日"


@pytest.mark.parametrize(
    "wish, words",
    [
        ({"logprobs": 21}, "max_logprobs is 20"),
        ({"prompt_logprobs": -1}, "max_logprobs is 20"),
        ({"allowed_token_ids": [4096]}, "4,096 tokens"),
        ({"logit_bias": {5000: 1.0}}, "token id of logit_bias 5000"),
    ],
)
def test_a_wish_beyond_the_model_or_the_engine_is_refused(llm, wish, words):
    with pytest.raises(ValueError, match=words):
        llm.generate("Once", SamplingParams(**wish), use_tqdm=False)
    assert idle(llm)


def test_texts_need_a_tokenizer():
    blind = LLM("fable", max_model_len=64, max_num_seqs=1, num_gpu_blocks_override=8, skip_tokenizer_init=True)
    for wish in ({"stop": "x"}, {"bad_words": ["x"]}):
        with pytest.raises(ValueError, match="no tokenizer"):
            blind.generate({"prompt_token_ids": [5]}, SamplingParams(**wish), use_tqdm=False)
    out = blind.generate({"prompt_token_ids": [5]}, SamplingParams(logprobs=1), use_tqdm=False)[0].outputs[0]
    assert out.text == "" and all(e.decoded_token is None for entry in out.logprobs for e in entry.values())


def test_a_stream_left_at_any_step_leaves_no_trace(llm):
    wish = SamplingParams(temperature=0, max_tokens=6, stop="%%%%", logprobs=1, repetition_penalty=1.2)
    prompt = "The old king said to the young queen that he would not go into the forest"
    whole = [o.outputs[0].token_ids for o in llm.stream(prompt, wish)]
    for steps in range(7):
        stream = llm.stream(prompt, wish)
        for _ in range(steps):
            next(stream)
        if steps == 3:
            assert llm.engine.with_stop_texts
        stream.close()
        assert idle(llm) and not llm.engine.with_stop_texts
    assert [o.outputs[0].token_ids for o in llm.stream(prompt, wish)] == whole


def test_one_block_of_one_token_is_enough_for_one_token():
    tiny = LLM("fable", block_size=1, num_gpu_blocks_override=1, max_num_seqs=3, max_model_len=64)
    wide = LLM("fable", block_size=64, num_gpu_blocks_override=1, max_num_seqs=3, max_model_len=64)
    one = SamplingParams(temperature=0, max_tokens=1, logprobs=1, prompt_logprobs=1)
    prompts = [{"prompt_token_ids": [5 + i]} for i in range(4)]
    for a, b in zip(tiny.generate(prompts, one, False), wide.generate(prompts, one, False), strict=True):
        assert a.outputs[0].token_ids == b.outputs[0].token_ids and a.prompt_logprobs == b.prompt_logprobs == [None]
    with pytest.raises(ValueError, match="whole KV cache has room for 1"):
        tiny.generate({"prompt_token_ids": [5, 6]}, one, False)
    ten = SamplingParams(temperature=0, max_tokens=10)
    assert [len(a.outputs[0].token_ids) for a in wide.generate(prompts, ten, False)] == [10] * 4


def test_no_tokens_cannot_be_asked_for():
    with pytest.raises(ValueError, match="max_tokens is 0 but must be at least 1"):
        SamplingParams(max_tokens=0)


def interrupt(monkeypatch, executor, name, call, after):
    """Let the executor's `call`-th `name` from now on end with KeyboardInterrupt, before or after it has worked."""
    work, calls = getattr(executor, name), iter(range(1000))

    def cut_off(*rest):
        if next(calls) != call:
            return work(*rest)
        if after:
            work(*rest)
        raise KeyboardInterrupt

    monkeypatch.setattr(executor, name, cut_off)


OPTIONS = [{}, {"async_scheduling": True}, {"speculative_config": {"method": "ngram", "adaptive": False}},
           {"speculative_config": {"model": "fable-draft", "adaptive": False}}]  # fmt: skip


@pytest.mark.parametrize("options", OPTIONS, ids=["plain", "overlap", "ngram", "draft"])
def test_what_a_cut_off_step_has_not_computed_is_not_found_in_the_cache(options, monkeypatch):
    llm = LLM(
        "fable", max_model_len=96, max_num_seqs=3, num_gpu_blocks_override=30, max_num_batched_tokens=40, **options
    )
    wish, draw = SamplingParams(temperature=0, max_tokens=9, logprobs=0), np.random.default_rng(5)
    told = SamplingParams(seed=3, max_tokens=30, top_k=50, ignore_eos=True, logprobs=0)
    alone = llm.generate("The old king", told, use_tqdm=False)[0].outputs[0]
    for name in ("submit", "collect"):
        for call in range(4):
            for after in (False, True):
                prompts = [{"prompt_token_ids": ids} for ids in draw.integers(5, 4000, (2, 60)).tolist()]
                other = llm.stream("The old king", told)
                next(other)
                with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
                    interrupt(patch, llm.core.executor, name, call, after)
                    llm.generate(prompts, wish, use_tqdm=False)
                again = llm.generate(prompts, wish, use_tqdm=False)
                fresh = llm.generate([one | {"cache_salt": "fresh"} for one in prompts], wish, use_tqdm=False)
                assert [a.outputs[0].token_ids for a in again] == [a.outputs[0].token_ids for a in fresh]
                *_, last = other  # it went on, and nothing of it is lost
                assert last.outputs[0].token_ids == alone.token_ids and len(last.outputs[0].logprobs) == 30
                assert idle(llm)


def test_a_stream_that_nobody_reads_leaves_no_trace(llm):
    stream = llm.stream("The king", SamplingParams(stop="%%%%"))
    assert llm.engine.requests
    del stream
    assert idle(llm) and not llm.engine.with_stop_texts


def test_threads_may_share_an_engine(llm):
    prompts = ["The king", "A wolf", "She", "One day", "It was", "He"]
    want = {p: llm.generate(p, GREEDY, use_tqdm=False)[0].outputs[0].token_ids for p in prompts}

    def ask(i):
        prompt = prompts[i % len(prompts)]
        if i % 3:
            return llm.generate(prompt, GREEDY, use_tqdm=False)[0].outputs[0].token_ids == want[prompt]
        return [output.outputs[0].token_ids for output in llm.stream(prompt, GREEDY)][-1] == want[prompt]

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(ask, range(36), timeout=60))
    assert idle(llm)


def test_a_start_does_not_wait_for_torchs_compiler(root):
    """It takes a second to import, and is asked for by small things: a range on the meta device, `to_empty`."""
    code = """
import sys, torch
from tinyllm.llm import LLM
from tinyllm.model.config_reader import read_config
from tinyllm.model.weights import empty_model
empty_model(read_config("book/measurements/configs/Llama-3.1-8B"), torch.bfloat16)  # scaled angles
LLM("fable", device="cpu").generate("Once", use_tqdm=False)
print(sorted({"torch._dynamo", "sympy", "torch.fx.experimental.symbolic_shapes", "transformers"} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=root, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
