"""How lines begin that belong to a page, not to its text: in English, Chinese and a few others."""

from __future__ import annotations

import re

_BEGINNINGS = (
    # what to do with the page
    r"share (?:this|on|via|with|your)\b|sharing is caring|like this|e-?mail (?:this|us)\b|pin it",
    r"subscribe|sign[ -]?(?:up|in) (?:for|to|with|now|here|today)\b|log[ -]?in (?:to|with)\b",
    r"follow (?:us|me|him|her|@|on)\b|join (?:our|us\b|the conversation)|donate (?:now|today|to)\b",
    r"download (?:the|our) app|get (?:the|our) (?:app|newsletter|latest)|click (?:here|to)\b",
    r"please (?:enable|disable|log in|sign|share)|support (?:us|our|\w+ (?:so|and))\b|your email",
    r"become a (?:member|subscriber|patron|supporter)|want to (?:block|read|learn) more|enter your",
    r"thank(?:s| you) for (?:reading|subscribing|signing)|leave a (?:comment|reply)|report an? ",
    r"by (?:signing|joining|subscribing|clicking|continuing)\b|view (?:all|more|comments|gallery)",
    # where else to go
    r"read (?:more|also|next|the full|our)\b|also read\b|see also\b|you (?:may|might) also like",
    r"related (?:articles|stories|posts|topics|coverage|news)|most (?:read|popular|viewed)|up next",
    r"more (?:from|stories|like this)\b|(?:next|previous) (?:article|story|post)\b|don['’]t miss",
    r"in case you missed|watch (?:now|live|more|this|:)|watch:|listen (?:to|live|now)\b",
    r"check out (?:my|our)\b",
    # what it is
    r"advertis(?:e|ement)\b|sponsored (?:by|content|post)|this (?:web)?site (?:uses|is protected)",
    r"this (?:slideshow|post may)\b|we use cookies|copyright\b|\(c\) ?(?:19|20)|©|all rights res",
    r"images?(?: \d| source| credit| via|:)|credits?:|pictures?:|video:|photos?:|source:|via:",
    r"filed (?:under|to)\b|(?:tags?|topics?|categor(?:y|ies)):",
    r"(?:additional )?(?:report|writ|edit)ing by\b",
    # in other languages
    r"责任编辑|责编|编辑[:：]|来源[:：]|版权|转载|相关(?:阅读|文章|新闻)|上一篇|下一篇|点击|扫码|关注我们",
    r"저작권자|무단전재|ⓒ|関連記事|lesen sie auch|mehr zum thema|(?:à )?lire aussi",
    r"le[ea]r? también|leia (?:também|mais)|leggi anche|foto:|fonte:|fuente:",
    r"читайте также|источник:|baca juga",
)
# With little else in the line: in a sentence they would be words like others.
_NEARLY_WHOLE = (
    r"share:?|tweet|print|e-?mail|reply|register|sign[ -]?(?:up|in)|log[ -]?in|donate|loading",
    r"(?:back|go|jump|skip) to|(?:post|show|load|add|all|\d+)? ?comments?|gallery|related|trending",
    r"recommended|promoted|sponsored|privacy|terms (?:of|and)|disclaimer|more (?:on|in|about|news)",
    r"photo(?:graph|s)?(?: (?:by|credit|from|courtesy)\b.{0,30})?|分享到?[:：]?",
    r"posted (?:by|on|in|at)|(?:(?:last|first) )?(?:updated|published)(?: (?:by|on|in|at)|:)",
    r"(?:last )?updated \w+ \d+|\d+ (?:min(?:ute)?s?|hours?|days?) (?:read|ago)|min(?:ute)? read",
)
_FURNITURE = re.compile(
    f"(?:{'|'.join(_BEGINNINGS)})|(?:{'|'.join(_NEARLY_WHOLE)})(?!\\w).{{0,40}}$", re.IGNORECASE
)
_BYLINE = re.compile(r"By [A-Z]\S+(?: \S+){0,4}$")


def says_furniture(line: str) -> bool:
    """Whether a short line begins as those do that are no main text."""
    return _FURNITURE.match(line) is not None or _BYLINE.match(line) is not None
