// The parts that the page is made of. Whatever comes from the data becomes text, never markup.

export function make(tag, values = {}, ...inside) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(values)) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (name === "class") made.className = value;
    else if (name === "colour") made.style.setProperty("--dot", value);
    else made.setAttribute(name, value === true ? "" : value);
  }
  made.append(...inside.flat().filter((one) => one !== undefined && one !== null && one !== false));
  return made;
}

export function draw(tag, values = {}, ...inside) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(values)) made.setAttribute(name, value);
  made.append(...inside);
  return made;
}

const SHAPES = {
  play: "M8 5.5v13l11-6.5z",
  pause: "M7 5h4v14H7zM13 5h4v14h-4z",
  close: "M6 6l12 12M18 6L6 18",
  up: "M6 15l6-6 6 6",
  down: "M6 9l6 6 6-6",
  link: "M10 14a4 4 0 0 0 6 0l3-3a4 4 0 0 0-6-6l-1 1M14 10a4 4 0 0 0-6 0l-3 3a4 4 0 0 0 6 6l1-1",
  save: "M12 4v11M7 11l5 5 5-5M5 20h14",
};

export function icon(name) {
  const filled = name === "play" || name === "pause";
  return draw("svg", { viewBox: "0 0 24 24", class: filled ? "icon filled" : "icon", "aria-hidden": "true" },
    draw("path", { d: SHAPES[name] }));
}

const whole = new Intl.NumberFormat("en");
export const count = (number) => whole.format(number);

export function hours(number) {
  if (number >= 1) return `${new Intl.NumberFormat("en", { maximumFractionDigits: number < 100 ? 1 : 0 }).format(number)} h`;
  const minutes = number * 60;
  return minutes >= 1 ? `${minutes.toFixed(1)} min` : `${(minutes * 60).toFixed(0)} s`;
}

export function clock(seconds) {
  const tenths = Math.floor((seconds || 0) * 10 + 1e-6);
  const rest = tenths % 600;
  return `${Math.floor(tenths / 600)}:${String(Math.floor(rest / 10)).padStart(2, "0")}.${rest % 10}`;
}

export function size(bytes) {
  const units = ["B", "kB", "MB", "GB"];
  let unit = 0;
  while (bytes >= 1000 && unit < 3) { bytes /= 1000; unit += 1; }
  return `${unit ? bytes.toFixed(1) : bytes} ${units[unit]}`;
}

// A text whose direction is its own, with what was searched for marked in it.
export function words(text, sought = "", tag = "bdi") {
  const made = make(tag, { dir: "auto" });
  const low = text.toLowerCase();
  const q = sought.trim().toLowerCase();
  // Where lower case has another length, places are not the same.
  if (!q || low.length !== text.length) { made.textContent = text; return made; }
  let at = 0;
  for (let next = low.indexOf(q); next >= 0; next = low.indexOf(q, at)) {
    made.append(text.slice(at, next), make("mark", {}, text.slice(next, next + q.length)));
    at = next + q.length;
  }
  made.append(text.slice(at));
  return made;
}

export async function ask(address, signal) {
  let answer;
  try {
    answer = await fetch(address, { signal });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Error("the server does not answer; is salmonn serve still running?");
  }
  const told = await answer.json();
  if (!answer.ok) throw new Error(told.error);
  return told;
}
