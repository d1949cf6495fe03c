"""Training a vocabulary: byte-level BPE as in LLaMA-3, or byte fallback as in LLaMA 1 and 2."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from tokenizers import Regex, normalizers, pre_tokenizers

from puna.artifact import format_bytes
from puna.errors import InputError
from puna.tokens.bytelevel import alphabet, build_byte_level
from puna.tokens.learning import MAX_WORD_CHARS, Progress, covering, gathered, learn, tell
from puna.tokens.pretokenizers import PRE
from puna.tokens.scripts import words_pattern
from puna.tokens.source import Roles, Source
from puna.tokens.spm import SpmRules, build_spm
from puna.tokens.tokenizer import Tokenizer
from puna.tokens.vocabulary import SPACE, TokenType, Vocabulary, byte_of

_BYTES = 256
_WHERE = "the trained vocabulary"


@dataclass(frozen=True)
class VocabularyConfig:
    """What a vocabulary is to be."""

    kind: Literal["byte_bpe", "byte_fallback_bpe"] = "byte_bpe"
    """byte_bpe: pieces of bytes, words cut as LLaMA-3 cuts them. byte_fallback_bpe: pieces of
    characters with the space as a part of words, and rare characters written as bytes, as
    SentencePiece did for LLaMA 1 and 2; the better one for scripts that put marks on letters
    (Hindi, Arabic with vowels), which LLaMA-3's expression cuts at every mark."""
    size: int = 32_000
    """Number of ids, special tokens and bytes included."""
    min_frequency: int = 2
    """How often two pieces must stand side by side to become one."""
    split_digits: bool = True
    """Every digit is a token. Otherwise byte_bpe takes up to 3 digits together, and
    byte_fallback_bpe any number."""
    bos: str = "<s>"
    """The special token that begins a text."""
    eos: str = "</s>"
    """The special token that ends a text."""
    unk: str = "<unk>"
    """The unknown token; byte_fallback_bpe has one, though no text ever needs it."""
    extra_special: tuple[str, ...] = ()
    """Further special tokens; they have the last ids."""
    max_bytes: int = 256 * 2**20
    """Bytes of text to learn from, UTF-8; the text beyond is not read. They are held in memory,
    and learning takes several times as much, most for scripts without spaces."""
    character_coverage: float = 0.9995
    """byte_fallback_bpe: the share of the text's characters that get tokens of their own; the
    rarest ones are written as bytes."""

    def __post_init__(self) -> None:
        if self.kind not in ("byte_bpe", "byte_fallback_bpe"):
            raise InputError(
                f"kind is {self.kind!r}; expected byte_bpe or byte_fallback_bpe",
            )
        for name in ("size", "min_frequency", "max_bytes"):
            value = getattr(self, name)
            if type(value) is not int or value < 1:
                raise InputError(f"{name} must be a whole number of at least 1, not {value!r}")
        if not 0 < self.character_coverage <= 1:
            raise InputError(
                f"character_coverage is a share above 0 and up to 1, not {self.character_coverage}"
            )
        self._check_specials()
        least = _BYTES + len(self.specials)
        if self.size < least:
            raise InputError(
                f"a vocabulary of {self.size} is too small: 256 bytes and "
                f"{len(self.specials)} special tokens take {least}",
                fix=f"ask for a size of at least {least}; 8000 to 64000 are usual",
            )

    @property
    def specials(self) -> tuple[str, ...]:
        """All special tokens, in the order of their ids."""
        first = (self.unk,) if self.kind == "byte_fallback_bpe" else ()
        return (*first, self.bos, self.eos, *self.extra_special)

    def _check_specials(self) -> None:
        for name in self.specials:
            if not name or name != name.strip() or byte_of(name) is not None:
                raise InputError(
                    f"{name!r} cannot be a special token: it is empty, has spaces around it, or "
                    "is the name of a byte"
                )
        repeated = [name for name, count in Counter(self.specials).items() if count > 1]
        if repeated:
            raise InputError(f"the special token {repeated[0]!r} is named more than once")


def train_vocabulary(
    texts: Iterable[str], config: VocabularyConfig, *, progress: Progress | None = None
) -> Tokenizer:
    """Learn a vocabulary from texts; the same texts and configuration give the same one.

    Any text is encoded, and decodes to itself. byte_fallback_bpe has one exception, as LLaMA 1 and
    2 have it: U+2581, which stands for a space, decodes to a space. Its encoding needs no cutting
    into words, so that llama.cpp and the library `sentencepiece`, which do not cut, agree; that
    the files do is for speed.

    Args:
        texts: Documents, in an order that is fair to all sources: no more than the first
            `config.max_bytes` are read.
        config: What the vocabulary is to be.
        progress: Told what is being done, and the size where the text is too little for the one
            asked for. Without it, that is a warning.

    Raises:
        InputError: There is no text, or one is not valid Unicode; the characters to be covered do
            not fit into the size; a special token is spelled like a piece of the text.
    """
    sample = gathered(texts, config.max_bytes)
    if progress is not None:
        amount = format_bytes(sum(len(part.encode("utf-8")) for part in sample))
        progress(f"learning a vocabulary of {config.size} from {amount} of text")
    train = _byte_level if config.kind == "byte_bpe" else _byte_fallback
    tokenizer = train(sample, config)
    if tokenizer.vocab_size < config.size:
        tell(
            f"the vocabulary has {tokenizer.vocab_size} tokens, not the {config.size} asked for: "
            f"no more pairs occur {config.min_frequency} times in the text",
            progress,
        )
    return tokenizer


def _byte_level(sample: Sequence[str], config: VocabularyConfig) -> Tokenizer:
    pre = "qwen2" if config.split_digits else "llama-bpe"  # llama.cpp's names: GGUF can say them
    cuts = [_split(pattern) for pattern in PRE[pre].patterns]
    to_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    specials = config.specials
    pieces, merges = learn(
        pre_tokenizers.Sequence([*cuts, _shortened(), to_bytes]),
        sample,
        size=config.size - len(specials),
        min_frequency=config.min_frequency,
        alphabet=sorted(alphabet().values()),
    )
    types = [TokenType.NORMAL] * len(pieces) + [TokenType.CONTROL] * len(specials)
    vocabulary = _checked(pieces, Vocabulary([*pieces, *specials], types), config)
    backend = build_byte_level(vocabulary, merges, pre=pre, where=_WHERE)
    return _tokenizer(Source(backend, _WHERE, vocabulary=vocabulary, pre=pre), config)


def _byte_fallback(sample: Sequence[str], config: VocabularyConfig) -> Tokenizer:
    chars = _characters(sample, config)
    named = [config.unk, config.bos, config.eos]
    fixed = len(named) + _BYTES + len(config.extra_special)
    least = fixed + len(chars)
    if config.size < least:
        raise InputError(
            f"a vocabulary of {config.size} is too small: {len(chars)} characters make up "
            f"{config.character_coverage:.2%} of the text, and take {least} with the 256 bytes "
            "and the special tokens",
            fix=f"ask for a size of at least {least}, or lower character_coverage",
        )
    pattern = words_pattern(split_digits=config.split_digits)
    pieces, _ = learn(
        pre_tokenizers.Sequence([_split(pattern), _shortened()]),
        sample,
        size=config.size - fixed,
        min_frequency=config.min_frequency,
        alphabet=chars,
        normalizer=normalizers.Sequence(
            [normalizers.Prepend(SPACE), normalizers.Replace(" ", SPACE)]
        ),
    )
    pieces = [*pieces[len(chars) :], *chars]  # as in LLaMA: merged ones first, best first
    vocabulary = _checked(pieces, _spm_vocabulary(pieces, named, config), config)
    rules = SpmRules("bpe", unk_id=0, byte_fallback=True, add_dummy_prefix=True)
    backend = build_spm(vocabulary, rules, where=_WHERE)
    # Short words are looked up, a whole text would be merged from its characters every time.
    backend.pre_tokenizer = _split(pattern)
    return _tokenizer(Source(backend, _WHERE, vocabulary=vocabulary), config)


def _characters(sample: Sequence[str], config: VocabularyConfig) -> list[str]:
    """The characters that get tokens, most frequent first; U+2581 always does."""
    counts: Counter[str] = Counter()
    for text in sample:
        counts.update(text)
    counts[SPACE] += counts.pop(" ", 0)
    chars = covering(counts, config.character_coverage, min_frequency=config.min_frequency)
    return chars if SPACE in chars else [*chars, SPACE]


def _spm_vocabulary(
    pieces: Sequence[str], named: Sequence[str], config: VocabularyConfig
) -> Vocabulary:
    """Tokens in LLaMA's order, with scores that fall from piece to piece."""
    extra = config.extra_special
    return Vocabulary(
        [*named, *(f"<0x{byte:02X}>" for byte in range(_BYTES)), *pieces, *extra],
        [
            TokenType.UNKNOWN,
            *[TokenType.CONTROL] * 2,
            *[TokenType.BYTE] * _BYTES,
            *[TokenType.NORMAL] * len(pieces),
            *[TokenType.CONTROL] * len(extra),
        ],
        [
            *[0.0] * (len(named) + _BYTES),
            *(-float(rank) for rank in range(len(pieces))),
            *[0.0] * len(extra),
        ],
    )


def _checked(pieces: Sequence[str], vocabulary: Vocabulary, config: VocabularyConfig) -> Vocabulary:
    """The vocabulary, when no special token is spelled like a piece: one name, two meanings."""
    doubled = frozenset(pieces).intersection(config.specials)
    if doubled:
        raise InputError(
            f"the special token {min(doubled)!r} is spelled like a piece of the text",
            fix="give it a name that no text has, such as <|name|>",
        )
    return vocabulary.checked(_WHERE)


def _tokenizer(source: Source, config: VocabularyConfig) -> Tokenizer:
    ids = {name: source.backend.token_to_id(name) for name in config.specials}
    roles = Roles(
        bos_id=ids[config.bos],
        eos_id=ids[config.eos],
        unk_id=ids[config.unk] if config.kind == "byte_fallback_bpe" else None,
        add_bos=True,
        add_eos=False,
    )
    return Tokenizer(source, roles)


def _split(pattern: str) -> pre_tokenizers.PreTokenizer:
    return pre_tokenizers.Split(Regex(pattern), "isolated")


def _shortened() -> pre_tokenizers.PreTokenizer:
    """Words of a bounded length, for learning only.

    A page of Thai is one word, as is a file in base64: its pieces would be phrases, and each
    merge would cost the length of the page.
    """
    return _split(rf"[\s\S]{{{MAX_WORD_CHARS}}}")
