"""The small files beside a tokenizer, as transformers reads and writes them.

They are tokenizer_config.json, special_tokens_map.json and chat_template.jinja.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from puna.artifact import parse_json
from puna.errors import InputError
from puna.tokens.source import DEFAULT_TEMPLATE, Roles, Source
from puna.tokens.vocabulary import TokenType

CONFIG = "tokenizer_config.json"
SPECIAL_TOKENS = "special_tokens_map.json"
CHAT_TEMPLATE = "chat_template.jinja"


def read_sidecar(files: Mapping[str, bytes], source: Source, *, where: Path) -> Roles:
    """What the side files say; all None where there are none.

    Raises:
        InputError: A file is not JSON, a value has the wrong type, or a token is not in the
            vocabulary.
    """
    config = _read_object(files, CONFIG, where)
    special = _read_object(files, SPECIAL_TOKENS, where)
    ids = {}
    for role in ("bos", "eos", "pad", "unk"):
        key = f"{role}_token"
        name, tokens = (CONFIG, config) if key in config else (SPECIAL_TOKENS, special)
        ids[role] = _token_id(tokens.get(key), key, source, where / name)
    return Roles(
        bos_id=ids["bos"],
        eos_id=ids["eos"],
        pad_id=ids["pad"],
        unk_id=ids["unk"],
        add_bos=_flag(config, "add_bos_token", where),
        add_eos=_flag(config, "add_eos_token", where),
        templates=_templates(files, config, where),
    )


def added_tokens(files: Mapping[str, bytes], *, where: Path) -> dict[int, tuple[str, int]]:
    """Tokens that tokenizer_config.json adds to a `tokenizer.model`: text and type by id."""
    table = _read_object(files, CONFIG, where).get("added_tokens_decoder", {})
    added: dict[int, tuple[str, int]] = {}
    try:
        for key, token in table.items():
            text, special = token["content"], token.get("special", False)
            if not isinstance(text, str) or not text:
                raise TypeError(f"content is {text!r}")
            added[int(key)] = (text, TokenType.CONTROL if special else TokenType.USER_DEFINED)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"added_tokens_decoder: expected tokens by id, found {error!r}", where=where / CONFIG
        ) from error
    return added


def _read_object(files: Mapping[str, bytes], name: str, where: Path) -> dict[str, Any]:
    if name not in files:
        return {}
    value = parse_json(files[name], where=where / name)
    if not isinstance(value, dict):
        raise InputError("is not a JSON object", where=where / name)
    return value


def _token_id(value: Any, key: str, source: Source, where: Path) -> int | None:
    """The id of a token that is given as text, or as an object with its text in `content`."""
    text = value.get("content") if isinstance(value, dict) else value
    if text is None or text == "":  # early conversions of LLaMA have empty ones
        return None
    if not isinstance(text, str):
        raise InputError(f"{key} is {text!r}; expected a token", where=where)
    index = source.backend.token_to_id(text)
    if index is None:
        raise InputError(
            f"{key} is {text!r}, which is not in the vocabulary",
            where=where,
            fix=f"name a token of {source.where}, or remove the key",
        )
    return int(index)


def _flag(config: Mapping[str, Any], key: str, where: Path) -> bool | None:
    value = config.get(key)
    if value is not None and not isinstance(value, bool):
        raise InputError(f"{key} is {value!r}; expected true or false", where=where / CONFIG)
    return value


def _templates(
    files: Mapping[str, bytes], config: Mapping[str, Any], where: Path
) -> dict[str, str]:
    """chat_template.jinja if it is there, else `chat_template`: one text or a list of named."""
    if CHAT_TEMPLATE in files:
        try:
            return {DEFAULT_TEMPLATE: files[CHAT_TEMPLATE].decode("utf-8")}
        except UnicodeDecodeError as error:
            raise InputError(
                f"is not UTF-8 at byte {error.start}", where=where / CHAT_TEMPLATE
            ) from error
    value = config.get("chat_template")
    match value:
        case None:
            return {}
        case str():
            return {DEFAULT_TEMPLATE: value}
        case list() if all(
            isinstance(item, dict)
            and isinstance(item.get("name"), str)
            and isinstance(item.get("template"), str)
            for item in value
        ):
            return {item["name"]: item["template"] for item in value}
    raise InputError(
        "chat_template: expected a text, or a list of objects with name and template",
        where=where / CONFIG,
    )
