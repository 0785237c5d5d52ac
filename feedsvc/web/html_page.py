"""Pages for people: text and one style, no script, and nothing from elsewhere."""

from html import escape
from typing import Final

from aiohttp import web

from feedsvc.web import security

_STYLE: Final = """body { font: 1rem/1.5 system-ui, sans-serif; max-width: 46rem; margin: 3rem auto;
padding: 0 1rem; color-scheme: light dark }
code { background: #8882; padding: 0 .2em; overflow-wrap: anywhere }
pre { background: #8882; padding: .6em; overflow-x: auto } pre code { background: none; padding: 0 }
h2 { margin-top: 3rem } h3 { margin-top: 2.5rem }
table { border-collapse: collapse; width: 100% }
th, td { text-align: left; vertical-align: top; padding: .2em .8em .2em 0;
border-bottom: 1px solid #8884 }
small { opacity: .75 }"""
_HEADERS: Final = {"Content-Security-Policy": security.policy_with_style(_STYLE)}
_DOCUMENT: Final = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>{title}</title>
<style>{style}</style>
<h1>{title}</h1>
{body}
</html>
"""


def document(title: str, body: str) -> str:
    """The whole page; the title is text, the body HTML."""
    return _DOCUMENT.format(style=_STYLE, title=escape(title), body=body)


def response(text: str, **headers: str) -> web.Response:
    """The page as an answer, whose policy lets in its style and nothing else."""
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    return web.Response(text=text, content_type="text/html", headers={**_HEADERS, **names})


def prose(text: str) -> str:
    """HTML of a text in which `code` stands between backquotes."""
    pieces = escape(text).split("`")
    return "".join(f"<code>{p}</code>" if i % 2 else p for i, p in enumerate(pieces))
