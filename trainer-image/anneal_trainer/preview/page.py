"""A preview as one HTML page that needs nothing else: no script from elsewhere, no font, no server.

Everything that comes from data or manifest is escaped. The ids are shown by a check box, by CSS alone.
"""

from collections.abc import Iterator
from html import escape

from anneal_api.words import counted
from anneal_trainer.preview.view import Preview, Segment, Shown

_STYLE = """
:root{color-scheme:light dark;--t:#b7e4c7;--t2:#95d5b2;--p:#f1f3f5;--p2:#e3e6e9;--c:#ffc9c9}
@media(prefers-color-scheme:dark){:root{--t:#1b5e3b;--t2:#24764b;--p:#26292c;--p2:#303438;--c:#6b2b2b}}
body{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:70rem;padding:0 1rem}
h2{font-size:1rem;margin:2rem 0 .3rem}.facts{opacity:.75}
pre{white-space:pre-wrap;overflow-wrap:anywhere;font:13px/1.7 ui-monospace,monospace;margin:.3rem 0}
s,b,i,u{font:inherit;text-decoration:none;border-radius:2px}
i{background:var(--p)}i:nth-of-type(even){background:var(--p2)}
b{background:var(--t)}b:nth-of-type(even){background:var(--t2)}
u{background:var(--c);text-decoration:line-through}
.x{font-style:italic;opacity:.85}
s::after{content:attr(data-i);font-size:9px;opacity:.7;vertical-align:super;margin:0 2px;display:none}
#ids:checked~main s::after{display:inline}
.problem{border-left:4px solid #e03131;padding-left:.6rem}
.pack{display:flex;height:1.4rem;margin:.2rem 0;background:var(--p);font-size:11px;overflow:hidden}
.pack span{background:var(--t);border-right:2px solid Canvas;text-align:center;overflow:hidden}
"""


def html(preview: Preview) -> str:
    """The page."""
    title = escape(f"{preview.job}: what is trained")
    return "".join(
        [
            f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title>',
            '<meta name="viewport" content="width=device-width">',
            f"<style>{_STYLE}</style><h1>{title}</h1>",
            "<p><b>trained</b> · <i>read, not trained</i> · <u>cut off</u> · one box a token</p>",
            '<input type="checkbox" id="ids"> <label for="ids">token ids</label><main>',
            *(_row(row) for row in preview.rows),
            *_packs(preview),
            *(f"<p>{escape(note)}</p>" for note in preview.notes),
            "</main></html>\n",
        ]
    )


def _row(row: Shown) -> str:
    if row.problem:
        return f'<h2>{escape(row.place)}</h2><p class="problem">{escape(row.problem)}</p>'
    beyond = f", {row.cut_tokens:,} cut off" if row.cut else ""
    facts = f"{escape(row.kind)} · {counted(row.tokens, 'token')}{row.trained_words}{beyond}"
    parts = [_segment(segment, "b" if segment.trained else "i") for segment in row.segments]
    drawn = "".join([*parts[: row.gap], row.gap_words, *parts[row.gap :]])
    cut = "".join(_segment(segment, "u") for segment in row.cut)
    told = "".join(f'<p class="problem">{escape(words)}</p>' for words in (row.fate, *row.notes) if words)
    return f'<h2>{escape(row.place)}</h2><p class="facts">{facts}</p><pre>{drawn}{cut}</pre>{told}'


def _segment(segment: Segment, tag: str) -> str:
    ids = " ".join(map(str, segment.ids))
    text = escape(segment.text).replace("\n", "↵\n").replace("\t", "→\t")
    kind = ' class="x"' if segment.special else ""
    return f'<{tag}{kind} title="{ids}">{text}<s data-i="{ids}"></s></{tag}>'


def _packs(preview: Preview) -> Iterator[str]:
    if preview.packs:
        yield "<h2>Packs</h2>"
    for pack in preview.packs:
        widths = [(index, preview.rows[index].tokens * 100 / preview.sequence_length) for index in pack]
        spans = "".join(f'<span style="width:{width:.2f}%">{index + 1}</span>' for index, width in widths)
        yield f'<div class="pack">{spans}</div>'
