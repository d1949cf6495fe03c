"""Incremental decoding: text as soon as it is certain, and never half a character."""

from __future__ import annotations

from collections.abc import Callable

from puna.tokens.bytelevel import decode_utf8


class StreamDecoder:
    """Turns ids into text one at a time; made by `Tokenizer.stream`.

    What all `push` and the last `finish` return, put together, is `Tokenizer.decode` of all ids.
    At most three bytes are held back, so a push costs the same however long the text is.
    """

    def __init__(self, piece: Callable[[int], bytes], *, each_byte: bool, strip_spaces: int):
        """See `Tokenizer.stream`.

        Args:
            piece: The bytes of a token; empty for one that is skipped.
            each_byte: How ill-formed bytes are shown; see `bytelevel.decode_utf8`.
            strip_spaces: How many spaces are removed from the beginning of the text.
        """
        self._piece = piece
        self._each_byte = each_byte
        self._strip_left = strip_spaces
        self._pending = b""

    def push(self, token_id: int) -> str:
        """The text that becomes certain with one more token; often empty.

        Raises:
            InputError: The id is not of this vocabulary.
        """
        data = self._piece(token_id)
        if self._strip_left and data:
            data = self._strip(data)
        data = self._pending + data
        text, consumed = decode_utf8(data, each_byte=self._each_byte, final=False)
        self._pending = data[consumed:]
        return text

    def finish(self) -> str:
        """What was held back: replacement characters for a character that never came complete."""
        text, _ = decode_utf8(self._pending, each_byte=self._each_byte, final=True)
        self._pending = b""
        return text

    def _strip(self, data: bytes) -> bytes:
        rest = data.lstrip(b" ")
        spaces = len(data) - len(rest)
        kept = max(0, spaces - self._strip_left)
        at_start = not rest and not kept
        self._strip_left = self._strip_left - spaces if at_start else 0
        return data[spaces - kept :]
