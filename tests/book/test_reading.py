"""What a reader does with the built book, in a real browser without a network."""

import json
import re
from pathlib import Path

import pytest

pytestmark = pytest.mark.browser

LAPTOP = {"width": 1280, "height": 900}
TELEPHONE = {"width": 390, "height": 844}
CHAPTER = "chapters/02_similarity_preserving.html"
PATH = re.compile(r"(?<!\d)/|/(?!\d)")  # a file stands in for a text; bits, such as 4/4, are none
PARTS = 4  # of the pages, for test processes to share
MATHS_WITHOUT_TYPESETTING = """
() => [...document.querySelectorAll("div.math, span.math")]
    .filter(element => !element.querySelector("mjx-container")).map(element => element.textContent)
"""
IMAGES = """
() => Promise.all([...document.querySelectorAll("article img")].map(async image => {
    image.loading = "eager";
    await image.decode().catch(() => {});
    return {source: image.src, alt: image.alt, width: image.naturalWidth};
}))
"""
# Everything that a click would show: hidden solutions, dropdowns.
OPENED = """
() => {
    for (const button of document.querySelectorAll("article .toggle-button-hidden")) button.click();
    for (const details of document.querySelectorAll("article details")) details.open = true;
}
"""
# What of an article is cut off, lies under something else, or needs scrolling. `scrolls`: whether
# tables, code and formulas may scroll by themselves, on a telephone, or not, on a laptop.
OVERFLOWS = """
scrolls => {
    const article = document.querySelector("article");
    if (!article) return [];
    const faults = [], edge = article.getBoundingClientRect(), slack = 1.5;
    const padding = getComputedStyle(article);
    const left = edge.left + parseFloat(padding.paddingLeft);
    const right = edge.right - parseFloat(padding.paddingRight);
    const words = element => element.textContent.trim().replace(/\\s+/g, " ").slice(0, 40);
    const say = (what, element, by) =>
        faults.push(`${what} by ${Math.round(by)} px: ${element.localName} "${words(element)}"`);
    const scrolling = element => ["auto", "scroll"].includes(getComputedStyle(element).overflowX);
    const bound = element => {           // the nearest box around it that clips or scrolls
        let box = element.parentElement;
        while (box !== article && getComputedStyle(box).overflowX === "visible")
            box = box.parentElement;
        return box;
    };
    for (const formula of article.querySelectorAll("mjx-container")) {
        const set = formula.querySelector("mjx-math").getBoundingClientRect();
        if (!set.width) continue;        // in a solution that is closed
        const home = formula.closest("div.math, span.math") || formula;
        const number = home.querySelector(".eqno")?.getBoundingClientRect();
        const room = home.getBoundingClientRect();
        const from = Math.max(room.left, left);
        const to = Math.min(room.right, right, number ? number.left : Infinity);
        const over = Math.max(set.right - to, from - set.left);
        if (number && number.right > right + slack)
            say("the number of a formula sticks out", home, number.right - right);
        if (over <= slack) continue;
        const box = scrolling(formula) ? formula : home;
        const seen = box.getBoundingClientRect();
        const covers = box === formula && number && seen.right > number.left + slack;
        const outside = seen.right > right + slack;
        if (!scrolls || !scrolling(box) || covers || outside) say("formula cut off", home, over);
    }
    const blocks = "p, li, dl, dd, dt, h1, h2, h3, h4, table, pre, figure, img, svg, blockquote, "
        + "div.highlight, div.admonition, div.cell_output, details";
    for (const element of article.querySelectorAll(blocks)) {
        const seen = element.getBoundingClientRect();
        if (!seen.width || !seen.height) continue;
        const style = getComputedStyle(element);
        const box = bound(element), inside = box !== article && scrolling(box);
        const out = Math.max(seen.right - right, left - seen.left);
        if (out > slack && !(scrolls && inside)) say("sticks out", element, out);
        const hidden = element.scrollWidth - element.clientWidth;
        if (style.display === "inline" || hidden <= slack) continue;
        if (style.overflowX !== "visible" && !(scrolls && scrolling(element)))
            say(scrolling(element) ? "needs scrolling" : "cut off", element, hidden);
    }
    for (const element of article.querySelectorAll(".pst-scrollable-table-container")) {
        const hidden = element.scrollWidth - element.clientWidth;
        if (!scrolls && hidden > slack) say("needs scrolling", element, hidden);
    }
    return faults;
}
"""


def pages(book: Path) -> list[str]:
    """Addresses of all pages below the folder of the book, without the one that leads to them."""
    return sorted(
        file.relative_to(book).as_posix()
        for file in book.rglob("*.html")
        if "_static" not in file.relative_to(book).parts and file != book / "index.html"
    )


def test_the_table_of_contents_is_built(book):
    made = pages(book)
    for page in ("book/index.html", "book/results.html", "search.html", CHAPTER):
        assert page in made


def test_the_front_door_leads_to_the_landing_page(server, visitor):
    visitor.page.goto(server)
    visitor.page.wait_for_url("**/book/index.html")


@pytest.mark.parametrize("part", range(PARTS))
def test_every_page_opens_whole_from_a_server_and_fits_the_window(book, server, visitor, part):
    """Hidden solutions too. Wide tables and formulas scroll on a telephone, not on a laptop."""
    faults = []
    for address in pages(book)[part::PARTS]:
        page = visitor.open(f"{server}/{address}")
        faults += faults_of(page, address)
        page.evaluate(OPENED)
        for size in (LAPTOP, {"width": 1400, "height": 900}, TELEPHONE):
            page.set_viewport_size(size)
            found = page.evaluate(OVERFLOWS, size == TELEPHONE)
            faults += [f"{address} at {size['width']} px: {fault}" for fault in found]
        width = page.evaluate("() => document.documentElement.scrollWidth")
        if width > TELEPHONE["width"]:
            faults.append(f"{address}: {width} px wide on a telephone")
        page.set_viewport_size(LAPTOP)
    assert faults == []
    assert visitor.errors == []
    assert visitor.outside == []


def test_every_page_opens_whole_from_disk(book, visitor):
    """Of the listings of source code, which are all made alike, one stands for all."""
    listings = [address for address in pages(book) if address.startswith("_modules/smallnets/")]
    faults = []
    for address in sorted({*pages(book)} - {*listings[1:]}):
        page = visitor.open((book / address).as_uri())
        faults += faults_of(page, address)
    assert len(listings) > 1
    assert faults == []
    assert visitor.errors == []
    assert visitor.outside == []


def faults_of(page, address: str) -> list[str]:
    """What a reader would find broken on an opened page."""
    faults = []
    if not page.title():
        faults.append(f"{address}: no title")
    bare = page.evaluate(MATHS_WITHOUT_TYPESETTING)
    faults += [f"{address}: formula not set: {text}" for text in bare]
    if wrong := page.locator("mjx-merror").count():
        faults.append(f"{address}: {wrong} formulas with errors")
    for image in page.evaluate(IMAGES):
        name = image["source"][:80]
        if not image["width"]:
            faults.append(f"{address}: image does not load: {name}")
        alt = image["alt"].strip()
        if not alt or PATH.search(alt) or alt.endswith((".svg", ".png")):
            faults.append(f"{address}: alternative text {alt!r} of {name}")
    return faults


@pytest.mark.parametrize("address", [CHAPTER, "book/notation.html"])
def test_mathematics_is_set(server, visitor, address):
    page = visitor.open(f"{server}/{address}")
    assert page.locator("mjx-container[display=true]").count() >= 2
    assert page.locator("mjx-merror").count() == 0


def test_equations_carry_the_number_of_the_chapter(server, visitor):
    page = visitor.open(f"{server}/{CHAPTER}")
    numbers = page.locator("div.math .eqno").all_inner_texts()
    assert numbers
    assert numbers[0].startswith("(2.1)")
    assert page.locator("article h1").inner_text().startswith("2. ")


@pytest.mark.parametrize("word", ["similarity", "temperature"])
def test_search_finds_a_word(server, visitor, word):
    page = visitor.open(f"{server}/search.html?q={word}")
    hit = page.locator("#search-results ul.search li a").first
    hit.wait_for()
    hit.click()
    page.wait_for_load_state()
    assert word in page.locator("article").inner_text().lower()
    assert visitor.outside == []


def test_the_theme_changes_and_figures_stay_legible(server, visitor):
    page = visitor.open(f"{server}/{CHAPTER}")
    theme = "() => document.documentElement.dataset.theme"
    seen = {page.evaluate(theme)}
    for _ in range(3):
        page.locator("button.theme-switch-button:visible").first.click()
        seen.add(page.evaluate(theme))
    assert seen >= {"light", "dark"}
    page.evaluate("() => { document.documentElement.dataset.theme = 'dark' }")
    backgrounds = page.evaluate(
        "() => [...document.querySelectorAll('article img')]"
        ".map(image => getComputedStyle(image).backgroundColor)"
    )
    assert set(backgrounds) <= {"rgb(255, 255, 255)"}


def test_a_hidden_solution_opens(server, visitor):
    page = visitor.open(f"{server}/{CHAPTER}")
    solution = page.locator("div.solution.dropdown").first
    content = solution.locator("section, p:not(.admonition-title)").first
    assert not content.is_visible()
    solution.locator("button.toggle-button").click()
    content.wait_for(state="visible")


def test_a_chapter_can_be_downloaded_as_a_notebook(book, server, visitor):
    page = visitor.open(f"{server}/{CHAPTER}")
    link = page.locator("a.btn-download-source-button").first.get_attribute("href")
    notebook = (book / "chapters" / link).resolve()
    assert json.loads(notebook.read_text())["nbformat"] == 4


def test_launch_buttons_name_the_chapter(server, visitor):
    page = visitor.open(f"{server}/{CHAPTER}")
    links = page.locator("a[href*='mybinder.org'], a[href*='colab.research.google.com']")
    addresses = [link.get_attribute("href") for link in links.all()]
    assert len(addresses) == 2
    assert all("chapters/02_similarity_preserving.ipynb" in address for address in addresses)
