"""Tiny random LLaMAs: transformers' own, ours with the same weights, and folders of them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from tokenizers import AddedToken, decoders, models, pre_tokenizers, trainers
from tokenizers import Tokenizer as Backend
from transformers import LlamaConfig as ReferenceConfig
from transformers import LlamaForCausalLM

from puna.model import LlamaConfig, LlamaModel, build

VOCAB = 96
SPECIALS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
WORDS = "Once upon a time there was a llama in the high grassland. She asked: where is the sea? "


def reference(seed: int = 0, **changes: Any) -> LlamaForCausalLM:
    """A random model of transformers, far enough from uniform that greedy text is not constant."""
    shape = {
        "vocab_size": VOCAB,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 128,
        "initializer_range": 0.4,
        "bos_token_id": None,
        "eos_token_id": None,
        "pad_token_id": 0,
    }
    torch.manual_seed(seed)
    return LlamaForCausalLM(ReferenceConfig(**{**shape, **changes})).eval()


def twin(model: LlamaForCausalLM) -> LlamaModel:
    """Our model with the weights of a model of transformers."""
    return build(LlamaConfig.from_hf(model.config.to_dict()), model.state_dict().items())


def greedy(model: LlamaForCausalLM, prompt: Sequence[int], tokens: int) -> list[int]:
    """What transformers' `generate` adds to a prompt."""
    ids = torch.tensor([list(prompt)])
    out = model.generate(
        ids, attention_mask=torch.ones_like(ids), max_new_tokens=tokens, do_sample=False
    )
    return out[0, len(prompt) :].tolist()


def byte_level_backend() -> Backend:
    """A byte-level BPE: all bytes, a few words, and the special tokens of ChatML."""
    backend = Backend(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=320,
        show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=[AddedToken(name, special=True, normalized=False) for name in SPECIALS],
    )
    backend.train_from_iterator([WORDS], trainer)
    return backend


def save_folder(folder: Path, *, template: str | None = TEMPLATE, context: int = 65536) -> Path:
    """A Hugging Face folder of a random model whose greedy text is printable ASCII."""
    backend = byte_level_backend()
    size = backend.get_vocab_size()
    model = reference(seed=3, vocab_size=size, max_position_embeddings=context)
    with torch.no_grad():
        for index in range(size):
            text = backend.decode([index])
            if not (text.isascii() and text.isprintable() and text):
                model.lm_head.weight[index] = 0  # never the likeliest of three hundred
    model.save_pretrained(folder)
    backend.save(str(folder / "tokenizer.json"))
    config: dict[str, Any] = {"eos_token": SPECIALS[2], "tokenizer_class": "PreTrainedTokenizer"}
    if template is not None:
        config["chat_template"] = template
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return folder
