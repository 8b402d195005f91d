"""Sections that a directive makes from MyST text."""

from docutils import nodes
from docutils.statemachine import StringList


def parsed(directive, lines):
    """Nodes of MyST text that holds no headings."""
    container = nodes.Element()
    container.document = directive.state.document
    text = StringList(lines, source=directive.name)
    directive.state.nested_parse(text, directive.content_offset, container)
    return container.children


def section(directive, name, title, lines):
    """A section with a heading in MyST, which `{ref}` finds by its name."""
    made = nodes.section(ids=[name], names=[name])
    heading, _ = directive.state.inline_text(title, directive.lineno)
    made += nodes.title(title, "", *heading)
    made += parsed(directive, lines)
    standard = directive.env.domains["std"]
    standard.note_hyperlink_target(name, directive.env.docname, name, made[0].astext())
    return made
