"""Local Sphinx extension: repairs for Jupyter Book 1, and chapter numbers taken from file names."""

import importlib.util
import pkgutil
import re
import sys
from pathlib import Path
from types import FunctionType
from typing import TypeVar

from docutils import nodes
from sphinx.environment.collectors.toctree import TocTreeCollector

ROOT = Path(__file__).parents[2]
CHAPTER = re.compile(r"chapters/(\d\d)_")
CODE = re.compile(r"(``.*?``|:[a-z:]+:`[^`]*`|`[^`]+`)")
SECTION = re.compile(r"\s*(Args|Attributes|Returns|Yields|Raises|Examples?|Notes?):\s*")


def library_object(name):
    """What `smallnets.room.module.thing` names, or None."""
    try:
        return pkgutil.resolve_name(name) if name.startswith("smallnets.") else None
    except (ImportError, AttributeError):
        return None


def find_where_written(app, env, node, content):
    """Link `smallnets.distill.similarity.sp_loss` to the module in which `sp_loss` is written."""
    if node.get("refdomain") != "py":
        return None
    name = node["reftarget"]
    found = library_object(name)
    if not isinstance(found, type | FunctionType):
        return None
    written = f"{found.__module__}.{found.__qualname__}"
    if written == name:
        return None
    domain, page = env.domains["py"], node.get("refdoc", "")
    return domain.resolve_xref(env, page, app.builder, node["reftype"], written, node, content)


def allow_types_of_other_libraries(app, domain, node):
    """Types of other libraries, and type variables, have no page here: no warning for them."""
    name = node["reftarget"]
    if domain is None or domain.name != "py":
        return None
    top, _, rest = name.partition(".")
    if not rest:
        return None
    if top != "smallnets":
        return importlib.util.find_spec(top) is not None or None
    return isinstance(library_object(name), TypeVar) or None


def drop_thebe(app, pagename, templatename, context, doctree):
    """Jupyter Book 1 always loads Thebe, twice, from another server. The book does not use it."""
    context["script_files"] = [
        script
        for script in context["script_files"]
        if "THEBE_JS_URL" not in (getattr(script, "attributes", {}).get("body") or "")
        and "sphinx-thebe" not in str(getattr(script, "filename", script))
    ]


def share_html_handlers(app):
    """The single-page and ePub builders draw exercises as the HTML builder does."""
    handlers = app.registry.translation_handlers
    for name in ("singlehtml", "epub"):
        handlers[name] = {**handlers.get("html", {}), **handlers.get(name, {})}


def number_chapters_by_file(app):
    """Chapter `02_...` is number 2 whether or not chapter 1 is in the table of contents.

    Figures, equations and exercises take their first number from that of the chapter, so it is put
    right after the sections are numbered and before those are.
    """
    assign_figure_numbers = TocTreeCollector.assign_figure_numbers

    def assign_numbers(self, env):
        for document, numbers in env.toc_secnumbers.items():
            if match := CHAPTER.match(document):
                chapter = int(match[1])
                for anchor, number in numbers.items():
                    numbers[anchor] = number and (chapter, *number[1:])
                headings = [env.titles[document], *env.tocs[document].findall(nodes.reference)]
                for heading in headings:
                    if heading.get("secnumber"):
                        heading["secnumber"] = [chapter, *heading["secnumber"][1:]]
        return assign_figure_numbers(self, env)

    TocTreeCollector.assign_figure_numbers = assign_numbers


def read_docstring_as_text(app, what, name, obj, options, lines):
    """In docstrings only backticks are markup: `x * y` is code, and |x| or x* mean themselves.

    An indented block after an empty line is shown as it stands, unless it belongs to a section
    such as Args.
    """
    text, before, literal, section = [], 0, None, None
    for line in lines:
        indent = len(line) - len(line.lstrip())
        if not line.strip():
            text.append(line)
            continue
        if literal is not None and indent > literal:
            text.append(line)
            continue
        literal = None
        if section is not None and indent <= section:
            section = None
        if SECTION.fullmatch(line):
            section = indent
        elif section is None and indent > before and text and not text[-1].strip():
            text += [" " * before + "::", "", line]
            literal = before
            continue
        if line.rstrip().endswith("::"):
            literal = indent
        text.append(escaped(line))
        before = indent
    if what in ("attribute", "property") and text:
        text[0] = f": {text[0]}"  # an empty type: Napoleon would take all up to a colon for one
    lines[:] = text


def escaped(line):
    """One line with `code` as a literal and everything else free of markup."""
    start = re.match(r"\s*(?:[*-] )?", line)[0]
    pieces = CODE.split(line[len(start) :])
    pieces[::2] = [re.sub(r"(\\|\*|\||(?<=\w)_(?!\w))", r"\\\1", words) for words in pieces[::2]]
    pieces[1::2] = [f"`{code}`" if code[0] == "`" != code[1] else code for code in pieces[1::2]]
    return start + "".join(pieces)


def skip_empty_words(app, what, name, obj, skip, options):
    """Python gives the fields of a named tuple docstrings that say nothing."""
    return (getattr(obj, "__doc__", None) or "").startswith("Alias for field number") or None


def forget_after_warnings(app, exception):
    """A build with warnings leaves no memory, so that the next one meets them again."""
    if exception or app._warncount:
        (Path(app.doctreedir) / "environment.pickle").unlink(missing_ok=True)


def setup(app):
    sys.path.insert(0, str(ROOT / "src"))
    app.connect("missing-reference", find_where_written)
    app.connect("warn-missing-reference", allow_types_of_other_libraries)
    app.connect("builder-inited", share_html_handlers)
    app.connect("builder-inited", number_chapters_by_file)
    app.connect("html-page-context", drop_thebe, priority=900)
    app.connect("autodoc-process-docstring", read_docstring_as_text, priority=400)
    app.connect("autodoc-skip-member", skip_empty_words)
    app.connect("build-finished", forget_after_warnings)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
