"""The filter of lines: what it keeps, what it leaves out, and that it bears any page."""

from __future__ import annotations

import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from puna.corpus.extract.furniture import says_furniture
from puna.corpus.extract.lines import lines_of, main_lines
from puna.corpus.extract.marking import MARKS, hidden, lightened, marked

LINK, UNLINK, PARAGRAPH, HEADING, ITEM = MARKS
SENTENCE = "The herds of the high grassland move to the valleys when the first snow falls."


def page_lines(*lines: str) -> str:
    return "\n".join(lines)


def linked(text: str) -> str:
    return LINK + text + UNLINK


def test_lines_are_measured() -> None:
    page = page_lines(
        HEADING + "A title",
        "",
        PARAGRAPH + f"See {linked('this page')} for more.",
        ITEM + linked("Home"),
        "高原上的牧群。",
    )
    title, paragraph, item, chinese = lines_of(page)
    assert (title.text, title.heading, title.gap) == ("A title", True, False)
    assert (paragraph.text, paragraph.paragraph, paragraph.gap) == (
        "See this page for more.",
        True,
        True,
    )
    assert paragraph.links == pytest.approx(9 / 23)
    assert (item.text, item.item, item.links) == ("Home", True, 1.0)
    assert (chinese.size, chinese.ended, chinese.sentences) == (7 + 2 * 6, True, 1)


def test_a_link_goes_on_over_lines() -> None:
    page = page_lines(f"before {LINK}a title", "its teaser", f"the end{UNLINK} after", "next")
    assert [round(line.links, 2) for line in lines_of(page)] == [0.5, 1.0, 0.54, 0.0]


def test_main_text_is_kept_with_what_stands_within_it() -> None:
    page = page_lines(
        linked("Home"),
        linked("News"),
        HEADING + "The title of the page",
        "By Ana Quispe",
        PARAGRAPH + SENTENCE,
        "",
        HEADING + "A heading within",
        "",
        ITEM + "one thing",
        ITEM + "another thing",
        PARAGRAPH + f"Short {linked('link')} here.",
        "Share this article",
        PARAGRAPH + SENTENCE + " Again.",
        "",
        HEADING + "More stories",
        linked("Why llamas hum, and what it tells"),
        "© 2026 The Grassland Post. All rights reserved.",
    )
    kept = main_lines(page)
    assert kept.text == page_lines(
        SENTENCE,
        "",
        "A heading within",
        "",
        "one thing",
        "another thing",
        "Short link here.",
        SENTENCE + " Again.",
    )
    assert 0.4 < kept.share < 0.9


def test_a_page_of_links_has_no_main_text() -> None:
    kept = main_lines(page_lines(*(linked(f"Story {number} of today") for number in range(50))))
    assert (kept.text, kept.size, kept.share) == ("", 0, 0.0)


def test_a_poem_is_kept() -> None:
    poem = ["Two llamas went up to the puna", "to look at the stars and the moon,", "", "and came"]
    assert main_lines(page_lines(*poem, linked("Home"))).text == page_lines(*poem)
    assert main_lines(page_lines("a poem", linked("a long list"), linked("of links"))).text == ""


def test_code_keeps_its_indentation() -> None:
    page = page_lines(PARAGRAPH + SENTENCE, "for llama in herd:", "    feed(llama)", SENTENCE)
    assert "\n    feed(llama)\n" in main_lines(page).text


@pytest.mark.parametrize(
    "line",
    [
        "Share this article",
        "Sign up for our newsletter",
        "READ MORE: the llamas of Cusco",
        "Photo by Ana Quispe",
        "© 2026 The Grassland Post",
        "We use cookies to improve your experience.",
        "5 min read",
        "责任编辑：王芳",
        "相关阅读",
        "Lire aussi : les lamas",
    ],
)
def test_furniture_is_known(line: str) -> None:
    assert says_furniture(line)


@pytest.mark.parametrize(
    "line",
    [
        "The share price fell.",
        "Shares fell by a third on Monday.",
        "Published works of the author fill a shelf.",
        "Byron wrote it.",
        "Photography was young when he came to Lima, and plates had to be carried by mule.",
        "相关部门表示，草原恢复良好。",
        "",
    ],
)
def test_text_is_not_furniture(line: str) -> None:
    assert not says_furniture(line)


def test_pages_get_lighter_and_lose_no_text() -> None:
    page = (
        "<!-- a <script> in a comment --><p>one</p><script>var a = '<p>no</p>';</script>"
        "<style >p {}</style><svg><path d=''/></svg><!--><p>two</p><scripted>three</scripted>"
    )
    assert lightened(page) == "<p>one</p><p>two</p><scripted>three</scripted>"
    for unended in ("<!-- x <p>y</p>", "<script>x <p>y</p>", "<p>y</p><svg></svg"):
        assert lightened(unended) == unended


def test_what_resiliparse_gives_is_marked() -> None:
    page = (
        '<h2>T &amp; t</h2>\n\n<p>a <a href="/b?c=&quot;">b</a> &lt;p></p>\n<ul>\n'
        '  <li>d</li>\n</ul>\n<a href="/picture">\ntext<br>\n<pre>e\n  f</pre>'
    )
    assert marked(page) == (
        f"{HEADING}T & t\n\n{PARAGRAPH}a {LINK}b{UNLINK} <p>\n\n  {ITEM}d\n\n\ntext\ne\n  f"
    )


@pytest.mark.parametrize(
    ("tag", "is_hidden"),
    [
        ('<div class="caption">', True),
        ('<div class="site-newsletterBox">', True),
        ("<span class='img credit'>", True),
        ("<section id=cookie-banner>", True),
        ('<p data-x="1" class="Disclaimer">', True),
        ('<div class="article-body has-promo">', False),
        ('<div class="promoted">', False),
        ('<div title="a caption">', False),
        ('<div data-id="promo">', False),
        ("<div>", False),
    ],
)
def test_furniture_is_hidden_by_its_class(tag: str, is_hidden: bool) -> None:
    page = f"İ caption <b>x</b>{tag}y</div>{tag}"
    expected = page.replace(tag, tag[:-1] + " hidden>") if is_hidden else page
    assert hidden(page) == expected


@given(st.text(alphabet=st.sampled_from("<>/apdivclss!- bo\"'=\n"), max_size=300))
def test_nothing_but_attributes_is_added(page: str) -> None:
    assert hidden(page).replace(" hidden>", ">") == page
    assert len(lightened(page)) <= len(page)


@given(st.lists(st.text(alphabet=st.sampled_from("ab. 。,\t高" + MARKS)), max_size=40))
def test_kept_lines_are_lines_of_the_page_in_order(lines: list[str]) -> None:
    page = page_lines(*lines)
    kept = main_lines(page)
    given_lines = iter([line.text for line in lines_of(page)])
    assert all(line in given_lines for line in kept.text.splitlines() if line.strip())
    assert not set(kept.text) & set(MARKS)
    assert 0 <= kept.share <= 1
    assert all(0 <= line.links <= 1 for line in lines_of(page))


@pytest.mark.parametrize(
    "part",
    [
        "<div ",
        "<a",
        "<a ",
        "<!--",
        "<script",
        "</a ",
        "<p class=",
        "<title>",
        "<svg>",
        "<li<",
        ". ",
        LINK,
    ],
)
def test_hostile_pages_take_time_in_proportion(part: str) -> None:
    began = time.process_time()
    page = part * (40_000 // len(part))
    main_lines(marked(hidden(lightened(page))))
    main_lines(re.sub(r"\s", "\n", marked(page)))
    assert time.process_time() - began < 2
