"""The front door: vLLM's names and shapes, in order, with clear refusals."""

import pytest

torch = pytest.importorskip("torch")

import tinyllm
from tinyllm.engine.generate import generate
from tinyllm.engine.params import SamplingParams
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
    pool = llm.core.scheduler.home.pool
    return len(pool.idle) == pool.num_blocks and not llm.engine.jobs and not llm.core.busy


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
