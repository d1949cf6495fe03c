"""The small files beside a tokenizer, as transformers reads and writes them.

They are tokenizer_config.json, special_tokens_map.json, added_tokens.json, chat_template.jinja and
chat_template.json.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from puna.artifact import parse_json
from puna.errors import InputError
from puna.tokens.source import DEFAULT_TEMPLATE, Roles, Source
from puna.tokens.vocabulary import TokenType

CONFIG = "tokenizer_config.json"
SPECIAL_TOKENS = "special_tokens_map.json"
CHAT_TEMPLATE = "chat_template.jinja"
OLD_CHAT_TEMPLATE = "chat_template.json"
ADDED_TOKENS = "added_tokens.json"


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
        templates=read_templates(files, where=where),
    )


def added_tokens(files: Mapping[str, bytes], *, where: Path) -> dict[int, tuple[str, int]]:
    """Tokens that the side files add to a `tokenizer.model`: text and type by id.

    They are in tokenizer_config.json, or by text in added_tokens.json; of the latter those are
    special that another file names so.

    Raises:
        InputError: A file is broken, or two of them give one id to different tokens.
    """
    added = _added_tokens_decoder(files, where)
    special = set(_special_names(files, where))
    for text, index in _read_object(files, ADDED_TOKENS, where).items():
        if type(index) is not int or index < 0 or not text:
            raise InputError(
                f"{text!r} has the id {index!r}; expected a whole number from 0",
                where=where / ADDED_TOKENS,
            )
        known = added.get(index, (text, 0))[0]
        if known != text:
            raise InputError(
                f"the id {index} is that of {text!r} here and of {known!r} elsewhere",
                where=where / ADDED_TOKENS,
            )
        kind = TokenType.CONTROL if text in special else TokenType.USER_DEFINED
        added.setdefault(index, (text, kind))
    return added


def _special_names(files: Mapping[str, bytes], where: Path) -> Iterator[str]:
    """Every token that special_tokens_map.json or tokenizer_config.json has a role for."""
    for name in (SPECIAL_TOKENS, CONFIG):
        for key, value in _read_object(files, name, where).items():
            if not key.endswith(("_token", "_special_tokens")):
                continue
            for token in value if isinstance(value, list) else [value]:
                text = token.get("content") if isinstance(token, dict) else token
                if isinstance(text, str):
                    yield text


def _added_tokens_decoder(files: Mapping[str, bytes], where: Path) -> dict[int, tuple[str, int]]:
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


def read_templates(files: Mapping[str, bytes], *, where: Path) -> dict[str, str]:
    """The chat templates by name, from the first of the files that has any.

    That is chat_template.jinja, or else the key `chat_template` of tokenizer_config.json or of
    chat_template.json: one text or a list of named ones.

    Raises:
        InputError: A file is broken, or its templates have the wrong type.
    """
    if CHAT_TEMPLATE in files:
        try:
            return {DEFAULT_TEMPLATE: files[CHAT_TEMPLATE].decode("utf-8")}
        except UnicodeDecodeError as error:
            raise InputError(
                f"is not UTF-8 at byte {error.start}", where=where / CHAT_TEMPLATE
            ) from error
    place, value = CONFIG, _read_object(files, CONFIG, where).get("chat_template")
    if value is None:
        place = OLD_CHAT_TEMPLATE
        value = _read_object(files, OLD_CHAT_TEMPLATE, where).get("chat_template")
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
        where=where / place,
    )
