"""Whoever has no mouse reaches everything, and sees where they are."""

import pytest

# What Tab may stop at, once all that is folded is open.
REACHABLE = """() => [...document.querySelectorAll(
    "a[href], button, input, select, textarea, summary, [tabindex='0']")].filter((e) =>
      e.checkVisibility({ visibilityProperty: true }) && !e.disabled && e.tabIndex >= 0
      && e.getClientRects().length && !e.closest("mjx-container"))
    .map((e, i) => { e.dataset.stop = i; return e.outerHTML.slice(0, 120); })"""
STOP = """() => {
  const e = document.activeElement;
  const look = (s) => [s.outlineStyle !== "none" && s.outlineWidth !== "0px" && s.outlineColor,
    s.boxShadow, s.backgroundColor, s.textDecoration, s.borderColor].join();
  const focused = look(getComputedStyle(e));
  e.blur();
  const unfocused = look(getComputedStyle(e));
  e.focus();
  return [e.dataset.stop, focused !== unfocused, e === document.body];
}"""


@pytest.fixture
def chapter(tab, address):
    """A chapter with all that a chapter has, its foldings open."""
    tab.goto(address + "book/vae.html")
    tab.evaluate("window.MathJax.startup.promise")
    tab.wait_for_timeout(600)
    return tab


@pytest.mark.parametrize("width", [1280, 390])
def test_tab_reaches_everything_and_shows_where_it_is(chapter, width):
    chapter.set_viewport_size({"width": width, "height": 900})
    chapter.wait_for_timeout(600)
    chapter.evaluate("""document.querySelectorAll(".toggle-button-hidden")
                        .forEach((e) => e.click())""")
    # MathJax makes each of hundreds of formulas a stop; they would only take time here. Chromium
    # then stops at those that can be scrolled.
    formulas = chapter.evaluate("""(() => {
        const all = [...document.querySelectorAll("mjx-container")];
        all.forEach((e) => e.tabIndex = -1);
        return all.length; })()""")
    left = dict(enumerate(chapter.evaluate(REACHABLE)))
    everything = len(left)
    assert everything > 50
    unseen = []
    for _ in range(everything + formulas):
        chapter.keyboard.press("Tab")
        stop, visible, end = chapter.evaluate(STOP)
        if end and len(left) < everything:
            break
        if stop is not None:
            what = left.pop(int(stop), None)
            if what and not visible:
                unseen.append(what)
        if not left:
            break
    assert not left, "Tab never comes to:\n" + "\n".join(left.values())
    assert not unseen, "no sign of the focus at:\n" + "\n".join(unseen)


def test_the_first_stop_skips_to_the_text(chapter):
    chapter.keyboard.press("Tab")
    assert chapter.evaluate("document.activeElement.textContent").startswith("Skip to main")
    chapter.keyboard.press("Enter")
    assert chapter.url.endswith("#main-content")
    chapter.keyboard.press("Tab")
    assert chapter.evaluate("Boolean(document.activeElement.closest('main'))")


def test_a_solution_unfolds_by_key(chapter):
    button = chapter.locator(".toggle-button").first
    body = chapter.locator(".admonition.toggle").first.locator("p").nth(1)
    assert not body.is_visible()
    button.focus()
    chapter.keyboard.press("Enter")
    assert body.is_visible()
    assert button.get_attribute("aria-expanded") == "true"


def test_code_is_copied_by_key(tab, address):
    tab.context.grant_permissions(["clipboard-read", "clipboard-write"])
    tab.goto(address + "book/vae.html")
    tab.locator("button.copybtn").first.focus()
    tab.keyboard.press("Enter")
    assert tab.evaluate("navigator.clipboard.readText()").strip()


def test_the_menu_of_a_phone_opens_and_closes_by_key(chapter):
    chapter.set_viewport_size({"width": 390, "height": 900})
    chapter.locator("button.primary-toggle").focus()
    chapter.keyboard.press("Enter")
    link = chapter.locator("#pst-primary-sidebar-modal a[href='data.html']")
    link.wait_for(state="visible")
    chapter.keyboard.press("Escape")
    chapter.locator("#pst-primary-sidebar-modal").wait_for(state="hidden")


def test_day_and_night_change_by_key(chapter):
    theme = "document.documentElement.dataset.theme"
    seen = set()
    chapter.locator("button.theme-switch-button").focus()
    for _ in range(3):
        chapter.keyboard.press("Enter")
        seen.add(chapter.evaluate(theme))
    assert seen == {"light", "dark"}
