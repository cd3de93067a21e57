"""What the HTML pages of reports share: their style, and a document that needs nothing but itself.

Whatever comes from documents (names, paths, labels) goes through `escaped` or `isolated` before it stands in a page.
"""

from __future__ import annotations

import base64
import hashlib
import html
import unicodedata

STYLE = """
:root { color-scheme: light dark; --ink: #1c2330; --soft: #5b6675; --line: #dde2e9; --page: #f5f7fa; --card: #ffffff;
  --error: #b3261e; --warning: #9a5b00; --info: #2b5fa8; --success: #1c7a43; --bar: #7fa3d4; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6eaf0; --soft: #a2adbb; --line: #333c48; --page: #14181e;
  --card: #1d232b; --error: #ff8a80; --warning: #f0b35a; --info: #8bb8f5; --success: #6fd195; --bar: #46689a; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 60rem; padding: 1.25rem 1rem 3rem; background: var(--page); color: var(--ink);
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
h1 { font-size: 1.4rem; line-height: 1.25; margin: 0 0 .25rem; overflow-wrap: anywhere; }
h2 { font-size: 1.1rem; margin: 2rem 0 .6rem; }
p { margin: .3rem 0; }
.soft { color: var(--soft); }
.totals { display: flex; flex-wrap: wrap; gap: .5rem; margin: 1rem 0; padding: 0; list-style: none; }
.totals li { border: 1px solid var(--line); border-radius: 999px; background: var(--card); padding: .15rem .8rem; }
article { background: var(--card); border: 1px solid var(--line); border-left: 4px solid var(--tone);
  border-radius: 6px; padding: .7rem 1rem; margin: .7rem 0; }
.error { --tone: var(--error); } .warning { --tone: var(--warning); } .info { --tone: var(--info); }
.success { --tone: var(--success); }
.tag { color: var(--tone); font-weight: 600; font-size: .8rem; letter-spacing: .04em; text-transform: uppercase; }
details { margin-top: .4rem; } summary { cursor: pointer; color: var(--soft); }
details ul { margin: .4rem 0 0; padding-left: 1.1rem; }
details li { font: .82rem/1.5 ui-monospace, SFMono-Regular, Consolas, monospace; overflow-wrap: anywhere; }
.scroll { overflow-x: auto; background: var(--card); border: 1px solid var(--line); border-radius: 6px; }
table { border-collapse: collapse; width: 100%; font-size: .9rem; }
th, td { padding: .35rem .7rem; text-align: right; white-space: nowrap; font-variant-numeric: tabular-nums; }
th { color: var(--soft); font-weight: 500; border-bottom: 1px solid var(--line); }
th:first-child, td:first-child { text-align: left; }
td.name { white-space: normal; overflow-wrap: anywhere; min-width: 5rem; }
td.wide { width: 35%; }
@media (max-width: 40rem) { .wide { display: none; } th, td { padding: .35rem .45rem; } }
.bar { display: block; height: .7rem; min-width: 2px; border-radius: 2px; background: var(--bar); }
"""

# Letters that turn the direction of the text after them; joiners, which emoji and many scripts need, are none of them.
_TURNING = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def document(title: str, body: str, *, style: str = "", script: str = "") -> str:
    """A whole page around the HTML `body`; a policy in it stops the browser from loading or running anything else.

    Args:
        title: plain text.
        body: HTML.
        style: CSS after `STYLE`.
        script: JavaScript that the page must also do without.
    """
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    allowed = f"'sha256-{digest}'" if script else "'none'"
    policy = (
        f"default-src 'none'; style-src 'unsafe-inline'; img-src data:; script-src {allowed}; "
        "base-uri 'none'; form-action 'none'"
    )
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escaped(title)}</title>\n<style>{STYLE}{style}</style>\n</head>\n<body>\n{body}\n"
        + (f"<script>{script}</script>\n" if script else "")
        + "</body>\n</html>\n"
    )


def escaped(text: object) -> str:
    """Text as HTML; control characters, which would vanish or turn the text around, are spelled out."""
    return html.escape("".join(_visible(letter) for letter in str(text)), quote=True)


def isolated(text: object) -> str:
    """Text as HTML whose writing direction leaves its surroundings alone: a name, a label."""
    return f"<bdi>{escaped(text)}</bdi>"


def path_code(path: object) -> str:
    """A path as HTML: from the left like all paths, whatever the writing direction of its names."""
    return f'<code><bdi dir="ltr">{escaped(path)}</bdi></code>'


def bar(share: float) -> str:
    """A bar as wide as a share from 0 to 1 of its cell; none for 0."""
    return f'<span class="bar" style="width:{100 * share:.1f}%"></span>' if share > 0 else ""


def _visible(letter: str) -> str:
    if letter in "\n\t":
        return letter
    is_hidden = letter in _TURNING or unicodedata.category(letter) in ("Cc", "Cs")
    return f"⟨U+{ord(letter):04X}⟩" if is_hidden else letter
