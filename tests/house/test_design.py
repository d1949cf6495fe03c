"""docs/design.md and the house agree: the same ladder, and the rooms that are here today."""

from __future__ import annotations

import re

from house.ladder import LADDER
from house.source import REPOSITORY

PAGE = (REPOSITORY / "docs" / "design.md").read_text(encoding="utf-8")
PACKAGE = REPOSITORY / "src" / "puna"


def rooms_in_table() -> dict[str, str]:
    return dict(re.findall(r"^\| `(\w+)` \|.*\| (here|to come) \|$", PAGE, flags=re.MULTILINE))


def is_here(room: str) -> bool:
    return (PACKAGE / f"{room}.py").is_file() or (PACKAGE / room / "__init__.py").is_file()


def test_the_ladder_on_the_page_is_the_one_that_is_tested() -> None:
    block = re.search(r"^```ladder\n(.*?)^```$", PAGE, flags=re.MULTILINE | re.DOTALL)
    assert block, "docs/design.md has no block named ladder"
    assert tuple(tuple(rung.split()) for rung in block[1].split("<")) == LADDER


def test_every_room_has_its_row() -> None:
    rooms = [room for rung in LADDER for room in rung if room != "__main__"]
    assert sorted(rooms_in_table()) == sorted(rooms)


def test_the_table_says_which_rooms_are_here() -> None:
    told = {room for room, state in rooms_in_table().items() if state == "here"}
    there = {room for room in rooms_in_table() if is_here(room)}
    assert told == there, (
        f"told to be here but absent: {sorted(told - there)}; here but not told: "
        f"{sorted(there - told)}"
    )
