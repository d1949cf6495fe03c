"""Real-looking sentences, and what two imaginary systems made of them."""

from __future__ import annotations

import random

TEXT = (
    "a man in a blue shirt is standing on a ladder cleaning the window while two young girls "
    "play with their dog near the old bridge , and a crowd watches them from the other side ."
)
WORDS = TEXT.split()


def references(count: int, seed: int = 0) -> list[str]:
    """Sentences of 1 to 20 words."""
    rng = random.Random(seed)
    return [" ".join(rng.choices(WORDS, k=rng.randint(1, 20))) for _ in range(count)]


def corrupted(sentences: list[str], share: float, seed: int = 0) -> list[str]:
    """The sentences with a share of their words changed, dropped, doubled or moved."""
    rng = random.Random(seed)
    found = []
    for sentence in sentences:
        words: list[str] = []
        for word in sentence.split():
            if rng.random() >= share:
                words.append(word)
            else:
                words += rng.choice(([], [rng.choice(WORDS)], [word, word]))
        if rng.random() < share:
            rng.shuffle(words)
        found.append(" ".join(words))
    return found
