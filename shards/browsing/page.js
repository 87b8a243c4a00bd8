// The page: its state is its address. Filters, the list, the quarantine, and keys to move about.

import { ask, count, hours, icon, make, size, words } from "./parts.js";
import { hide, show, toggle } from "./sample.js";

const FACETS = { task: "Task", corpus: "Corpus", split: "Split", language: "Language", gender: "Gender", license: "Licence", action: "Made by" };
const REFUSED = { verdict: "Verdict", reason: "Reason", corpus: "Corpus", split: "Split" };
const MEASURES = {
  seconds: ["Length", "seconds"], silence: ["Silence", "0 to 1"], clipped: ["Clipping", "0 to 1"],
  snr_db: ["Signal", "dB over floor"], bandwidth_hz: ["Bandwidth", "Hz"], lufs: ["Loudness", "LUFS"],
};
const SORTS = {
  "": "as stored", seconds: "shortest first", "-seconds": "longest first", "-silence": "most silent first",
  "-clipped": "most clipped first", snr_db: "lowest signal first", "-snr_db": "highest signal first",
  bandwidth_hz: "narrowest first", lufs: "quietest first", "-lufs": "loudest first",
};
const FEW = 8;
const find = (id) => document.getElementById(id);
const opened = new Set();
let dataset, colours, keys = [], asking = null, shown = "", waiting = 0, listed = null;

// What the address says. Nothing else is kept.
const state = () => new URLSearchParams(location.search);
const isRefused = (now = state()) => now.get("view") === "refused";

function address(change) {
  const next = state();
  change(next);
  for (const [name, value] of [...next]) if (!value && !(name in FACETS)) next.delete(name);
  const text = next.toString();
  return text ? `/?${text}` : "/";
}

function go(change, replace = false) {
  const next = address(change);
  if (next === location.pathname + location.search) return;
  history[replace ? "replaceState" : "pushState"](null, "", next);
  refresh();
}

const filtered = (change) => (next) => { change(next); next.delete("page"); };
const to = (key) => address((next) => next.set("sample", key));

async function refresh() {
  const now = state();
  const refused = isRefused(now);
  document.body.classList.toggle("refused", refused);
  document.body.classList.toggle("open", !refused && now.has("sample"));
  current(find("to-samples"), !refused);
  current(find("to-refused"), refused);
  find("q").placeholder = refused ? "Search ids, reasons, files" : "Search texts, prompts, answers, ids, speakers";
  find("q").setAttribute("aria-label", find("q").placeholder);
  find("sorting").hidden = refused;
  find("sort").value = now.get("sort") || "";
  if (document.activeElement !== find("q")) find("q").value = now.get("q") || "";
  chips(now);
  const one = refused ? "" : now.get("sample") || "";
  if (one !== shown) {
    shown = one;
    if (one) show(find("sample"), one, { known: colours, to, sought: now.get("q") || "", close });
    else empty();
  }
  document.title = `${one ? `${one} - ` : refused ? "Quarantine - " : ""}${dataset.title || dataset.recipe} - salmonn serve`;
  mark();
  const list = new URLSearchParams(now);
  list.delete("sample");
  list.delete("view");
  const wanted = `${refused ? "/api/refusals" : "/api/samples"}?${list}`;
  if (wanted === listed) return;
  listed = wanted;
  if (asking) asking.abort();
  const mine = asking = new AbortController();
  const slow = setTimeout(() => find("found").setAttribute("aria-busy", "true"), 150);
  try {
    const told = await ask(wanted, mine.signal);
    find("trouble").hidden = true;
    (refused ? fillRefused : fill)(told, now);
    filters(told.facets, now, refused);
    pager(told);
  } catch (error) {
    if (error.name === "AbortError") return;
    listed = null;
    find("trouble").hidden = false;
    find("trouble").textContent = error.message;
  } finally {
    clearTimeout(slow);
    if (mine === asking) find("found").removeAttribute("aria-busy");
  }
}

const close = () => go((next) => next.delete("sample"));

function empty() {
  hide(find("sample"));
  find("sample").append(make("div", { class: "hint" }, make("p", {}, "Choose a sample to hear it."),
    make("dl", {}, [["j k", "move"], ["space", "plays"], ["/", "searches"], ["esc", "closes"]].map(([key, does]) =>
      make("div", {}, make("dt", {}, make("kbd", {}, key)), make("dd", {}, does))))));
}

function fill(told, now) {
  keys = told.rows.map((row) => row.key);
  find("count").replaceChildren(make("b", {}, count(told.total)), told.total === dataset.samples ? " samples" : ` of ${count(dataset.samples)} samples`, `, ${hours(told.hours)}`);
  const sought = now.get("q") || "";
  find("list").className = "samples";
  find("list").replaceChildren(...told.rows.map((row) => make("li", {},
    make("a", { href: to(row.key), "data-key": row.key },
      make("span", { class: "line" }, row.line ? words(row.line, sought) : make("i", {}, "no text"), row.found ? make("span", { class: "also" }, words(row.found, sought)) : ""),
      make("span", { class: "under" },
        row.tasks.map((task) => make("span", { class: "task", colour: colours.get(task) }, make("span", { class: "dot" }), task)),
        make("span", {}, `${row.corpus}:${row.split}`), row.speaker ? make("bdi", {}, row.speaker) : ""),
      make("span", { class: "long" }, row.seconds === null ? "" : `${row.seconds.toFixed(1)} s`)))));
  if (!told.rows.length) find("list").append(make("li", { class: "none" }, "No sample is like that. ", make("a", { href: "/" }, "Show all")));
  find("list").scrollTop = 0;
  mark();
}

function fillRefused(told) {
  keys = [];
  find("count").replaceChildren(make("b", {}, count(told.total)), told.total === dataset.refused ? " clips were refused" : ` of ${count(dataset.refused)} refused clips`);
  find("list").className = "refusals";
  const sought = state().get("q") || "";
  find("list").replaceChildren(...told.rows.map((row) => make("li", {},
    make("p", { class: "line" }, words(row.id, sought)),
    make("p", { class: "why" }, make("b", { class: row.verdict }, row.reason), row.why ? ` ${row.why}` : ""),
    row.detail ? words(row.detail, sought, "p") : "",
    make("p", { class: "under" }, make("span", { class: "kind" }, row.verdict), make("span", {}, `${row.corpus}:${row.split}`), row.source ? words(row.source, sought) : "",
      row.bytes ? make("span", {}, size(row.bytes)) : ""))));
  if (!told.rows.length) {
    find("list").append(make("li", { class: "none" }, dataset.refused ? "No refused clip is like that." : "Nothing was refused: every clip that was found is in the dataset."));
  }
  find("list").scrollTop = 0;
}

function pager(told) {
  find("pager").hidden = told.pages < 2;
  find("page").textContent = `${count(told.page)} of ${count(told.pages)}`;
  find("back").disabled = told.page <= 1;
  find("next").disabled = told.page >= told.pages;
  find("back").onclick = () => turn(told.page - 1);
  find("next").onclick = () => turn(told.page + 1);
}

const turn = (page) => go((next) => { if (page > 1) next.set("page", page); else next.delete("page"); });

function mark() {
  const one = state().get("sample");
  for (const link of find("list").querySelectorAll("a[data-key]")) {
    const on = link.dataset.key === one;
    current(link, on);
    if (on) link.scrollIntoView({ block: "nearest" });
  }
}

function current(link, on) {
  if (on) link.setAttribute("aria-current", "page"); else link.removeAttribute("aria-current");
}

// Filters ------------------------------------------------------------------------------------------------------------

function filters(facets, now, refused) {
  const held = document.activeElement?.dataset?.name;
  const names = refused ? REFUSED : FACETS;
  const parts = Object.entries(names).filter(([name]) => facets[name].length && (now.has(name) || refused || dataset.varied.includes(name)))
    .map(([name, title]) => facet(name, title, facets[name], new Set(now.getAll(name))));
  if (!refused) parts.push(measures(now), others(now));
  find("folded").replaceChildren(...parts);
  if (held) find("folded").querySelector(`[data-name="${CSS.escape(held)}"]`)?.focus();
}

function facet(name, title, values, chosen) {
  const order = name === "task" ? values.slice().sort((a, b) => rank(a.value) - rank(b.value))
    : values.slice().sort((a, b) => b.count - a.count || (a.value < b.value ? -1 : 1));
  const there = order.filter((one) => one.count || chosen.has(one.value));
  const most = Math.max(1, ...there.map((one) => one.count));
  const whole = opened.has(name) || there.length <= FEW + 1;
  const first = whole ? there : there.filter((one, place) => place < FEW || chosen.has(one.value));
  const set = make("fieldset", {}, make("legend", {}, title), first.map((one) => {
    const box = make("input", { type: "checkbox", "data-name": `${name}=${one.value}`, checked: chosen.has(one.value) });
    box.addEventListener("change", () => go(filtered((next) => {
      const kept = next.getAll(name).filter((value) => value !== one.value);
      next.delete(name);
      for (const value of box.checked ? [...kept, one.value] : kept) next.append(name, value);
    })));
    const row = make("label", { class: "choice", colour: name === "task" ? colours.get(one.value) : null }, box,
      name === "task" ? make("span", { class: "dot" }) : "", words(one.value || "not said", "", "span"), make("span", { class: "number" }, count(one.count)));
    row.style.setProperty("--share", `${(100 * one.count) / most}%`);
    return row;
  }));
  if (!whole) set.append(make("button", { type: "button", class: "more", onclick: () => { opened.add(name); listed = null; refresh(); } }, `${count(there.length - first.length)} more`));
  return set;
}

const rank = (task) => dataset.tasks.findIndex((one) => one.name === task);

function measures(now) {
  const set = make("fieldset", {}, make("legend", {}, "Length and quality"));
  for (const [name, [title, unit]] of Object.entries(MEASURES)) {
    const ends = ["from", "to"].map((end) => {
      const id = `${name}_${end}`;
      const input = make("input", { type: "number", step: "any", placeholder: end, "aria-label": `${title}, ${end}, ${unit}`, "data-name": id, value: now.get(id) || "" });
      input.addEventListener("change", () => go(filtered((next) => next.set(id, input.value))));
      return input;
    });
    set.append(make("div", { class: "limits" }, make("span", {}, title, make("small", {}, unit)), ends));
  }
  return set;
}

function others(now) {
  if (!dataset.copies && !now.has("copies")) return "";
  const box = make("input", { type: "checkbox", "data-name": "copies", checked: now.has("copies") });
  box.addEventListener("change", () => go(filtered((next) => next.set("copies", box.checked ? "1" : ""))));
  return make("fieldset", {}, make("legend", {}, "Copies"), make("label", { class: "choice" }, box, make("span", {}, "same sound as another"), make("span", { class: "number" }, count(dataset.copies))));
}

function chips(now) {
  const names = isRefused(now) ? REFUSED : FACETS;
  const made = [];
  const chip = (text, change) => made.push(make("button", { type: "button", class: "chip", title: "Remove this filter", onclick: () => go(filtered(change)) }, words(text), icon("close")));
  if (now.get("q")) chip(`"${now.get("q")}"`, (next) => { next.delete("q"); find("q").value = ""; });
  for (const name of Object.keys(names)) {
    for (const value of now.getAll(name)) {
      chip(value || `${names[name].toLowerCase()} not said`, (next) => {
        const kept = next.getAll(name).filter((one) => one !== value);
        next.delete(name);
        for (const one of kept) next.append(name, one);
      });
    }
  }
  if (!isRefused(now)) {
    if (now.get("speaker")) chip(`speaker ${now.get("speaker")}`, (next) => next.delete("speaker"));
    for (const [name, [title]] of Object.entries(MEASURES)) {
      for (const [end, sign] of [["from", "from"], ["to", "to"]]) {
        if (now.get(`${name}_${end}`)) chip(`${title.toLowerCase()} ${sign} ${now.get(`${name}_${end}`)}`, (next) => next.delete(`${name}_${end}`));
      }
    }
    if (now.get("copies")) chip("copies", (next) => next.delete("copies"));
  }
  if (made.length > 1) {
    made.push(make("button", { type: "button", class: "chip clear", onclick: () => {
      find("q").value = "";
      go((next) => { for (const name of [...next.keys()]) if (!["view", "sample", "sort"].includes(name)) next.delete(name); });
    } }, "Clear all"));
  }
  find("chips").replaceChildren(...made);
  const number = made.length > 1 ? made.length - 1 : made.length;
  find("fold").textContent = number ? `Filters (${number})` : "Filters";
}

// Moving about -------------------------------------------------------------------------------------------------------

async function move(by) {
  if (isRefused() || !keys.length) return;
  const at = keys.indexOf(state().get("sample"));
  const next = at < 0 ? 0 : at + by;
  if (next >= 0 && next < keys.length) { stand(keys[next], at >= 0); return; }
  const button = find(by > 0 ? "next" : "back");
  if (find("pager").hidden || button.disabled) return;
  go((now) => now.set("page", Number(now.get("page") || 1) + by), true);
  const before = keys;
  const started = performance.now();
  while (keys === before && performance.now() - started < 5000) await new Promise((done) => setTimeout(done, 30));
  stand(keys[by > 0 ? 0 : keys.length - 1], true);
}

// The focus goes along, or the space bar would still press what was used before.
function stand(key, replace) {
  go((now) => now.set("sample", key), replace);
  find("list").querySelector("a[aria-current]")?.focus();
}

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const on = event.target;
  const typing = on.matches("input:not([type=checkbox]), select, textarea");
  if (event.key === "Escape") {
    if (typing) on.blur(); else if (state().has("sample")) close();
  } else if (typing) {
    return;
  } else if (event.key === "/") {
    event.preventDefault();
    find("q").focus();
    find("q").select();
  } else if (event.key === "j" || event.key === "ArrowDown") {
    event.preventDefault();
    move(1);
  } else if (event.key === "k" || event.key === "ArrowUp") {
    event.preventDefault();
    move(-1);
  } else if (event.key === " " && !on.matches("button, input, summary") && toggle()) {
    event.preventDefault();
  }
});

document.addEventListener("click", (event) => {
  const link = event.target.closest("a");
  if (!link || link.hasAttribute("download") || event.ctrlKey || event.metaKey || event.shiftKey) return;
  const url = new URL(link.href);
  if (url.origin !== location.origin || url.pathname !== "/" || url.hash) return;
  event.preventDefault();
  // The filters of now, not those of when the link was made.
  if (link.dataset.key) go((next) => next.set("sample", link.dataset.key));
  else { history.pushState(null, "", url); refresh(); }
});

find("search").addEventListener("submit", (event) => { event.preventDefault(); typed(); find("q").blur(); });
find("q").addEventListener("input", () => { clearTimeout(waiting); waiting = setTimeout(typed, 200); });
const typed = () => { clearTimeout(waiting); go(filtered((next) => next.set("q", find("q").value)), state().has("q")); };
find("sort").addEventListener("change", () => go(filtered((next) => next.set("sort", find("sort").value))));
find("fold").addEventListener("click", () => {
  find("fold").setAttribute("aria-expanded", String(document.body.classList.toggle("folded-out")));
});
window.addEventListener("popstate", refresh);

find("sort").append(...Object.entries(SORTS).map(([value, name]) => make("option", { value }, name)));
try {
  dataset = await ask("/api/dataset");
  colours = new Map(dataset.tasks.map((task) => [task.name, task.colour]));
  find("title").textContent = dataset.title || dataset.recipe;
  find("about").replaceChildren(`${count(dataset.samples)} samples, ${hours(dataset.hours)}`, make("span", { title: dataset.digest }, dataset.place));
  find("to-refused").append(make("span", { class: "number" }, count(dataset.refused)));
  empty();
  await refresh();
} catch (error) {
  find("trouble").hidden = false;
  find("trouble").textContent = error.message;
}
