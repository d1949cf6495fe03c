"""Chat templates: equal to transformers, and hostile ones."""

from __future__ import annotations

import datetime
import threading
import time

import pytest
from transformers import PreTrainedTokenizerFast

from puna.errors import InputError
from puna.tokens import BUILTIN_TEMPLATES, ChatTemplate, Tokenizer
from tokens.samples import open_files, tiny_json

SYSTEM = {"role": "system", "content": " Be brief. "}
TURNS = [
    {"role": "user", "content": "Who are you?  "},
    {"role": "assistant", "content": " A llama.\n"},
    {"role": "user", "content": "你好 🦙\nSecond line"},
]
CHATS = {
    "one": TURNS[:1],
    "several": TURNS,
    "system": [SYSTEM, *TURNS],
    "answered": [*TURNS, {"role": "assistant", "content": "Yes."}],
}
TOKENS = {"bos_token": "<|bos|>", "eos_token": "<|im_end|>"}
# Templates as checkpoints carry them, not only ours.
SMOLLM2 = (
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face"
    "<|im_end|>\n' }}{% endif %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + "
    "'<|im_end|>' + '\n'}}{% endfor %}{% if add_generation_prompt %}"
    "{{ '<|im_start|>assistant\n' }}{% endif %}"
)
EVERYTHING = """{% set ns = namespace(found=false, count=0) %}
{%- if tools is not none %}
Tools: {{ tools | tojson(indent=2) }} {{ tools[0] | tojson }}
{% endif %}
{%- macro say(text) %}[{{ text | trim | upper }}]{% endmacro %}
{%- for message in messages %}
    {%- if message.role == 'system' %}{% continue %}{% endif %}
    {%- set ns.count = ns.count + 1 %}
    {%- generation %}
{{ say(message['content']) ~ loop.index ~ '/' ~ loop.length }}{% endgeneration %}
    {%- if loop.last %}{{ loop.previtem.role if loop.previtem }}{% break %}{% endif %}
{% endfor %}
{{ ns.count }} {{ range(3) | list }} {{ 2 ** 3 * 'x' }} {{ '%s-%d' % ('a', 3) }}
{{ dict(a=1)['a'] }} {{ undefined_name }}| {{ messages[-1].missing }}|{{ documents }}
{% for key, value in messages[0].items() | sort %}{{ key }}={{ value }};{% endfor %}
{% for c in 'abc' if c != 'b' %}{{ c }}{% else %}none{% endfor %} {{ add_generation_prompt }}
"""
TEMPLATES = {**BUILTIN_TEMPLATES, "smollm2": SMOLLM2, "everything": EVERYTHING}
TOOLS = [{"type": "function", "function": {"name": "wéather", "parameters": {"<q>": "'&"}}}]


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    roles = b'{"bos_token": "<|bos|>", "eos_token": "<|im_end|>"}'
    return open_files(tokenizer_json=tiny_json(), tokenizer_config_json=roles)


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> PreTrainedTokenizerFast:
    path = tmp_path_factory.mktemp("reference") / "tokenizer.json"
    path.write_bytes(tiny_json())
    return PreTrainedTokenizerFast(tokenizer_file=str(path), **TOKENS)


@pytest.mark.parametrize("chat", CHATS)
@pytest.mark.parametrize("name", TEMPLATES)
def test_rendered_as_transformers_does(
    tokenizer: Tokenizer, reference: PreTrainedTokenizerFast, name: str, chat: str
):
    for prompt in (False, True):
        for tools in (None, TOOLS):
            expected = reference.apply_chat_template(
                CHATS[chat],
                chat_template=TEMPLATES[name],
                tools=tools,
                add_generation_prompt=prompt,
                tokenize=False,
            )
            rendered = tokenizer.render(
                CHATS[chat], add_generation_prompt=prompt, tools=tools, template=TEMPLATES[name]
            )
            assert rendered == expected


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (
            "llama2",
            "<s>[INST] <<SYS>>\nS\n<</SYS>>\n\nA [/INST] B </s><s>[INST] C [/INST]",
        ),
        (
            "llama3",
            "<s><|start_header_id|>system<|end_header_id|>\n\nS<|eot_id|>"
            "<|start_header_id|>user<|end_header_id|>\n\nA<|eot_id|>"
            "<|start_header_id|>assistant<|end_header_id|>\n\nB<|eot_id|>"
            "<|start_header_id|>user<|end_header_id|>\n\nC<|eot_id|>"
            "<|start_header_id|>assistant<|end_header_id|>\n\n",
        ),
        (
            "chatml",
            "<|im_start|>system\nS<|im_end|>\n<|im_start|>user\nA<|im_end|>\n"
            "<|im_start|>assistant\nB<|im_end|>\n<|im_start|>user\nC<|im_end|>\n"
            "<|im_start|>assistant\n",
        ),
        ("mistral", "<s>[INST] S\n\nA [/INST] B</s>[INST] C [/INST]"),
        (
            "alpaca",
            "S\n\n### Instruction:\nA\n\n### Response:\nB</s>\n\n"
            "### Instruction:\nC\n\n### Response:\n",
        ),
        ("vicuna", "S USER: A ASSISTANT: B</s>USER: C ASSISTANT:"),
    ],
)
def test_builtin_templates_are_the_published_formats(name: str, expected: str):
    roles = ("system", "user", "assistant", "user")
    chat = [{"role": role, "content": text} for role, text in zip(roles, "SABC", strict=True)]
    assert render(BUILTIN_TEMPLATES[name], chat) == expected


def test_default_system_prompts():
    alpaca, vicuna = (render(BUILTIN_TEMPLATES[name], TURNS[:1]) for name in ("alpaca", "vicuna"))
    assert alpaca.startswith("Below is an instruction that describes a task. Write a response")
    assert vicuna.startswith("A chat between a curious user and an artificial intelligence assis")
    assert list(BUILTIN_TEMPLATES) == ["llama2", "llama3", "chatml", "mistral", "alpaca", "vicuna"]
    assert len(BUILTIN_TEMPLATES) == 6 and "llama9" not in BUILTIN_TEMPLATES


def render(source: str, messages: list[dict[str, str]] | None = None) -> str:
    return ChatTemplate(source, where="model").render(
        messages or [],
        add_generation_prompt=True,
        tools=None,
        tokens={"bos_token": "<s>", "eos_token": "</s>"},
    )


def test_the_date():
    assert render("{{ strftime_now('%Y') }}") == str(datetime.datetime.now().year)


def test_generation_is_a_scope():
    assert render("{% generation %}{% set a = 1 %}{{ a }}{% endgeneration %}{{ a }}") == "1"


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("a\n{% if %}", "line 2 of the chat template: Expected an expression"),
        ("{{ a", "line 1 of the chat template"),
        ("\n\n{{ raise_exception('only users') }}", "line 3 of the chat template: only users"),
        ("a\n{{ none.x.y }}", "line 2 of the chat template: 'None' has no attribute 'x'"),
        ("{{ 1 / 0 }}", "line 1 of the chat template: division by zero"),
        ("{{ 'a' + 1 }}", "line 1 of the chat template: can only concatenate"),
        ("{{ nothing() }}", "line 1 of the chat template: 'nothing' is undefined"),
        ("{% generation %}\n{{ 1 // 0 }}{% endgeneration %}", "line 2 of the chat template"),
    ],
)
def test_a_failing_template_names_its_line(source: str, message: str):
    with pytest.raises(InputError, match=message) as caught:
        render(source)
    assert str(caught.value).startswith("model: ")


def test_roles_that_do_not_alternate():
    wrong = [TURNS[0], TURNS[0]]
    for name in ("llama2", "mistral"):
        with pytest.raises(InputError, match="Conversation roles must alternate"):
            render(BUILTIN_TEMPLATES[name], wrong)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("{% for i in range(10**12) %}{% endfor %}", "Range too big"),
        (
            "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
            "its loops and calls take more than 1000000 steps",
        ),
        ("{% for i in range(9999) %}" * 3 + "x" + "{% endfor %}" * 3, "loops and calls take more"),
        ("{% for c in 'a' * 9999999 %}{% endfor %}", "its loops and calls take more"),
        ("{{ 'a' * 10**10 }}", "makes a value of more than 16000000 characters"),
        ("{{ 10**10 * [1] }}", "makes a value of more than"),
        ("{{ 10**(10**10) }}", "makes a value of more than"),
        (
            "{% set ns = namespace(x='aa') %}"
            "{% for i in range(60) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}",
            "makes a value of more than",
        ),
        (
            "{% set ns = namespace(x='aa') %}"
            "{% for i in range(60) %}{% set ns.x = ns.x + ns.x %}{% endfor %}",
            "makes a value of more than",
        ),
        ("{{ '%999999999d' % 1 }}", "pads text to more than 9999"),
        ("{% set a = 'a' * 9000000 %}{{ a }}{{ a }}", "writes more than 16000000 characters"),
        ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "calls itself without end"),
        ("{{ ''.__class__.__mro__ }}", "access to attribute '__class__'"),
        ("{{ messages.append(1) }}", "not safely callable|unsafe"),
        ("{{ cycler.__init__.__globals__ }}", "access to attribute '__init__'|unsafe"),
        ("{% include 'x' %}", "no loader for this environment"),
        ("{{ lipsum(n=10**9) }}", "'lipsum' is undefined"),
    ],
)
def test_a_hostile_template_fails_clearly_and_soon(source: str, message: str):
    started = time.perf_counter()
    with pytest.raises(InputError, match=message):
        render(source)
    assert time.perf_counter() - started < 5


def test_bounds_are_per_rendering():
    template = ChatTemplate("{% for i in range(90000) %}{% endfor %}done")
    for _ in range(15):
        assert template.render([], add_generation_prompt=False, tools=None, tokens={}) == "done"


def test_threads_render_at_once(tokenizer: Tokenizer):
    results: list[str] = []

    def work() -> None:
        for _ in range(50):
            results.append(tokenizer.render(TURNS, template=SMOLLM2))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 200 and len(set(results)) == 1
