// Searches while the user types. Text from documents is inserted as text nodes only.
"use strict";

const HITS = 10;
const SNIPPET_CHARS = 200;
const TYPING_PAUSE_MS = 40;
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

function setStatus(text, isError = false) {
  const status = byId("status");
  status.textContent = text;
  status.classList.toggle("error", isError);
}

async function fetchJson(path, signal) {
  const headers = key ? { authorization: `Bearer ${key}` } : {};
  const response = await fetch(path, { headers, signal });
  const body = await response.json();
  if (response.ok) return body;
  if (response.status === 401) byId("key-form").hidden = false;
  const retryAfter = response.headers.get("retry-after");
  throw new Error((body.detail || body.title || `HTTP ${response.status}`) + (retryAfter ? ` Try again in ${retryAfter} s.` : ""));
}

const count = new Intl.NumberFormat("en");
const inMs = (us) => (us < 100 ? "<0.1" : (us / 1000).toFixed(1)) + " ms";

// The text with the words of the query highlighted.
function highlight(text, words) {
  if (!words.length) return [text];
  const pattern = new RegExp(`(${words.map((word) => word.replace(/[.*+?^${}()|[\]\\]/g, "\\$&")).join("|")})`, "giu");
  return text.split(pattern).map((part, i) => (i % 2 ? element("mark", "", part) : part));
}

function hit(result, words) {
  const chars = [...result.content];
  const cut = chars.length > SNIPPET_CHARS;
  const snippet = cut ? chars.slice(0, SNIPPET_CHARS).join("") + "..." : result.content;
  const text = element("p", "text", ...highlight(snippet, words));
  const score = element("span", "score", result.score.toFixed(3));
  if (result.distance !== undefined) score.title = `distance ${result.distance.toFixed(4)}`;
  const foot = element("p", "foot", result.id);
  if (cut) {
    const more = element("button", "", "show all");
    more.type = "button";
    let open = false;
    more.addEventListener("click", () => {
      open = !open;
      text.replaceChildren(...highlight(open ? result.content : snippet, words));
      more.textContent = open ? "show less" : "show all";
    });
    foot.append(" · ", more);
  }
  const title = element("h2", "", ...highlight(result.title || result.id, words));
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
    element("b", "", `server ${inMs(timing.total_us)}, round trip ${roundTripMs.toFixed(0)} ms`),
  );
  byId("timing").hidden = false;
}

function clear(text) {
  hits.replaceChildren();
  byId("timing").hidden = true;
  setStatus(text);
}

async function search() {
  pending?.abort();
  const q = query.value.trim();
  const selected = collection.value;
  const url = new URL(location.href);
  if (q) url.searchParams.set("q", q);
  else url.searchParams.delete("q");
  history.replaceState(null, "", url);
  if (!q) return clear(overview);

  pending = new AbortController();
  hits.classList.add("stale");
  const startedAt = performance.now();
  try {
    const parameters = new URLSearchParams({ q, k: HITS });
    if (selected) parameters.set("collection", selected);
    const response = await fetchJson(`/search?${parameters}`, pending.signal);
    const words = q.split(/[^\p{L}\p{N}]+/u).filter((word) => word.length > 3);
    hits.replaceChildren(...response.results.map((result) => hit(result, words)));
    showTiming(response.timing, performance.now() - startedAt);
    const found = response.results.length ? `The ${response.results.length} nearest documents` : "This collection has no documents yet";
    setStatus(response.truncated ? `${found}. The query is longer than the model reads; the rest was ignored.` : found);
  } catch (error) {
    if (error.name === "AbortError") return;
    clear("");
    setStatus(error.message, true);
  }
  hits.classList.remove("stale");
}

let overview = "";

async function start() {
  try {
    const { collections } = await fetchJson("/collections");
    byId("key-form").hidden = true;
    collection.replaceChildren(...collections.map((each) => new Option(each.name)));
    byId("collection-label").hidden = collections.length < 2;
    const documents = collections.reduce((sum, each) => sum + each.documents, 0);
    overview = collections.length
      ? `${count.format(documents)} documents. Press / to search.`
      : "There is no collection yet. Create one with: nearfield index FILE.csv";
    search();
  } catch (error) {
    setStatus(error.message, true);
  }
}

query.addEventListener("input", () => {
  clearTimeout(timer);
  timer = setTimeout(search, TYPING_PAUSE_MS);
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
  start();
});
document.addEventListener("keydown", (event) => {
  if (event.key === "/" && document.activeElement !== query && document.activeElement !== byId("key")) {
    event.preventDefault();
    query.select();
  }
});

query.value = new URL(location.href).searchParams.get("q") || "";
start();
