// One box that answers as one types. Text from documents only ever becomes text nodes.
"use strict";

const HITS = 10;
const SNIPPET_CHARS = 200;
const PAUSE_MS = 40;
const STAGES = ["queue", "embed", "filter", "search", "fetch"];

const byId = (id) => document.getElementById(id);
const form = byId("form");
const query = byId("query");
const collection = byId("collection");
const hits = byId("hits");

let key = "";
let pending = null;
let timer = 0;

function element(tag, className, ...children) {
  const node = document.createElement(tag);
  if (className) node.className = className;
  node.append(...children);
  return node;
}

function say(text, wrong = false) {
  const status = byId("status");
  status.textContent = text;
  status.classList.toggle("wrong", wrong);
}

async function ask(path, signal) {
  const headers = key ? { authorization: `Bearer ${key}` } : {};
  const response = await fetch(path, { headers, signal });
  const body = await response.json();
  if (response.ok) return body;
  if (response.status === 401) byId("key-form").hidden = false;
  const after = response.headers.get("retry-after");
  throw new Error((body.detail || body.title || `HTTP ${response.status}`) + (after ? ` Try again in ${after} s.` : ""));
}

const count = new Intl.NumberFormat("en");
const inMs = (us) => (us < 100 ? "<0.1" : (us / 1000).toFixed(1)) + " ms";

// The words of the question, marked where they stand in the text; meaning found the rest.
function marked(text, words) {
  if (!words.length) return [text];
  const pattern = new RegExp(`(${words.map((word) => word.replace(/[.*+?^${}()|[\]\\]/g, "\\$&")).join("|")})`, "giu");
  return text.split(pattern).map((part, i) => (i % 2 ? element("mark", "", part) : part));
}

function hit(result, words) {
  const chars = [...result.content];
  const cut = chars.length > SNIPPET_CHARS;
  const snippet = cut ? chars.slice(0, SNIPPET_CHARS).join("") + "..." : result.content;
  const text = element("p", "text", ...marked(snippet, words));
  const score = element("span", "score", result.score.toFixed(3));
  score.title = `distance ${result.distance.toFixed(4)}`;
  const foot = element("p", "foot", result.id);
  if (cut) {
    const more = element("button", "", "show all");
    more.type = "button";
    let open = false;
    more.addEventListener("click", () => {
      open = !open;
      text.replaceChildren(...marked(open ? result.content : snippet, words));
      more.textContent = open ? "show less" : "show all";
    });
    foot.append(" · ", more);
  }
  const title = element("h2", "", ...marked(result.title || result.id, words));
  return element("li", "", element("div", "head", title, score), text, foot);
}

function showTiming(timing, roundTripMs) {
  const bar = byId("bar");
  const legend = byId("legend");
  const stages = STAGES.filter((stage) => timing[`${stage}_us`] > 0);
  bar.replaceChildren(
    ...stages.map((stage) => {
      const part = element("span", stage);
      part.style.flexGrow = timing[`${stage}_us`];
      return part;
    }),
  );
  legend.replaceChildren(
    ...stages.map((stage) => element("span", stage, element("b", "", `${stage} ${inMs(timing[`${stage}_us`])}`))),
    element("b", "", `server ${inMs(timing.total_us)}, with the way here ${roundTripMs.toFixed(0)} ms`),
  );
  byId("timing").hidden = false;
}

function clear(text) {
  hits.replaceChildren();
  byId("timing").hidden = true;
  say(text);
}

async function search() {
  pending?.abort();
  const q = query.value.trim();
  const where = collection.value;
  const url = new URL(location.href);
  if (q) url.searchParams.set("q", q);
  else url.searchParams.delete("q");
  history.replaceState(null, "", url);
  if (!q) return clear(overview);

  pending = new AbortController();
  hits.classList.add("stale");
  const asked = performance.now();
  try {
    const parameters = new URLSearchParams({ q, k: HITS });
    if (where) parameters.set("collection", where);
    const answer = await ask(`/search?${parameters}`, pending.signal);
    const words = q.split(/[^\p{L}\p{N}]+/u).filter((word) => word.length > 3);
    hits.replaceChildren(...answer.results.map((result) => hit(result, words)));
    showTiming(answer.timing, performance.now() - asked);
    const found = answer.results.length ? `The ${answer.results.length} nearest` : "Nothing in this collection yet";
    say(answer.truncated ? `${found}. The question is longer than the model reads: only its beginning counted.` : found);
  } catch (error) {
    if (error.name === "AbortError") return;
    clear("");
    say(error.message, true);
  }
  hits.classList.remove("stale");
}

let overview = "";

async function begin() {
  try {
    const { collections } = await ask("/collections");
    byId("key-form").hidden = true;
    collection.replaceChildren(...collections.map((each) => new Option(each.name)));
    byId("collection-label").hidden = collections.length < 2;
    const documents = collections.reduce((sum, each) => sum + each.documents, 0);
    overview = collections.length
      ? `${count.format(documents)} documents. Press / to type.`
      : "No collection yet: put one in with nearfield index FILE.csv";
    search();
  } catch (error) {
    say(error.message, true);
  }
}

query.addEventListener("input", () => {
  clearTimeout(timer);
  timer = setTimeout(search, PAUSE_MS);
});
collection.addEventListener("change", search);
form.addEventListener("submit", (event) => {
  event.preventDefault();
  clearTimeout(timer);
  search();
});
byId("key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  key = byId("key").value;
  begin();
});
document.addEventListener("keydown", (event) => {
  if (event.key === "/" && document.activeElement !== query && document.activeElement !== byId("key")) {
    event.preventDefault();
    query.select();
  }
});

query.value = new URL(location.href).searchParams.get("q") || "";
begin();
