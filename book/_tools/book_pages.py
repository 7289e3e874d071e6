"""Sphinx extension of the book: its scripts, and repairs to the pages that the theme writes."""

import argparse
import importlib
import re
from pathlib import Path

from docutils import nodes
from sphinx.util.docutils import SphinxDirective

# (what the theme or docutils writes, what stands there instead); the reason above each.
REPAIRS = [
    # The sidebar's logo stood outside every landmark.
    (
        r'<div id="pst-primary-sidebar" class',
        '<div id="pst-primary-sidebar" role="navigation" aria-label="Book" class',
    ),
    # The arrow that unfolds a chapter's pages had no name.
    (
        r'<summary><span class="toctree-toggle"',
        '<summary aria-label="Pages of this chapter"><span class="toctree-toggle"',
    ),
    # The empty corner of a table is no heading.
    (r'<th class="head[^"]*"><p></p></th>', "<td></td>"),
    # This role of bibliography entries is deprecated, and its list wants list items.
    (r'role="doc-biblioentry"', 'role="listitem"'),
]


def repair(text):
    """The page with all repairs made; a repaired page stays as it is."""
    for pattern, replacement in REPAIRS:
        text = re.sub(pattern, replacement, text)
    return text


def repair_pages(app, exception):
    """Repair every page of a finished build."""
    if exception or app.builder.format != "html":
        return
    for path in Path(app.outdir).rglob("*.html"):
        if "_static" in path.parts:
            continue
        text = path.read_text(encoding="utf-8")
        if (repaired := repair(text)) != text:
            path.write_text(repaired, encoding="utf-8")


class CommandHelp(SphinxDirective):
    """The help of a command and its subcommands; the argument is the module of the parser."""

    required_arguments = 1

    def run(self):
        module = importlib.import_module(self.arguments[0])
        self.env.note_dependency(module.__file__)
        return [section for parser in parsers(module.build_parser()) for section in show(parser)]


def parsers(parser):
    """A parser, then the parsers of its subcommands."""
    yield parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for child in action.choices.values():
                yield from parsers(child)


def show(parser):
    """One section with what `--help` prints."""
    section = nodes.section(ids=[nodes.make_id(parser.prog)], names=[parser.prog])
    section += nodes.title(text=parser.prog)
    section += nodes.literal_block(text=parser.format_help(), language="text")
    return [section]


def setup(app):
    # Jupyter Book always sets this option of an extension that this book leaves out.
    app.add_config_value("comments_config", {}, "env")
    # The theme's icon script replaces <i class="fa ..."> elements, also those in the buttons of
    # Jupyter widgets, which lose their state with it; 'nest' keeps the element.
    app.add_js_file(None, body='window.FontAwesomeConfig = {autoReplaceSvg: "nest"};', priority=1)
    app.add_js_file("book.js", defer="defer", priority=900)
    app.add_directive("command-help", CommandHelp)
    app.connect("build-finished", repair_pages)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
