"""A chapter on paper: the text alone, dark on white, all of it, within the sheet."""

import pytest

A4 = {"width": 718, "height": 1043}  # pixels of A4 within margins of 1 cm
ON_PAPER = """() => {
  const seen = (s) => [...document.querySelectorAll(s)].filter((e) => e.checkVisibility(
    { visibilityProperty: true }) && e.getClientRects().length);
  const page = document.documentElement;
  const colour = (e) => getComputedStyle(e).color.match(/\\d+/g).slice(0, 3).map(Number);
  const clear = (e) => { for (; e; e = e.parentElement) {
      const [r, g, b, a = 1] = getComputedStyle(e).backgroundColor.match(/[\\d.]+/g).map(Number);
      if (a > 0.5) return Math.min(r, g, b); } return 255; };
  const text = seen("article p, article li, article h1, article h2, article pre, figcaption");
  return {
    furniture: seen(`.bd-sidebar-primary, .bd-sidebar-secondary, .bd-header-article, .copybtn,
      .prev-next-footer, #pst-back-to-top, .toggle-button, .headerlink, #pst-header`)
      .filter((e) => e.clientHeight > 1 && getComputedStyle(e).opacity > 0)
      .map((e) => e.outerHTML.slice(0, 100)),
    folded: [...document.querySelectorAll("article .admonition.toggle *:is(p, pre)")]
      .filter((e) => !e.closest(".tag_claim"))  // which stays off the paper
      .filter((e) => !e.checkVisibility({ visibilityProperty: true })).length,
    wide: page.scrollWidth - page.clientWidth,
    cut: seen("article pre").filter((e) => e.scrollWidth > e.clientWidth + 1
      && getComputedStyle(e).whiteSpace === "pre").map((e) => e.textContent.slice(0, 80)),
    pale: text.filter((e) => Math.max(...colour(e)) > 140 && e.textContent.trim())
      .map((e) => `${colour(e)} ${e.outerHTML.slice(0, 80)}`).slice(0, 5),
    grey: text.filter((e) => clear(e) < 220).map((e) => `${clear(e)} ${e.outerHTML.slice(0, 80)}`)
      .slice(0, 5),
  };
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", ["vae", "diffusion-reverse", "comparison", "index"])
def test_a_page_prints_cleanly(tab, address, name, scheme):
    tab.emulate_media(color_scheme=scheme)
    tab.goto(f"{address}book/{name}.html")
    tab.evaluate("window.MathJax?.startup?.promise")
    tab.set_viewport_size(A4)
    tab.evaluate("window.dispatchEvent(new Event('beforeprint'))")
    tab.emulate_media(media="print", color_scheme=scheme)
    tab.wait_for_timeout(600)
    found = tab.evaluate(ON_PAPER)
    assert not any(found.values()), found


def test_a_printed_chapter_is_a_document_of_some_pages(tab, address):
    tab.goto(address + "book/vae.html")
    tab.evaluate("window.MathJax.startup.promise")
    pdf = tab.pdf(format="A4")
    assert pdf.startswith(b"%PDF")
    assert 8 < pdf.count(b"/Type /Page\n") + pdf.count(b"/Type /Page ") < 80
