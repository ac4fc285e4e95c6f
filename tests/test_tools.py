"""Tool calls through a real server and the real openai client, with a chat template that has tools."""

import json
import shutil
from itertools import pairwise
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
openai = pytest.importorskip("openai")

from server_process import Server

from tinyllm.model.config_reader import resolve

# In the manner of Hermes and Qwen: tools first, then the turns; arguments of past calls as JSON.
TEMPLATE = """{%- if tools %}Functions:
{%- for tool in tools %}
{{ tool | tojson }}
{%- endfor %}
Call one by <tool_call>{"name": ..., "arguments": ...}</tool_call>.
{% endif %}
{%- for m in messages %}{{ m.role }}: {{ m.content }}
{%- for call in m.tool_calls or [] %}<tool_call>
{"name": "{{ call.function.name }}", "arguments": {{ call.function.arguments | tojson }}}
</tool_call>{% endfor %}
{% endfor %}
{%- if add_generation_prompt %}assistant:{% endif %}"""

LIGHT = {"type": "object", "properties": {"room": {"enum": ["hall", "tower"]}, "on": {"type": "boolean"}},
         "required": ["room", "on"], "additionalProperties": False}  # fmt: skip
TOOLS = [{"type": "function", "function": {"name": "light", "description": "Turns a light on.", "parameters": LIGHT}},
         {"type": "function", "function": {"name": "now"}}]  # fmt: skip
TALK = [{"role": "user", "content": "It is dark in the tower"}]
SAID = "Wait. <tool_call>"


def write_model(folder: Path) -> Path:
    """A model without a mind: after each token of SAID comes the next, and after any other the first."""
    from transformers import LlamaConfig, LlamaForCausalLM

    fable = resolve("fable")
    config = json.loads((fable / "config.json").read_text())
    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(
        vocab_size=config["vocab_size"], hidden_size=64, intermediate_size=64, num_hidden_layers=1, head_dim=64,
        num_attention_heads=1, num_key_value_heads=1, max_position_embeddings=2048, tie_word_embeddings=False,
        eos_token_id=config["eos_token_id"], bos_token_id=None, pad_token_id=None))  # fmt: skip
    tokens, layer = tokenizer(fable).encode(SAID, False), model.model.layers[0]
    assert len(set(tokens)) == len(tokens)
    with torch.no_grad():
        layer.self_attn.o_proj.weight.zero_()
        layer.mlp.down_proj.weight.zero_()
        table, head = model.model.embed_tokens.weight, model.lm_head.weight
        table.normal_()
        table[:, 0] = 3.0
        head.normal_(0, 0.01)
        head[tokens[0], 0] += 15.0
        for one, following in pairwise(tokens):
            head[following] += table[one]
    model.save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(fable / name, folder)
    add_template(folder)
    return folder


def tokenizer(folder):
    from tinyllm.model.hf_tokenizer import load_tokenizer

    return load_tokenizer(folder)


def add_template(folder: Path, template: str = TEMPLATE):
    config = json.loads((folder / "tokenizer_config.json").read_text())
    config.pop("chat_template", None)
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    (folder / "chat_template.jinja").write_text(template)


@pytest.fixture(scope="module")
def client(tmp_path_factory):
    folder = write_model(tmp_path_factory.mktemp("model"))
    server = Server("--model", folder, "--served-model-name", "fable", "--max-num-seqs", 8, "--max-model-len", 1024,
                    "--num-gpu-blocks-override", 300)  # fmt: skip
    yield openai.OpenAI(base_url=server.url + "/v1", api_key="none", max_retries=0, timeout=60)
    server.stop()


def ask(client, **wishes):
    wishes = {"messages": TALK, "tools": TOOLS, "temperature": 0, "max_tokens": 200} | wishes
    return client.chat.completions.create(model="fable", **wishes)


def fits(call) -> bool:
    arguments = json.loads(call.function.arguments)
    good = arguments == {} if call.function.name == "now" else arguments["room"] in LIGHT["properties"]["room"]["enum"]
    return good and call.type == "function" and call.id.startswith("call_")


def test_a_call_that_the_model_begins_becomes_a_valid_one_beside_its_text(client):
    choice = ask(client, parallel_tool_calls=False).choices[0]
    (call,) = choice.message.tool_calls
    assert choice.message.content == "Wait. " and choice.finish_reason == "tool_calls" and fits(call)
    plain = ask(client, tool_choice="none", max_tokens=30).choices[0]
    assert "<tool_call>" in plain.message.content and plain.message.tool_calls is None


def test_the_template_is_given_the_tools_and_the_calls_of_earlier_turns(client):
    used = [ask(client, tools=tools, max_tokens=1).usage.prompt_tokens for tools in (TOOLS, TOOLS[1:])]
    assert used[0] > used[1] + 20
    call = ask(client, parallel_tool_calls=False).choices[0].message
    more = [*TALK, call, {"role": "tool", "tool_call_id": call.tool_calls[0].id, "content": "done"}]
    seen = tokenizer(resolve("fable")).encode
    from tinyllm.model.chat_template import render_chat

    arguments = json.loads(call.tool_calls[0].function.arguments)
    function = {"name": call.tool_calls[0].function.name, "arguments": arguments}
    turns = [*TALK, {"role": "assistant", "content": "Wait. ", "tool_calls": [{"function": function}]},
             {"role": "tool", "content": "done"}]  # fmt: skip
    text = render_chat(TEMPLATE, messages=turns, tools=TOOLS, add_generation_prompt=True)
    assert ask(client, messages=more, max_tokens=5).usage.prompt_tokens == len(seen(text, False))


@pytest.mark.parametrize("choice, many", [("required", False), ("required", None),
                                          ({"type": "function", "function": {"name": "now"}}, None)])  # fmt: skip
def test_a_call_can_be_demanded(client, choice, many):
    extra = {} if many is None else {"parallel_tool_calls": many}
    answer = ask(client, tool_choice=choice, **extra).choices[0]
    calls = answer.message.tool_calls
    assert answer.message.content is None and calls and all(map(fits, calls[:-1]))
    if choice == "required" and many is None:
        assert len(calls) > 1 or answer.finish_reason == "tool_calls"  # as many as it likes, up to the limit
        return
    wanted = "tool_calls" if isinstance(choice, str) else "stop"  # as OpenAI and vLLM end a call of a named function
    assert answer.finish_reason == wanted and len(calls) == 1 and fits(calls[0])
    assert isinstance(choice, str) or calls[0].function.name == "now"


@pytest.mark.parametrize("n", [1, 2])
@pytest.mark.parametrize("wishes", [{"parallel_tool_calls": False}, {"tool_choice": "required", "max_tokens": 90}])
def test_a_stream_of_calls_adds_up_to_the_whole(client, wishes, n):
    whole = ask(client, n=n, seed=3, temperature=0.7, **wishes)
    found = [{"content": "", "calls": [], "reason": None} for _ in range(n)]
    pieces = 0
    for chunk in ask(client, stream=True, n=n, seed=3, temperature=0.7, **wishes):
        for choice in chunk.choices:
            one = found[choice.index]
            one["content"] += choice.delta.content or ""
            one["reason"] = choice.finish_reason or one["reason"]
            for part in choice.delta.tool_calls or ():
                pieces += 1
                if part.id:
                    assert part.index == len(one["calls"]) and part.type == "function"
                    one["calls"].append([part.function.name, ""])
                one["calls"][part.index][1] += part.function.arguments or ""
    assert pieces > 2 * n  # they come as they are written
    for one, choice in zip(found, whole.choices, strict=True):
        calls = choice.message.tool_calls
        assert one["calls"] == [[c.function.name, c.function.arguments] for c in calls]
        assert (one["content"] or None, one["reason"]) == (choice.message.content, choice.finish_reason)


def test_an_answer_cut_off_within_a_call_says_so(client):
    choice = ask(client, tool_choice={"type": "function", "function": {"name": "light"}}, max_tokens=20).choices[0]
    assert choice.finish_reason == "length"
    assert not ask(client, tool_choice="required", max_tokens=2).choices[0].message.content  # half a mark is no text


NAMELESS = {"type": "function", "function": {"name": "no such name!"}}
OTHER = {"type": "function", "function": {"name": "other"}}
REFUSED = [
    ({"tools": [NAMELESS]}, "name"),
    ({"tools": []}, "tools"),
    ({"tools": [{"type": "retrieval"}]}, "type"),
    ({"tools": [TOOLS[0], TOOLS[0]]}, "same name"),
    ({"tool_choice": OTHER}, "not among"),
    ({"tool_choice": "sometimes"}, "tool_choice"),
    ({"tools": openai.NOT_GIVEN, "tool_choice": "required"}, "no tools"),
    ({"response_format": {"type": "json_object"}}, "response_format"),
    ({"tools": [{"type": "function", "function": {"name": "a", "parameters": {"type": "array"}}}]}, "object"),
    ({"tools": [{"type": "function", "function": {"name": "a", "parameters": {"properties": {"b": {"type": "foo"}}}}}]},
     "cannot be used"),
    ({"tools": [{"type": "function", "function": {"name": "a", "description": "x" * 70_000}}]}, "smaller"),
    ({"functions": [{"name": "old"}]}, "functions"),
]  # fmt: skip


@pytest.mark.parametrize("change, words", REFUSED, ids=lambda value: str(value)[:40])
@pytest.mark.parametrize("stream", [False, True])
def test_what_is_not_supported_is_refused_in_openais_form(client, change, words, stream):
    extra = {"extra_body": {"functions": change.pop("functions")}} if "functions" in (change := dict(change)) else {}
    with pytest.raises(openai.BadRequestError) as error:
        ask(client, stream=stream, **change, **extra)
    assert words in error.value.message and error.value.type == "invalid_request_error"


def test_templates_whose_calls_have_another_form_are_refused(tmp_path):
    from tinyllm.serve.tools import tools_template

    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(resolve("fable") / name, tmp_path)
    for template, words in ((TEMPLATE, None), ("{{ messages[0].content }}", "no place"),
                            ("{{ tools }} [TOOL_CALLS] arguments", "form")):  # fmt: skip
        add_template(tmp_path, template)
        if words is None:
            assert tools_template(tokenizer(tmp_path)) == TEMPLATE
        else:
            with pytest.raises(ValueError, match=words):
                tools_template(tokenizer(tmp_path))
    both = tokenizer(tmp_path)
    both.config["chat_template"] = [{"name": "default", "template": "{{ messages }}"},
                                    {"name": "tool_use", "template": TEMPLATE}]  # fmt: skip
    assert tools_template(both) == TEMPLATE
