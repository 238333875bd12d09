"use strict";

/* Begins an explorer in each article when it is first seen, and connects keys and the page's fragment (`#result-0/DIGEST/0.1-1.3`). */
const page = { data: JSON.parse(document.getElementById("data").textContent), explorers: new Map(), active: null };

page.explorer = (number) => {
  const result = page.data.results[number];
  if (!page.explorers.has(number) && result && result.tables) {
    const root = document.querySelector(`#result-${number} .explorer`);
    const explorer = new Explorer(root, result, page.data.lockmodel);
    let timer = null;
    const write = () => {
      const fragment = `#result-${number}/${result.digest}/${explorer.fragment}`;
      // Browsers limit how often this may be done.
      try { history.replaceState(null, "", fragment); } catch { /* The next step writes it. */ }
    };
    explorer.onmove = (now = false) => {
      page.active = number;
      clearTimeout(timer);
      if (now) write();
      else timer = setTimeout(write, 200);
    };
    page.explorers.set(number, explorer);
  }
  return page.explorers.get(number);
};

page.open = () => {
  const match = /^#result-(\d+)(?:\/(\w+)\/([\d.-]*))?$/.exec(window.location.hash);
  if (!match) return;
  const number = Number(match[1]);
  const article = document.getElementById(`result-${number}`);
  if (!article) return;
  article.querySelectorAll(":scope > details:first-of-type").forEach((one) => (one.open = true));
  const explorer = page.explorer(number);
  page.active = number;
  if (!explorer || match[2] === undefined) return;
  if (match[2] !== page.data.results[number].digest) explorer.say("The link is of another version of this spec, so it is not followed.");
  else explorer.open(match[3]);
  article.scrollIntoView();
};

/* The numbers of a replay's statements lead to the steps of its trace. */
page.linkStatements = (article) => {
  for (const row of article.querySelectorAll("tr[data-step]")) {
    const head = row.querySelector("th");
    const go = () => {
      const explorer = page.explorer(Number(article.dataset.result));
      if (explorer) explorer.goTo(row.dataset.step === "end" ? Infinity : Number(row.dataset.step));
    };
    head.replaceChildren(element("button", { type: "button", onclick: go, title: "Show this step in the model below", "aria-label": `Statement ${head.textContent}: show its step in the model below` }, head.textContent));
  }
};

document.addEventListener("keydown", (event) => {
  const target = event.target;
  if (event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented || target.closest("input, select, textarea, .picture")) return;
  const article = target.closest("article[data-result]");
  const explorer = page.explorers.get(article ? Number(article.dataset.result) : page.active);
  if (explorer) explorer.key(event);
});

page.articles = [...document.querySelectorAll("article[data-result]")];
page.articles.filter((article) => page.data.results[article.dataset.result].tables).forEach(page.linkStatements);
page.articles.forEach((article) => article.addEventListener("focusin", () => (page.active = Number(article.dataset.result))));
if (page.articles.length <= 4 || !("IntersectionObserver" in window)) {
  page.articles.forEach((article) => page.explorer(Number(article.dataset.result)));
} else {
  const observer = new IntersectionObserver((entries) => {
    for (const entry of entries) {
      if (!entry.isIntersecting) continue;
      page.explorer(Number(entry.target.dataset.result));
      observer.unobserve(entry.target);
    }
  }, { rootMargin: "400px" });
  page.articles.forEach((article) => observer.observe(article));
}
page.active = page.explorers.size ? 0 : null;
window.addEventListener("hashchange", page.open);
// A printed schedule is whole, and so is what is folded away.
window.addEventListener("beforeprint", () => {
  page.articles.forEach((article) => page.explorer(Number(article.dataset.result)));
  document.querySelectorAll("article details:not(.plain *)").forEach((one) => (one.open = true));
});
page.open();
