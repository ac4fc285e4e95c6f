"""Checkpoints read whole, and clients as they are: what people and their programs really send."""

import json
import shutil

import pytest

torch = pytest.importorskip("torch")

from tinybook import tale
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from tinyllm.engine.params import SamplingParams, StructuredOutputsParams
from tinyllm.llm import LLM
from tinyllm.model.config_reader import read_config, resolve
from tinyllm.model.hf_tokenizer import load_tokenizer
from tinyllm.model.transformer import ModelConfig, Transformer
from tinyllm.model.weights import save_model

SMALL = {"max_num_seqs": 4, "max_model_len": 256, "num_gpu_blocks_override": 100}
# in the manner of chat models: marks around turns, a name in some, thoughts, and a part for training
TEMPLATE = """{%- if tools %}Functions: {{ tools | tojson }} by <tool_call> with arguments
{% endif %}
{%- for m in messages %}<|{{ m.role }}|>{{ m.content }}
{%- for call in m.tool_calls or [] %}<tool_call>
{"name": "{{ call.function.name }}", "arguments": {{ call.function.arguments | tojson }}}
</tool_call>{% endfor %}{{ eos_token }}
{% endfor %}
{%- if add_generation_prompt %}<|assistant|>{% endif %}"""


def copy_model(folder, template=None, drop=(), **tokens):
    """Fable in a folder of its own, with another template and other special tokens."""
    for file in resolve("fable").glob("*.json"):
        shutil.copy(file, folder)
    (folder / "model.safetensors").symlink_to(resolve("fable") / "model.safetensors")
    file = folder / "tokenizer_config.json"
    config = json.loads(file.read_text()) | tokens | ({"chat_template": template} if template else {})
    file.write_text(json.dumps({key: value for key, value in config.items() if key not in drop}))
    return folder


def said(llm, prompt, params=None):
    return llm.generate(prompt, params, use_tqdm=False)[0].outputs[0]


# ---- checkpoints


@pytest.mark.parametrize("where", ["tokenizer.json", "added_tokens_decoder"])
def test_the_end_token_of_the_tokenizers_configuration_ends_a_text(tmp_path, where):
    copy_model(tmp_path, eos_token={"content": "Ġking"})
    comma = load_tokenizer(tmp_path).encode(" king")[0]
    if where == "added_tokens_decoder":
        copy = json.loads((tmp_path / "tokenizer_config.json").read_text())
        copy["added_tokens_decoder"] = {str(comma): {"content": "Ġking"}}
        (tmp_path / "tokenizer_config.json").write_text(json.dumps(copy))
    assert read_config(tmp_path).eos_token_ids == (0, comma)
    answer = said(LLM(tmp_path, **SMALL), "Once upon a time there lived a", SamplingParams(
        max_tokens=5, logit_bias={comma: 100}))  # fmt: skip
    assert (answer.token_ids, answer.finish_reason, answer.text) == ([comma], "stop", "")


TURNS = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Who is there? "},
         {"role": "assistant", "content": "A wolf"}]  # fmt: skip
ROWS = "{% for m in messages %}[{{ m.role }}] {{ m.content }}{{ eos_token }}\n{% endfor %}"
TEMPLATES = {
    "special tokens": "{{ bos_token }}{{ pad_token }}{{ unk_token }}{{ image_token }}" + ROWS,
    "no tools": "{{ tools is none }} {{ documents is none }}" + ROWS,
    "training": "{% for m in messages %}{% generation %}{{ m.content }}{{ eos_token }}{% endgeneration %}{% endfor %}",
    "trimmed": "{% for m in messages %}<{{ m.role }}>{{ m.content | trim }}</s>{% endfor %}",
    "variables": "{{ enable_thinking }} {{ style | tojson }}" + ROWS + "{% if add_generation_prompt %}bot:{% endif %}",
}


@pytest.mark.parametrize("template", TEMPLATES.values(), ids=TEMPLATES)
def test_templates_say_what_they_say_in_transformers(tmp_path, template):
    from transformers import AutoTokenizer

    tokens = {"pad_token": "<pad>", "unk_token": {"content": "<unk>", "__type": "AddedToken"}, "bos_token": "<s>",
              "extra_special_tokens": {"image_token": "<image>"}}  # fmt: skip
    copy_model(tmp_path, template, **tokens)
    ours, theirs = load_tokenizer(tmp_path), AutoTokenizer.from_pretrained(tmp_path)
    more = {"enable_thinking": False, "style": {"é": [1, "<"]}}
    for turns in (TURNS, TURNS[:2]):
        for how in ({"add_generation_prompt": True}, {"continue_final_message": True},
                    {"add_generation_prompt": False}):  # fmt: skip
            want = theirs.apply_chat_template(turns, tokenize=False, **how, **more)
            assert ours.apply_chat_template(turns, **how, **more) == want


def test_messages_come_in_every_form_that_clients_write(tmp_path):
    tokenizer = load_tokenizer(copy_model(tmp_path, TEMPLATE))
    fill = tokenizer.apply_chat_template
    parts = [{"type": "text", "text": "Once"}, {"type": "input_text", "text": "more"}, "of",
             {"type": "output_text", "text": "it", "annotations": []}, {"type": "thinking", "thinking": "Hm"},
             {"type": "refusal", "refusal": "No"}]  # fmt: skip
    lines = "Once\nmore\nof\nit\nHm\nNo"  # as vLLM joins them
    assert fill([{"role": "user", "content": parts}]) == fill([{"role": "user", "content": lines}])
    for wrong in ({"type": ["text"], "text": "A"}, {"type": "text"}, {"text": "A"}, {"type": "input_audio"}):
        with pytest.raises(ValueError, match="a part of type"):
            fill([{"role": "user", "content": [wrong]}])
    assert fill([{"role": "developer", "content": "A"}]) == fill([{"role": "system", "content": "A"}])
    with pytest.raises(ValueError, match="image_url"):
        fill([{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}])
    for arguments, shown in (('{"a": 1}', '{"a": 1}'), ("", "{}"), (None, "{}"), ({"a": 1}, '{"a": 1}'),
                             ('{"a": "th', json.dumps('{"a": "th')), ("[" * 100_000, json.dumps("[" * 100_000)),
                             ("[1]", '"[1]"')):  # fmt: skip
        call = {"id": "1", "type": "function", "function": {"name": "now", "arguments": arguments}}
        turn = {"role": "assistant", "content": None, "tool_calls": [call]}
        assert f'"arguments": {shown}}}' in fill([turn])
        items = "{% for m in messages %}{% for c in m.tool_calls %}{% for k, v in c.function.arguments | items %}" \
                "{{ k }}{% endfor %}.{% endfor %}{% endfor %}"  # fmt: skip
        assert fill([turn], chat_template=items) == ("a." if '"a": 1' in shown else ".")  # needs an object


def test_a_template_that_fails_says_so_whatever_it_raises(tmp_path):
    tokenizer = load_tokenizer(copy_model(tmp_path, "{{ messages[0].content + 1 }}"))
    with pytest.raises(ValueError, match="chat template refuses"):
        tokenizer.apply_chat_template(TURNS)
    with pytest.raises(ValueError, match="continue_final_message"):
        tokenizer.apply_chat_template(TURNS, continue_final_message=True, chat_template="nothing")


def test_conversations_offline_are_written_as_the_template_wants_them(tmp_path):
    llm = LLM(copy_model(tmp_path, TEMPLATE), **SMALL)
    greedy = SamplingParams(temperature=0, max_tokens=4)
    talk = [{"role": "user", "content": [{"type": "text", "text": "Who"}]}, {"role": "assistant", "content": "A "}]
    answer = llm.chat(talk, greedy, False, continue_final_message=True)[0]
    assert answer.prompt == "<|user|>Who<|endoftext|>\n<|assistant|>A "
    tool = {"type": "function", "function": {"name": "now"}}
    answer = llm.chat(talk[:1], greedy, False, tools=[tool], chat_template_kwargs={"eos_token": "!"})[0]
    shown = f"Functions: {json.dumps([tool])} by <tool_call> with arguments\n"
    assert answer.prompt == shown + "<|user|>Who!\n<|assistant|>"


def test_the_makers_sampling_is_used_and_can_be_switched_off(tmp_path):
    copy_model(tmp_path)
    file = tmp_path / "generation_config.json"
    wanted = {"temperature": 0.7, "top_k": 1, "top_p": 0.9, "min_p": None, "repetition_penalty": 1.3,
              "max_new_tokens": 7, "do_sample": True, "eos_token_id": [0]}  # fmt: skip
    file.write_text(json.dumps(wanted))
    llm = LLM(tmp_path, **SMALL)
    same = SamplingParams(temperature=0.7, top_k=1, top_p=0.9, repetition_penalty=1.3, max_tokens=7)
    assert llm.get_default_sampling_params() == same
    answer = said(llm, "Once upon a time")
    assert answer.token_ids == said(llm, "Once upon a time", same).token_ids and len(answer.token_ids) == 7
    assert list(llm.stream("Once upon a time"))[-1].outputs[0].token_ids == answer.token_ids
    assert said(llm, "Once", SamplingParams()).finish_reason and len(said(llm, "A", SamplingParams()).token_ids) == 16
    assert said(llm, {"prompt_token_ids": [9] * 253}).finish_reason == "length"  # seven do not fit: three then
    assert LLM(tmp_path, generation_config="vllm", **SMALL).get_default_sampling_params() == SamplingParams()
    other = LLM("fable", generation_config=str(tmp_path), **SMALL)
    assert other.get_default_sampling_params() == same
    file.write_text('{"temperature": -1}')
    with pytest.raises(ValueError, match=r"generation_config.json.*temperature.*generation_config='vllm'"):
        LLM(tmp_path, **SMALL)


FORMS = {"json": {"type": "object", "properties": {"old": {"type": "boolean"}}, "required": ["old"],
                  "additionalProperties": False},
         "regex": "[0-9]{3}-(wolf|king)", "choice": ["a wolf", "the \"old\" king", "né"],
         "grammar": 'root ::= "It was " ("a wolf" | "a king")', "json_object": True}  # fmt: skip


@pytest.fixture(scope="module")
def fable():
    return LLM("fable", **SMALL)


@pytest.mark.parametrize("kind", FORMS)
def test_answers_keep_to_the_form_offline(fable, kind):
    import re

    form = StructuredOutputsParams(**{kind: FORMS[kind]})
    params = SamplingParams(seed=3, max_tokens=60, structured_outputs=form, n=2)
    for answer in fable.generate("Who was it?", params, use_tqdm=False)[0].outputs:
        fits = {"json": lambda text: isinstance(json.loads(text)["old"], bool), "choice": FORMS["choice"].__contains__,
                "regex": lambda text: re.fullmatch(FORMS["regex"], text), "json_object": lambda text: text[0] == "{",
                "grammar": lambda text: text in ("It was a wolf", "It was a king")}  # fmt: skip
        assert fits[kind](answer.text), answer.text
        assert answer.finish_reason == "stop" or kind == "json_object"


@pytest.mark.parametrize("unigram", [True, False])
def test_a_form_is_kept_with_a_vocabulary_that_marks_spaces(tmp_path, unigram):
    tokenizer = Tokenizer(models.Unigram() if unigram else models.BPE(unk_token="<unk>", byte_fallback=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Metaspace(), decoders.Fuse()])
    marks = ["<unk>", "</s>", *(f"<0x{b:02X}>" for b in range(256))]
    options = {"vocab_size": 500, "special_tokens": marks, "show_progress": False}
    trainer = (trainers.UnigramTrainer(unk_token="<unk>", **options) if unigram else trainers.BpeTrainer(**options))
    tokenizer.train_from_iterator([tale(), '"a wolf, the king"'], trainer)
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "tokenizer_config.json").write_text('{"eos_token": "</s>"}')
    size = tokenizer.get_vocab_size()
    shape = dict(hidden_size=32, intermediate_size=32, num_hidden_layers=1, head_dim=16, max_position_embeddings=128)
    config = ModelConfig(size, num_attention_heads=2, num_key_value_heads=1, eos_token_ids=(1,), **shape)
    save_model(Transformer(config), tmp_path)
    llm, schema = LLM(str(tmp_path), num_gpu_blocks_override=64), {"enum": ["a wolf", "the king"]}
    for form, fits in (({"choice": schema["enum"]}, schema["enum"]), ({"json": schema}, ['"a wolf"', '"the king"'])):
        params = SamplingParams(n=4, temperature=2.0, seed=1, max_tokens=40,
                                structured_outputs=StructuredOutputsParams(**form))
        for answer in llm.generate("the king", params, use_tqdm=False)[0].outputs:
            assert answer.text in fits and answer.finish_reason == "stop", answer


def test_a_grammar_is_compiled_once_for_all_answers_and_each_follows_it_by_itself(fable, monkeypatch):
    from tinyllm.engine.grammar import JsonGrammar

    made, matcher = [], JsonGrammar.matcher
    monkeypatch.setattr(JsonGrammar, "matcher", lambda self: made.append(self) or matcher(self))
    texts = [f"{a} {b} {c}" for a in ("one", "two") for b in ("old", "grey") for c in ("wolf", "king")]
    params = SamplingParams(n=8, seed=1, max_tokens=30, temperature=2, structured_outputs={"choice": texts})
    answers = fable.generate("Who was it?", params, use_tqdm=False)[0].outputs
    assert len(made) == 2, "one is checked, and one is followed"
    assert {one.text for one in answers} <= set(texts) and len({one.text for one in answers}) > 2


def test_a_form_that_is_none_is_refused_and_hurts_nobody(fable):
    wrong = [({"regex": "[("}, "regex"), ({"grammar": "x ::="}, "root"), ({"json": {"type": "foo"}}, "foo"),
             ({"json": "{"}, "no JSON"), ({"choice": []}, "empty"), ({}, "exactly one"),
             ({"regex": "a", "json_object": True}, "exactly one"), ({"structural_tag": "x"}, "structural_tag"),
             ({"regex": 5}, "must be a text"), (7, "StructuredOutputsParams"),
             ({"regex": "(((a{100}){100}){40})"}, "structured_outputs asks for cannot be used: .* too many"),
             ({"json": {"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/a"}}}}, "schema cannot be used: no text"),
             ({"json": {"const": "\ud800"}}, "the JSON schema cannot be used: "),
             ({"choice": ["\ud800"]}, "choice: text holds half of a surrogate pair"),
             ({"regex": "\ud800"}, "structured_outputs asks for cannot be used: text holds half")]  # fmt: skip
    for form, words in wrong:
        with pytest.raises((ValueError, TypeError), match=words):
            said(fable, "Who", SamplingParams(structured_outputs=form))
    assert said(fable, "Who", SamplingParams(max_tokens=3)).text
    without = LLM("fable", skip_tokenizer_init=True, **SMALL)
    assert without.generate({"prompt_token_ids": [5]}, use_tqdm=False)[0].outputs[0].token_ids


# ---- clients of a server

httpx = pytest.importorskip("httpx")
openai = pytest.importorskip("openai")

from openai.types import completion_create_params as sdk_completions
from openai.types.chat import completion_create_params as sdk_chat
from server_process import Server

LIMITS = ["--max-num-seqs", 8, "--max-model-len", 512, "--num-gpu-blocks-override", 300]
ORIGIN = "https://pages.example"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A chat model whose makers want it greedy, with short answers."""
    made = copy_model(tmp_path_factory.mktemp("model"), TEMPLATE)
    (made / "generation_config.json").write_text('{"top_k": 1, "temperature": 0.8, "max_new_tokens": 9}')
    return made


@pytest.fixture(scope="module")
def server(folder):
    server = Server("--model", folder, "--served-model-name", "fable", "storyteller", *LIMITS,
                    "--allowed-origins", ORIGIN, "--timeout-keep-alive", 60, keys=["secret"])  # fmt: skip
    yield server
    server.stop()


@pytest.fixture(scope="module")
def client(server):
    return openai.OpenAI(base_url=server.url + "/v1", api_key="secret", max_retries=0, timeout=60)


@pytest.fixture(scope="module")
def llm(folder):
    return LLM(folder, max_num_seqs=4, max_model_len=512, num_gpu_blocks_override=200)


TALK = [{"role": "user", "content": "Who was it?"}]
NOW = {"type": "function", "function": {"name": "now", "description": "The time.", "parameters": {
    "type": "object", "properties": {}, "additionalProperties": False}, "strict": True}}  # fmt: skip
SCHEMA = {"name": "age", "strict": True, "schema": {"type": "object", "properties": {"old": {"type": "boolean"}},
                                                    "required": ["old"], "additionalProperties": False}}  # fmt: skip
PART = {"type": "text", "text": "Who was it?"}
CALL = {"id": "call_1", "type": "function", "function": {"name": "now", "arguments": "{}"}}
SEEN = {"role": "user", "content": [PART, {"type": "image_url", "image_url": {"url": "https://a.example/b.png"}}]}
HEARD = {"role": "user", "content": [{"type": "input_audio", "input_audio": {"data": "AA==", "format": "wav"}}]}
READ = {"role": "user", "content": [{"type": "file", "file": {"file_id": "file-1"}}]}
# for each parameter of the SDK what its documentation shows, and the word that a refusal must hold (None: answered)
CHAT = {
    "messages": [
        (TALK, None), ([{"role": "developer", "content": "Be kind."}, *TALK], None), ([SEEN], "image_url"),
        ([{"role": "system", "content": [PART]}, {"role": "user", "content": [PART], "name": "me"}], None),
        ([HEARD], "input_audio"), ([READ], "file"),
        ([*TALK, {"role": "assistant", "content": None, "tool_calls": [CALL]},
          {"role": "tool", "tool_call_id": "call_1", "content": [PART]}], None),
        ([*TALK, {"role": "assistant", "content": [{"type": "refusal", "refusal": "No."}]}, *TALK], None),
        ([*TALK, {"role": "assistant", "refusal": "No."}, *TALK], None),
        ([*TALK, {"role": "assistant", "function_call": {"name": "now", "arguments": ""}},
          {"role": "function", "name": "now", "content": "noon"}], None),
        ([*TALK, {"role": "assistant", "audio": {"id": "audio_1"}}], "audio"), ([], "messages")],
    "model": [("storyteller", None), ("gpt-5", "not served")],
    "audio": [({"format": "wav", "voice": "alloy"}, "audio")],
    "frequency_penalty": [(0.5, None), (-3, "frequency_penalty")],
    "function_call": [("none", None), ({"name": "now"}, "function_call")],
    "functions": [([{"name": "now", "parameters": {}}], "functions")],
    "logit_bias": [({"7": -100, "8": 5}, None)], "logprobs": [(True, None), (False, None)],
    "max_completion_tokens": [(3, None), (0, "max_completion_tokens")], "max_tokens": [(3, None)],
    "metadata": [({"team": "a"}, None)], "modalities": [(["text"], None), (["text", "audio"], "modalities")],
    "moderation": [({"model": "omni"}, "moderation")], "n": [(2, None)], "parallel_tool_calls": [(False, None)],
    "prediction": [({"type": "content", "content": "It was"}, "prediction")], "presence_penalty": [(0.5, None)],
    "prompt_cache_key": [("mine", None)], "prompt_cache_options": [({"mode": "implicit"}, None)],
    "prompt_cache_retention": [("24h", None)], "reasoning_effort": [("low", None), ("none", None)],
    "response_format": [({"type": "text"}, None), ({"type": "json_object"}, None),
                        ({"type": "json_schema", "json_schema": SCHEMA}, None)],
    "safety_identifier": [("someone", None)], "seed": [(7, None)], "service_tier": [("flex", None)],
    "stop": [(["wolf", "king"], None), ("wolf", None), ([], None)], "store": [(True, None)],
    "stream_options": [({"include_usage": True}, "stream_options")], "temperature": [(0, None), (2.5, "temperature")],
    "tool_choice": [("none", None), ("auto", None), ("required", "tool_choice"),
                    ({"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": []}}, "tool_choice")],
    "tools": [([NOW], None), ([{"type": "custom", "custom": {"name": "a"}}], "tools"), ([], "tools")],
    "top_logprobs": [(0, None), (2, "top_logprobs")], "top_p": [(0.5, None)], "user": [("me", None)],
    "verbosity": [("low", None)], "web_search_options": [({}, "web_search_options")], "stream": [(False, None)],
}  # fmt: skip
COMPLETIONS = {
    "model": [("fable", None)], "prompt": [("Once", None), (["Once", "A"], None), ([5, 6], None), ([[5], [6]], None)],
    "best_of": [(1, None), (4, "best_of")], "echo": [(True, None)], "frequency_penalty": [(1, None)],
    "logit_bias": [({"7": 1}, None)], "logprobs": [(2, None), (0, None)], "max_tokens": [(3, None), (0, "max_tokens")],
    "n": [(2, None)], "presence_penalty": [(1, None)], "seed": [(1, None)], "stop": [(["a"], None)],
    "stream_options": [({"include_obfuscation": True}, "stream_options")], "suffix": [("", None), ("end", "suffix")],
    "temperature": [(0.5, None)], "top_p": [(0.5, None)], "user": [("me", None)], "stream": [(False, None)],
}  # fmt: skip


@pytest.mark.parametrize("path", ["chat/completions", "completions"])
def test_every_parameter_of_the_sdk_is_answered_or_refused_by_its_name(server, path):
    examples, kinds = (CHAT, sdk_chat) if path[0] == "c" and "/" in path else (COMPLETIONS, sdk_completions)
    known = {*kinds.CompletionCreateParamsBase.__annotations__, "stream"}
    assert known <= examples.keys(), f"the SDK has new parameters: {sorted(known - examples.keys())}"
    least = {"model": "fable", "max_tokens": 4} | ({"messages": TALK} if "/" in path else {"prompt": "Once"})
    for name, values in examples.items():
        for value, word in [*values, (None, name if name in ("messages", "prompt") else None)]:
            got = server.http.post(f"/v1/{path}", json=least | {name: value})
            assert got.status_code == 200 if word is None else got.status_code in (400, 404), (name, value, got.text)
            error = got.json().get("error", {"message": "", "param": None})
            assert word is None or word in f"{error['message']} {error['param']}", (name, value, got.text)
    got = server.http.post(f"/v1/{path}", json=least | {"tempreature": None})
    assert got.status_code == 400 and "tempreature" in got.text  # a slip is no wish for nothing


def test_what_the_sdk_has_received_can_be_sent_back(client):
    answer = client.chat.completions.create(model="fable", messages=TALK, tools=[NOW], tool_choice="required",
                                            parallel_tool_calls=False, max_tokens=60)  # fmt: skip
    message = answer.choices[0].message
    dumped = message.model_dump()
    assert "annotations" in dumped and dumped["refusal"] is None and message.tool_calls
    sent = dumped | {"reasoning_content": None, "annotations": [], "audio": None}
    talk = [*TALK, sent, {"role": "tool", "tool_call_id": message.tool_calls[0].id, "content": "noon"}]
    for one in (talk, [*TALK, message, talk[-1]]):
        again = client.chat.completions.create(model="fable", messages=one)
        assert again.choices[0].message.content
    for arguments in ("", '{"a": "th', "[", "no"):  # an answer that was cut short
        sent["tool_calls"][0]["function"]["arguments"] = arguments
        assert client.chat.completions.create(model="fable", messages=talk).choices[0].message.content


def test_what_the_sdk_has_parsed_can_be_sent_back(client):
    from pydantic import create_model

    form = create_model("Age", old=(bool, ...))
    more = {"tools": [NOW], "tool_choice": "required", "parallel_tool_calls": False, "max_tokens": 60}
    with client.chat.completions.stream(model="fable", messages=TALK, **more) as stream:
        streamed = stream.get_final_completion().choices[0].message
    called = client.chat.completions.parse(model="fable", messages=TALK, **more).choices[0].message
    fitting = client.chat.completions.parse(model="fable", messages=TALK, response_format=form, max_tokens=60)
    assert called.tool_calls[0].function.parsed_arguments == {}
    fitting = fitting.choices[0].message
    assert fitting.parsed.old in (True, False)
    for message in (streamed, called, fitting, called.model_dump(), fitting.to_dict()):
        again = client.chat.completions.create(model="fable", messages=[*TALK, message, *TALK])
        assert again.choices[0].message.content


def test_what_programs_note_on_messages_says_nothing_to_the_model(server):
    def length(**more):
        call = {"id": "1", "type": "function", "function": {"name": "now", "arguments": "{}"} | more} | more
        talk = [TALK[0] | more, {"role": "assistant", "content": "A", "tool_calls": [call]} | more]
        got = server.http.post("/v1/chat/completions", json={"messages": talk, "max_tokens": 1})
        return got.json().get("usage", {}).get("prompt_tokens", got.text)

    plain = length()
    for notes in ({"type": "function"}, {"id": "1"}, {"status": "completed"}, {"cache_control": {"type": "ephemeral"}},
                  {"provider_specific_fields": None}, {"thinking_blocks": [{"thinking": "Hm"}]}, {"metadata": {}},
                  {"reasoning_details": []}, {"extra_content": {"google": {"thought_signature": "x"}}}):  # fmt: skip
        assert length(**notes) == plain, notes
    for slip in ({"contents": "x"}, {"contents": None}, {"parts": []}):
        assert "not known here" in length(**slip)


def test_a_wrong_address_a_wrong_body_and_an_older_name_are_told_what_is_right(server):
    for path, method, status, word in (("/v1/responses", "POST", 404, "/v1/chat/completions"),
                                       ("/completions", "POST", 404, "base URL"),
                                       ("/v1/completions", "GET", 405, "POST"),
                                       ("/health", "PUT", 405, "GET")):  # fmt: skip
        got = server.http.request(method, path)
        assert got.status_code == status and word in got.json()["error"]["message"], got.text
        assert ("allow" in got.headers) == (status == 405)
    cut, json_type = b'{"prompt": "Who', {"content-type": "application/json"}
    for body, word in ((cut, "character 11"), (b"[1, 2", "JSON"), ("é".encode("latin-1"), "UTF-8"),
                       (b"\x1f\x8b\x08", "UTF-8"),
                       (b"[" * 100_000, "read"), (b'{"prompt": "A", "guided_regex": "a"}', "structured_outputs"),
                       (b'{"prompt": "A", "tempreature": 1}', "tempreature: not known here"),
                       (json.dumps({"prompt": "A", "stop": ["."] * 17}).encode(), "stop: List should have at most 16"),
                       (json.dumps({"prompt": ["A"] * 300}).encode(), "prompt: List should have at most 256"),
                       (b'{"prompt": ["A", 5]}', "prompt.1: Input should be a valid string")):  # fmt: skip
        got = server.http.post("/v1/completions", content=body, headers=json_type)
        message = got.json()["error"]["message"]
        assert got.status_code == 400 and word in message and "Who" not in message, got.text


def test_a_stream_has_what_the_sdk_asks_of_it(client):
    options = {"include_usage": True, "include_obfuscation": True, "continuous_usage_stats": True}
    for n in (1, 2):
        chunks = list(client.chat.completions.create(model="fable", messages=TALK, stream=True, n=n,
                                                     stream_options=options))  # fmt: skip
        assert [chunk.choices[0].delta.role for chunk in chunks[:n]] == ["assistant"] * n
        assert all(chunk.usage.prompt_tokens == chunks[-1].usage.prompt_tokens > 4 for chunk in chunks)
        assert chunks[-1].usage.completion_tokens == 9 * n and not chunks[-1].choices  # as the makers have it
        assert [chunk.usage.completion_tokens for chunk in chunks if chunk.choices][-1] == 9
        assert len({len(chunk.to_json(indent=None)) for chunk in chunks[n:-2]}) <= 3
    chunks = list(client.completions.create(model="fable", prompt=["A", "B"], stream=True, max_tokens=3,
                                            stream_options=options))  # fmt: skip
    assert [c.usage.completion_tokens for c in chunks if c.choices and c.choices[0].index == 1] == [1, 2, 3]
    plain = list(client.completions.create(model="fable", prompt="A", stream=True, max_tokens=3))
    assert all(chunk.usage is None for chunk in plain)


def test_a_stream_of_a_conversation_that_cannot_be_is_an_ordinary_error(server):
    body = {"model": "fable", "messages": TALK, "max_tokens": 100_000, "stream": True}
    got = server.http.post("/v1/chat/completions", json=body)
    assert got.status_code == 400 and "100,000" in got.json()["error"]["message"]


def test_a_text_is_scored_as_evaluation_programs_do_it(server, llm):
    prompts = [llm.tokenizer.encode(text) for text in ("Once upon a time there was a king", "The old wolf")]
    wishes = SamplingParams(temperature=0, max_tokens=1, logprobs=1, prompt_logprobs=1)
    want = llm.generate([{"prompt_token_ids": ids} for ids in prompts], wishes, use_tqdm=False)
    body = {"model": "fable", "prompt": prompts, "temperature": 0, "max_tokens": 1, "logprobs": 1, "seed": 1234,
            "echo": True}  # fmt: skip
    for most in (1, 0):
        answer = server.http.post("/v1/completions", json=body | {"max_tokens": most}).json()
        assert answer["usage"]["completion_tokens"] == 2 * most
        for choice, ids, one in zip(sorted(answer["choices"], key=lambda c: c["index"]), prompts, want, strict=True):
            scores, top = choice["logprobs"]["token_logprobs"], choice["logprobs"]["top_logprobs"]
            lines = [*one.prompt_logprobs, *one.outputs[0].logprobs[:most]]
            tokens = [*ids, *one.outputs[0].token_ids[:most]]
            assert len(scores) == len(tokens) == len(top) and scores[0] is None and top[0] is None
            known = [line[token].logprob for token, line in zip(tokens[1:], lines[1:], strict=True)]
            assert scores[1:] == pytest.approx(known, abs=1e-4)
            assert choice["text"] == llm.tokenizer.decode(tokens) == "".join(choice["logprobs"]["tokens"])
            offsets = [len(llm.tokenizer.decode(tokens[:i])) for i in range(len(tokens))]
            assert choice["logprobs"]["text_offset"] == offsets
    pieces = []
    with server.http.stream("POST", "/v1/completions", json=body | {"stream": True, "n": 3, "temperature": 1}) as got:
        for line in got.iter_lines():
            pieces += json.loads(line[6:])["choices"] if line.startswith("data: {") else []
    for index in range(6):
        mine = [piece for piece in pieces if piece["index"] == index]
        assert mine[0]["text"].startswith(llm.tokenizer.decode(prompts[index // 3]))
        assert mine[0]["logprobs"]["token_logprobs"][0] is None
    said = server.http.post("/v1/completions", json={"prompt": "Once", "echo": True, "max_tokens": 2}).json()
    assert said["choices"][0]["text"].startswith("Once") and said["choices"][0]["logprobs"] is None


def test_token_ids_and_scores_of_prompts_come_under_vllms_names(server, llm):
    ids = llm.tokenizer.encode("Once upon a time")
    body = {"prompt": "Once upon a time", "max_tokens": 3, "return_token_ids": True, "prompt_logprobs": 1}
    choice = server.http.post("/v1/completions", json=body).json()["choices"][0]
    assert choice["prompt_token_ids"] == ids and llm.tokenizer.decode(choice["token_ids"]) == choice["text"]
    assert choice["prompt_logprobs"][0] is None and str(ids[1]) in choice["prompt_logprobs"][1]
    body = {"messages": TALK, "max_tokens": 3, "return_token_ids": True, "prompt_logprobs": 0}
    answer = server.http.post("/v1/chat/completions", json=body).json()
    assert llm.tokenizer.decode(answer["prompt_token_ids"], False) == "<|user|>Who was it?<|endoftext|>\n<|assistant|>"
    text = answer["choices"][0]["message"]["content"]
    assert llm.tokenizer.decode(answer["choices"][0]["token_ids"]) == text
    assert len(answer["prompt_logprobs"]) == len(answer["prompt_token_ids"])
    found, prompts = [], []
    body = {"prompt": "Once upon a time", "max_tokens": 3, "return_token_ids": True, "stream": True}
    with server.http.stream("POST", "/v1/completions", json=body) as got:
        for line in got.iter_lines():
            if line.startswith("data: {"):
                (piece,) = json.loads(line[6:])["choices"]
                found, prompts = found + piece["token_ids"], [*prompts, piece.get("prompt_token_ids")]
    assert found == choice["token_ids"] and prompts[0] == ids and not any(prompts[1:])


def test_an_answer_can_be_begun_for_the_model(client, llm):
    talk = [*TALK, {"role": "assistant", "content": "Once upon a time there "}]
    more = {"continue_final_message": True, "add_generation_prompt": False, "echo": True}
    got = client.chat.completions.create(model="fable", messages=talk, extra_body=more).choices[0].message
    want = llm.chat(talk, use_tqdm=False, continue_final_message=True)[0].outputs[0].text
    assert got.role == "assistant" and got.content == talk[-1]["content"] + want
    for wrong, words in (({"continue_final_message": True, "add_generation_prompt": True}, "both"),
                         ({"chat_template_kwargs": {"tools": []}}, "tools"),
                         ({"chat_template": "{{ messages }}"}, "chat_template")):  # fmt: skip
        with pytest.raises(openai.BadRequestError, match=words):
            client.chat.completions.create(model="fable", messages=talk, extra_body=wrong)


def test_the_template_is_told_what_a_client_says_of_it(client, llm):
    def length(**wishes):
        answer = client.chat.completions.create(model="fable", messages=TALK, max_tokens=1, **wishes)
        return answer.usage.prompt_tokens

    usual = length()
    assert length(extra_body={"chat_template_kwargs": {"eos_token": " the end of it" * 5}}) > usual + 5
    assert length(extra_body={"add_generation_prompt": False}) < usual
    assert length(extra_body={"chat_template_kwargs": {"self": 1, "template": "x"}}) == usual  # any name is one
    assert length(reasoning_effort="high", verbosity="low") == usual  # this one does not ask


@pytest.mark.parametrize("path", ["completions", "chat/completions"])
def test_answers_keep_to_the_form_that_a_client_gives(server, path):
    least = {"messages": TALK} if "/" in path else {"prompt": "Who was it?"}
    text = lambda got: got["choices"][0].get("text") or got["choices"][0]["message"]["content"]  # noqa: E731
    for form, fits in (({"choice": ["a wolf", "a king"]}, ("a wolf", "a king")),
                       ({"regex": "[ab]{3}"}, [a + b + c for a in "ab" for b in "ab" for c in "ab"]),
                       ({"json": SCHEMA["schema"]}, ('{"old":true}', '{"old":false}'))):  # fmt: skip
        got = server.http.post(f"/v1/{path}", json=least | {"structured_outputs": form, "max_tokens": 20})
        assert text(got.json()) in fits, got.text
    for form, word in (({"regex": "["}, "regex"), ({"structural_tag": "{}"}, "structural_tag"), ({}, "exactly one")):
        got = server.http.post(f"/v1/{path}", json=least | {"structured_outputs": form})
        assert got.status_code == 400 and word in got.json()["error"]["message"], got.text


def test_load_generators_find_what_they_read(server):
    options = {"include_usage": True, "continuous_usage_stats": True}
    guide = {"model": "fable", "stream": True, "stream_options": options,
             "max_tokens": 5, "max_completion_tokens": 5, "ignore_eos": True, "prompt": "Once upon"}  # fmt: skip
    bench = {"model": "fable", "prompt": "Once upon", "repetition_penalty": 1.0, "max_tokens": 5, "logprobs": None,
             "stream": True, "stream_options": {"include_usage": True}}  # fmt: skip
    chat = {"model": "fable", "messages": [{"role": "user", "content": [PART]}], "max_completion_tokens": 5,
            "stream": True, "stream_options": {"include_usage": True}}  # fmt: skip
    for path, body in (("completions", guide), ("completions", bench), ("chat/completions", chat)):
        with server.http.stream("POST", f"/v1/{path}", json=body, headers={"x-request-id": "1"}) as got:
            assert got.status_code == 200
            chunks = [json.loads(line[6:]) for line in got.iter_lines() if line.startswith("data: {")]
        assert chunks[-1]["usage"]["completion_tokens"] == 5 and chunks[-1]["usage"]["prompt_tokens"] > 1
    got = server.http.post("/v1/completions", json={"prompt": "Once", "max_tokens": 5, "max_completion_tokens": 6})
    assert got.status_code == 400 and "max_tokens is 5 but max_completion_tokens is 6" in got.text


def test_what_is_cached_and_what_is_given_up_is_counted_right(server, llm):
    words = llm.tokenizer.encode("once there was an old woman in a house by the sea " * 8)[:100]
    cold = {"prompt": words, "n": 4, "max_tokens": 2, "prompt_cache_key": "cold"}
    found = [server.http.post("/v1/completions", json=cold | more).json()["usage"]["prompt_tokens_details"]
             for more in ({}, {}, {"prompt_cache_key": "other"}, {"prompt_cache_key": None})]  # fmt: skip
    assert [one["cached_tokens"] for one in found] == [0, 96, 0, 0]  # the key is a salt
    given_up = lambda: server.metric('request_success_total{finished_reason="abort"')  # noqa: E731
    before = given_up()
    body = {"prompt": "A", "max_tokens": 400, "ignore_eos": True, "stream": True, "n": 2}
    with server.http.stream("POST", "/v1/completions", json=body) as got:
        next(got.iter_lines())
    assert server.idle() and given_up() == before + 2
    page = server.http.get("/metrics").text
    assert 'model_name="fable"' in page and page.count("model_name=") == page.count('model_name="fable"')


def test_a_model_may_have_several_names(server, client):
    assert [model.id for model in client.models.list()] == ["fable", "storyteller"]
    assert client.models.retrieve("storyteller").id == "storyteller"
    answer = client.completions.create(model="storyteller", prompt="A", max_tokens=1)
    assert answer.model == "fable"


def test_keys_come_in_any_spelling_of_the_scheme_but_not_without(server):
    for header, status in (("Bearer secret", 200), ("bearer secret", 200), ("BEARER  secret", 200), ("secret", 401),
                           ("Basic secret", 401), ("Bearer", 401), ("bearer wrong", 401)):  # fmt: skip
        got = httpx.get(f"{server.url}/v1/models", headers={"Authorization": header})
        assert got.status_code == status, header


def test_pages_of_named_origins_may_ask_and_head_is_answered(server):
    ask = {"Origin": ORIGIN, "Access-Control-Request-Method": "POST",
           "Access-Control-Request-Headers": "authorization,content-type"}  # fmt: skip
    got = httpx.options(f"{server.url}/v1/completions", headers=ask)
    assert got.status_code == 200 and got.headers["access-control-allow-origin"] == ORIGIN
    other = httpx.options(f"{server.url}/v1/completions", headers=ask | {"Origin": "https://other.example"})
    assert "access-control-allow-origin" not in other.headers
    denied = httpx.get(f"{server.url}/v1/models", headers={"Origin": ORIGIN})
    assert denied.status_code == 401 and denied.headers["access-control-allow-origin"] == ORIGIN
    for path in ("/health", "/v1/models", "/metrics"):
        got = server.http.head(path)
        assert got.status_code == 200 and got.content == b"", path
        assert got.headers["content-length"] == str(len(server.http.get(path).content)) or path == "/metrics"
    assert httpx.head(f"{server.url}/v1/models").status_code == 401


def test_how_long_a_connection_stays_open_can_be_set(monkeypatch):
    import types
    from unittest import mock

    from tinyllm.cli import main
    from tinyllm.serve import api

    seen = types.SimpleNamespace()
    engine = mock.MagicMock(dead="")
    monkeypatch.setattr(api, "AsyncEngine", lambda *_, **__: engine)
    monkeypatch.setattr(api, "describe_sizes", lambda engine: "")
    monkeypatch.setattr(api, "build_app", lambda engine, args: None)
    monkeypatch.setattr(api.DrainingServer, "run", lambda self, places: setattr(seen, "config", self.config))
    assert main(["serve", "--port", "0", "--timeout-keep-alive", "75"]) == 0
    assert seen.config.timeout_keep_alive == 75


def test_an_empty_key_is_no_key(capsys, monkeypatch):
    from tinyllm.cli import main
    from tinyllm.serve.api import ServerArgs

    for words, variable in ((["--api-key", ""], None), (["--api-key", "a", "--api-key", " "], None), ([], "")):
        if variable is not None:
            monkeypatch.setenv("TINYLLM_API_KEY", variable)
        assert main(["serve", "--port", "0", *words]) == 2
        assert "API key is empty" in capsys.readouterr().err
    with pytest.raises(ValueError, match="API key is empty"):
        ServerArgs("fable", ("",))
