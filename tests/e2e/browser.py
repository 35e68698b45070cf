"""Label Studio's labelling screen in headless Chromium, driven as an annotator works.

State is read from the page's own store (`window.Htx`); every action but `new_annotation` and `duplicate_tab` is a real
click or key press. Written against Label Studio 1.23.2.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from selenium import webdriver
from selenium.common.exceptions import JavascriptException
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement

from tests.builders.processes import wait_for
from tests.e2e.label_studio import EMAIL, PASSWORD

Value = TypeVar("Value")

PAGE_S = 60.0  # longest wait for the page, also for one that is busy
CALL_START_S = 3.0  # Label Studio calls the backend at once when a prompt is finished
KNOWN_ERRORS = (  # what Label Studio's page asks for in vain, without any backend's doing
    "heidi-tips",
    "[object%20Object]",  # the icon of a suggestion
)


@dataclass(frozen=True)
class Tab:
    """A prediction as the page lists it."""

    model_version: str
    score: float | None
    n_regions: int


@dataclass(frozen=True)
class Region:
    """A region, or a suggested one, as the page holds it; `type` is "brushregion", "keypointregion", ..."""

    id: str
    type: str
    label: str | None
    score: float | None


class Editor:
    """The labelling screen of one Label Studio, in one browser."""

    def __init__(self, browser: webdriver.Chrome, url: str, timeout_s: float = PAGE_S) -> None:
        self.browser = browser
        self.url = url
        self.timeout_s = timeout_s
        browser.set_script_timeout(timeout_s)

    # The page

    def login(self) -> None:
        """Sign in through the login form."""
        self.browser.get(f"{self.url}/user/login/")
        for name, text in (("email", EMAIL), ("password", PASSWORD)):
            self.browser.find_element(By.NAME, name).send_keys(text)
        self.browser.find_element(By.CSS_SELECTOR, "button[type=submit]").click()
        self._wait("the login", lambda: "/user/login" not in self.browser.current_url)

    def open_task(self, project: int, task: int, *, n_tabs: int = 0) -> None:
        """Open a task in the Data Manager; returns when its image, masks and `n_tabs` predictions are shown.

        The page shows a task before it has its predictions, and selects one of them when they come: what is
        done before is lost, so tell how many are to come.
        """
        self.console_errors()  # forget those of the page before
        self.browser.get(f"{self.url}/projects/{project}/data?task={task}")
        script = """
            const htx = window.Htx, store = htx?.annotationStore;
            const images = store?.selected?.objects.filter((o) => o.type === "image") ?? [];
            const regions = store?.selected?.regions ?? [];
            return {
                task: htx?.task?.id ?? null,
                loading: htx?.isLoading !== false || !store?.selected,
                predictions: store?.predictions.length ?? 0,
                images: images.filter((i) => !i.imageIsLoaded).length,  // that are not there yet
                regions: regions.filter((r) => r.isReady === false).length,
            };
        """

        def is_shown() -> bool:
            page = self._run(script)
            is_there = page["task"] == task and not page["loading"] and page["predictions"] >= n_tabs
            return bool(is_there and not page["images"] and not page["regions"])

        try:
            self._wait(f"task {task} and {n_tabs} predictions", is_shown)
        except TimeoutError as error:
            raise TimeoutError(f"{error}: the page has {self._run(script)}, and {self.console_errors()}") from error
        self._settle()

    def screenshot(self, path: Path) -> None:
        """Save what the browser shows as a PNG."""
        path.parent.mkdir(parents=True, exist_ok=True)
        if not self.browser.save_screenshot(str(path)):
            raise OSError(f"{path} cannot be written")

    def console_errors(self) -> list[str]:
        """Severe messages of the browser's console since the last call, without those Label Studio always has."""
        messages = [str(e["message"]) for e in self.browser.get_log("browser") if e["level"] == "SEVERE"]
        return [m for m in messages if not any(known in m for known in KNOWN_ERRORS)]

    # What it holds

    def tabs(self) -> list[Tab]:
        """The task's predictions, as its tabs show them."""
        script = """
            const predictions = window.Htx.annotationStore.predictions;
            return predictions.map((p) => [p.createdBy, p.score ?? null, p.regions.length]);
        """
        return [Tab(*row) for row in self._run(script)]

    def regions(self) -> list[Region]:
        """The regions of the annotation on screen, prompts such as smart points included."""
        return [region for region in self._regions("selected.regions") if region.type]  # typed lines have none

    def suggestions(self) -> list[Region]:
        """What the backend proposed and nobody has accepted or rejected yet, without markers of what is to go."""
        return self._regions("selected.suggestions.values()", "(r) => !r.dynamic")

    def image_size(self) -> tuple[int, int]:
        """The image's natural width and height, as the browser turns it."""
        width, height = self._run(
            "const i = document.querySelector('[class*=\"image\"] img'); return [i.naturalWidth, i.naturalHeight];"
        )
        return int(width), int(height)

    def text_commands(self) -> list[str]:
        """The lines typed into the granularity field so far."""
        return self._lines("granularity")

    def status(self) -> str:
        """What the backend answered last in the status field."""
        return " | ".join(self._lines("status"))

    # What an annotator does

    def new_annotation(self) -> None:
        """Start an empty annotation; a task opened with predictions starts with a copy of one."""
        self._run("const s = window.Htx.annotationStore; s.selectAnnotation(s.addAnnotation({userGenerate: true}).id);")
        self._wait("an empty annotation", lambda: not self.regions())
        self._settle()

    def duplicate_tab(self, granularity: str) -> None:
        """Start an annotation from a prediction's tab, as *Duplicate Annotation* in its menu does."""
        script = """
            const store = window.Htx.annotationStore;
            const tab = store.predictions.find((p) => p.createdBy.startsWith(arguments[0] + " "));
            store.selectAnnotation(store.addAnnotationFromPrediction(tab).id);
        """
        self._run(script, granularity)
        self._settle()

    def auto_annotation_on(self, *, accept: bool = False) -> None:
        """Switch Auto-Annotation on, and Auto-Accept as given; needs an interactive backend."""
        self._switch("bottombar-auto-annotation-toggle", "autoAnnotation", on=True)
        if not self._is_pending():  # pending suggestions take this switch's place
            self._switch("bottombar-auto-accept-toggle", "autoAcceptSuggestions", on=accept)

    def choose_page(self, index: int) -> None:
        """Show a page of a list of images."""
        image = "window.Htx.annotationStore.selected.objects.find((o) => o.type === 'image')"
        self._run(f"{image}.setCurrentImage(arguments[0])", index)
        self._wait("the page", lambda: self._run(f"return {image}.imageIsLoaded"))
        self._settle()

    def smart_point(self, label: str, x: float, y: float, *, negative: bool = False) -> bool:
        """Click with the smart key point at a fraction of the image's width and height.

        Ctrl is held, since a plain click on a region selects it; `negative` holds Alt as well. Returns whether the
        backend was called; its answer is there then.
        """
        self._choose("keypointlabels", label, "key-point-tool")
        keys = [Keys.CONTROL, Keys.ALT] if negative else [Keys.CONTROL]
        actions = ActionChains(self.browser)
        actions.w3c_actions.pointer_action.move_to_location(*self._on_screen(x, y))
        for key in keys:
            actions.key_down(key)
        actions.click()
        for key in keys:
            actions.key_up(key)
        return self._calls_backend(actions.perform)

    def smart_box(self, label: str, start: tuple[float, float], end: tuple[float, float]) -> bool:
        """Drag the smart rectangle between two (x, y) fractions of the image; returns as `smart_point` does.

        Ctrl is held, since a plain drag that begins on a polygon or a bitmask draws no box.
        """
        self._choose("rectanglelabels", label, "rectangle-tool")
        (x0, y0), (x1, y1) = self._on_screen(*start), self._on_screen(*end)
        actions = ActionChains(self.browser).key_down(Keys.CONTROL)
        pointer, keys = actions.w3c_actions.pointer_action, actions.w3c_actions.key_action
        pointer.move_to_location(x0, y0)
        keys.pause()  # in step with the pointer, so that Ctrl stays down until the end
        actions.click_and_hold()
        for x, y in (((x0 + x1) // 2, (y0 + y1) // 2), (x1, y1)):
            pointer.move_to_location(x, y)
            keys.pause()
        actions.release().key_up(Keys.CONTROL)
        return self._calls_backend(actions.perform)

    def type_granularity(self, line: str) -> bool:
        """Type a line into the granularity field and press Enter; returns as `smart_point` does."""
        field = self.browser.find_element(By.CSS_SELECTOR, '[data-testid="textarea-input"]')
        self._run('arguments[0].scrollIntoView({block: "center"})', field)
        return self._calls_backend(lambda: field.send_keys(line + Keys.ENTER))

    def accept(self) -> None:
        """Accept all suggestions; the prompts that asked for them go away."""
        self._end_suggestions("bottombar-accept-suggestions-button")

    def reject(self) -> None:
        """Reject all suggestions; the prompts that asked for them go away."""
        self._end_suggestions("bottombar-reject-suggestions-button")

    def wait_for_draft(self) -> None:
        """Wait until Label Studio has saved a draft of what is on screen."""
        script = """
            const annotation = window.Htx.annotationStore.selected;
            const saved = annotation.draftSaved && !annotation.isDraftSaving;
            return Boolean(saved) && new Date(annotation.draftSaved) >= new Date(annotation.history.lastAdditionTime);
        """
        self._wait("a draft", lambda: self._run(script))

    def submit(self) -> int:
        """Submit the annotation, or update it; its id."""
        selector = '[data-testid="bottombar-submit-button"],[data-testid="bottombar-update-button"]'
        button = self.browser.find_element(By.CSS_SELECTOR, selector)
        # Encoding masks blocks the page for long: click from a timer, so that this call returns at once.
        click = """
            const [button] = arguments;
            window.submitted = false;
            setTimeout(() => { button.click(); window.submitted = true; }, 0);
        """
        self._run(click, button)
        saved = """
            const store = window.Htx;
            return window.submitted && !store.isSubmitting && !store.isLoading && store.annotationStore.selected?.pk;
        """
        return int(self._wait("the submit", lambda: self._run(saved)))

    # How it is done

    def _run(self, script: str, *arguments: object) -> Any:
        return self.browser.execute_script(script, *arguments)

    def _wait(self, what: str, condition: Callable[[], Value | None], timeout_s: float | None = None) -> Value:
        def quiet() -> Value | None:
            try:
                return condition()
            except JavascriptException:  # the page is between two states
                return None

        return wait_for(what, quiet, timeout_s or self.timeout_s)

    def _settle(self) -> None:
        """Let the page draw twice, so that what was just decided is on screen."""
        script = """
            const [done] = arguments;
            requestAnimationFrame(() => requestAnimationFrame(() => setTimeout(done, 150)));
        """
        self.browser.execute_async_script(script)

    def _is_pending(self) -> bool:
        return bool(self._run("return window.Htx.annotationStore.selected.suggestions.size"))

    def _regions(self, of: str, which: str = "(r) => true") -> list[Region]:
        script = f"""
            return Array.from(window.Htx.annotationStore.{of}).filter({which}).map((r) => (
                [r.cleanId, r.type, r.labelName ?? null, r.score ?? null]));
        """
        return [Region(*row) for row in self._run(script)]

    def _lines(self, field: str) -> list[str]:
        script = """
            const results = window.Htx.annotationStore.selected.results;
            const field = results.filter((r) => r.type === "textarea" && r.from_name.name === arguments[0]);
            return field.flatMap((r) => r.value.toJSON().text);
        """
        return list(self._run(script, field))

    def _click(self, selector: str) -> None:
        self._run("arguments[0].click()", self.browser.find_element(By.CSS_SELECTOR, selector))

    def _switch(self, test_id: str, key: str, *, on: bool) -> None:
        def is_set() -> bool:
            return bool(self._run("return window.Htx[arguments[0]]", key)) is on

        if not is_set():
            self._click(f'[data-testid="{test_id}"]')
            self._wait(test_id, is_set)
            self._settle()

    def _choose(self, control_type: str, label: str, tool: str) -> None:
        """Choose a label of a control of this type, then its smart tool.

        Unselects regions first: a label chosen with a region selected relabels it. The tool comes second: choosing
        a label chooses the ordinary tool.
        """
        self.browser.find_element(By.TAG_NAME, "body").send_keys(Keys.ESCAPE)
        element = self._label(control_type, label)
        if "selected" not in (element.get_attribute("class") or ""):
            self._run("arguments[0].click()", element)
            self._settle()
        self._click(f'.lsf-tool_smart[aria-label="{tool}"]')
        self._settle()

    def _label(self, control_type: str, label: str) -> WebElement:
        script = """
            const names = Array.from(window.Htx.annotationStore.selected.names.values());
            const controls = names.filter((t) => t.type.endsWith("labels"));
            const groups = document.querySelectorAll(".lsf-labels");  // in the config's order
            const group = groups[controls.findIndex((t) => t.type === arguments[0])];
            return Array.from(group?.querySelectorAll(".lsf-label") ?? []).find(
                (e) => e.querySelector(".lsf-label__text").textContent.trim() === arguments[1]) ?? null;
        """
        element: WebElement | None = self._run(script, control_type, label)
        if element is None:
            raise LookupError(f"the page has no label {label!r} in a {control_type} control")
        return element

    def _on_screen(self, x: float, y: float) -> tuple[int, int]:
        """Where on the screen a point of the image is, after scrolling it into view."""
        script = """
            const image = document.querySelector('[class*="image"] img');
            const at = () => {
                const r = image.getBoundingClientRect();
                return [r.x + arguments[0] * r.width, r.y + arguments[1] * r.height];
            };
            const hit = ([x, y]) => document.elementFromPoint(x, y)?.tagName === "CANVAS";
            if (!hit(at())) image.scrollIntoView({block: "center", inline: "center"});
            return hit(at()) ? at().map(Math.round) : null;
        """
        point = self._run(script, x, y)
        if point is None:
            raise LookupError(f"the image's point {x}, {y} cannot be clicked")
        return int(point[0]), int(point[1])

    def _calls_backend(self, action: Callable[[], object]) -> bool:
        before = self._run("return window.Htx.suggestionsRequest")
        action()
        try:
            self._wait("a call", lambda: self._run("return window.Htx.suggestionsRequest") != before, CALL_START_S)
        except TimeoutError:
            return False
        self._wait("the backend's answer", lambda: not self._run("return window.Htx.awaitingSuggestions"))
        time.sleep(0.3)  # an empty answer shows no change that could be waited for
        return True

    def _end_suggestions(self, test_id: str) -> None:
        self._click(f'[data-testid="{test_id}"]')
        self._wait("the suggestions to go", lambda: not self._is_pending())
        self._settle()
