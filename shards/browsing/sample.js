// One sample: its sound as a wave to be played, what is asked and answered, its facts, what lies beside it.

import { ask, clock, draw, icon, make, words } from "./parts.js";

const HEIGHT = 96;
let sound = null;
let asked = null;

export function toggle() {
  if (!sound) return false;
  if (sound.paused) sound.play().catch(() => {}); else sound.pause();
  return true;
}

export function hide(place) {
  if (sound) { sound.pause(); sound.removeAttribute("src"); sound.load(); }
  if (asked) asked.abort();
  sound = asked = null;
  place.replaceChildren();
}

// `known` maps tasks to their colours; `to` makes the address of another sample; `close` ends the view.
export async function show(place, key, { known, to, sought, close }) {
  hide(place);
  const mine = asked = new AbortController();
  let held;
  try {
    held = await ask(`/api/sample/${encodeURIComponent(key)}`, mine.signal);
  } catch (error) {
    if (error.name !== "AbortError") {
      place.replaceChildren(make("p", { class: "told", role: "alert" }, `${key}: ${error.message}`), closing(close));
    }
    return;
  }
  if (mine.signal.aborted) return;
  const link = make("button", { type: "button", class: "plain", title: "Copy a link to this sample" }, icon("link"), " Copy link");
  link.addEventListener("click", async () => {
    await navigator.clipboard.writeText(location.href);
    link.lastChild.textContent = " Copied";
  });
  place.replaceChildren(
    make("header", {},
      make("h2", {}, held.key),
      make("div", { class: "steps" }, step("up", "Sample before it in the index", held.before, to),
        step("down", "Sample behind it in the index", held.after, to), closing(close))),
    player(held, mine.signal),
    held.text ? make("section", { class: "said" }, make("h3", {}, "Text"), words(held.text, sought, "p")) : "",
    make("section", {}, make("h3", {}, held.instructions.length === 1 ? "Instruction" : `${held.instructions.length} instructions`),
      held.instructions.map((one) => instruction(one, known, sought))),
    held.copies.length ? make("section", {}, make("h3", {}, "The same sound, to the bit"),
      make("ul", { class: "copies" }, held.copies.map((one) => make("li", {}, make("a", { href: to(one), "data-key": one }, one))))) : "",
    facts("Sound", held.quality),
    facts("Facts", held.facts),
    make("p", { class: "links" }, link,
      held.speaker ? make("a", { href: `/?speaker=${encodeURIComponent(held.speaker)}`, class: "plain" }, "More by this speaker") : "",
      make("a", { href: address(held), download: `${held.key}.flac`, class: "plain" }, icon("save"), " FLAC")));
  place.scrollTop = 0;
}

const address = (held) => `/audio/${encodeURIComponent(held.key)}.flac`;

function closing(close) {
  return make("button", { type: "button", class: "plain close", title: "Back to the list (Escape)", "aria-label": "Back to the list", onclick: close }, icon("close"));
}

function step(shape, name, key, to) {
  if (!key) return make("span", { class: "plain off", "aria-hidden": "true" }, icon(shape));
  return make("a", { class: "plain", href: to(key), "data-key": key, title: name, "aria-label": name }, icon(shape));
}

function instruction(one, known, sought) {
  return make("article", { class: "asked", colour: known.get(one.task) },
    make("h4", {}, make("span", { class: "dot" }), one.task),
    words(one.prompt, sought, "p"),
    make("ul", {}, one.answers.map((answer) => words(answer, sought, "li"))));
}

function facts(title, told) {
  if (!told.length) return "";
  return make("section", {}, make("h3", {}, title),
    make("dl", {}, told.map(([name, text]) => make("div", {}, make("dt", {}, name), words(text, "", "dd")))));
}

function player(held, signal) {
  sound = make("audio", { preload: "metadata", src: address(held) });
  const mine = sound;
  const button = make("button", { type: "button", class: "play", "aria-label": "Play", title: "Play (space)", onclick: toggle }, icon("play"));
  const time = make("output", {}, clock(0));
  const told = make("p", { class: "told", role: "alert", hidden: true });
  const length = () => (Number.isFinite(mine.duration) ? mine.duration : held.seconds);
  const wave = make("div", { class: "wave", role: "slider", tabindex: "0", "aria-label": "Place in the sound", "aria-valuemin": "0", "aria-valuemax": held.seconds.toFixed(1) });
  const played = draw("rect", { x: "0", y: "0", width: "0", height: HEIGHT });
  const moved = () => {
    const share = length() ? mine.currentTime / length() : 0;
    played.setAttribute("width", share * 1000);
    wave.style.setProperty("--at", `${share * 100}%`);
    wave.setAttribute("aria-valuenow", mine.currentTime.toFixed(1));
    wave.setAttribute("aria-valuetext", `${mine.currentTime.toFixed(1)} of ${length().toFixed(1)} seconds`);
    time.textContent = clock(mine.currentTime);
  };
  const seek = (seconds) => { mine.currentTime = Math.min(Math.max(0, seconds), length()); moved(); };
  const changed = () => {
    const on = !mine.paused && !mine.ended;
    button.replaceChildren(icon(on ? "pause" : "play"));
    button.setAttribute("aria-label", on ? "Pause" : "Play");
    const frame = () => { if (mine !== sound) return; moved(); if (!mine.paused) requestAnimationFrame(frame); };
    frame();
  };
  for (const event of ["play", "pause", "ended", "seeked", "loadedmetadata"]) mine.addEventListener(event, changed);
  mine.addEventListener("error", async () => {
    if (mine !== sound) return;
    button.disabled = true;
    told.hidden = false;
    told.textContent = "This sound cannot be played.";
  });
  const there = (event) => { const box = wave.getBoundingClientRect(); return ((event.clientX - box.left) / box.width) * length(); };
  wave.addEventListener("pointerdown", (event) => { wave.setPointerCapture(event.pointerId); seek(there(event)); });
  wave.addEventListener("pointermove", (event) => { if (event.buttons & 1) seek(there(event)); });
  wave.addEventListener("keydown", (event) => {
    const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (by) { seek(mine.currentTime + by); event.preventDefault(); }
    if (event.key === "Home") { seek(0); event.preventDefault(); }
  });
  outline(wave, played, held, signal, told);
  moved();
  return make("div", { class: "player" }, wave,
    make("div", { class: "controls" }, button, make("span", { class: "time" }, time, " / ", clock(held.seconds)), mine), told);
}

async function outline(wave, played, held, signal, told) {
  let peaks;
  try {
    peaks = await ask(`/api/peaks/${encodeURIComponent(held.key)}`, signal);
  } catch (error) {
    if (error.name !== "AbortError") { told.hidden = false; told.textContent = error.message; }
    return;
  }
  const most = Math.max(1, ...peaks.flat().map(Math.abs));
  const wide = 1000 / Math.max(1, peaks.length);
  const path = peaks.map(([low, high], at) => {
    const top = HEIGHT / 2 - Math.max(0.6, (high / most) * (HEIGHT / 2 - 2));
    const bottom = HEIGHT / 2 + Math.max(0.6, (-low / most) * (HEIGHT / 2 - 2));
    return `M${(at * wide).toFixed(2)} ${top.toFixed(1)}h${(wide * 0.68).toFixed(2)}V${bottom.toFixed(1)}h-${(wide * 0.68).toFixed(2)}z`;
  }).join("");
  wave.replaceChildren(draw("svg", { viewBox: `0 0 1000 ${HEIGHT}`, preserveAspectRatio: "none", "aria-hidden": "true" },
    draw("clipPath", { id: "played" }, played),
    draw("path", { d: path, class: "whole" }),
    draw("path", { d: path, class: "heard", "clip-path": "url(#played)" })));
}
