// The page of `textray serve`: shows a film with its mask, and sends words. Text is set by textContent only.
"use strict";

const byId = (id) => document.getElementById(id);
const SIDES = ["left", "right"]; // of the picture, as everywhere in TextRay
const LEVELS = ["upper", "middle", "lower"];
const NEXT = { unmentioned: "present", present: "absent", absent: "unmentioned" };
const SIGN = { unmentioned: "○", present: "●", absent: "⊘" };
const WORDS = { unmentioned: "not mentioned", present: "lesion", absent: "no lesion" };
const USUAL_BOX = { left: { top: 0.14, end: 0.82, left: 0.1, right: 0.47 }, right: { top: 0.14, end: 0.82, left: 0.53, right: 0.9 } };
const RAMP = [[0, 25, 25, 80], [0.25, 90, 35, 140], [0.5, 200, 55, 100], [0.75, 250, 150, 45], [1, 255, 250, 170]];
const LONGEST = 1400; // pixels of a layer over the film
const DELAY = 500; // milliseconds after the last key before words are sent

const state = {
  key: "", film: null, name: "", picture: null, result: null, mask: null, heat: null, peak: null,
  zones: {}, typed: null, edit: null, opened: 0, asked: 0, phrase: 0, controller: null, zoom: 1, x: 0, y: 0, last: null, info: null,
};

// The server

class Problem extends Error {
  constructor(values) { super(values.detail); this.code = values.code; this.status = values.status; }
}

async function call(path, options = {}) {
  let answer;
  try {
    answer = await fetch(path, { ...options, headers: { ...options.headers, Authorization: `Bearer ${state.key}` }, cache: "no-store" });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Problem({ detail: "The server does not answer. It may have ended.", code: "E_OFFLINE", status: 0 });
  }
  if (answer.ok) return answer;
  const values = await answer.json().catch(() => ({ detail: "The server gave no reason.", code: "E_HTTP" }));
  throw new Problem({ ...values, status: answer.status });
}

const post = async (path, values, signal) =>
  (await call(path, { method: "POST", body: JSON.stringify(values), headers: { "Content-Type": "application/json" }, signal })).json();
const bitmap = async (path) => createImageBitmap(await (await call(path)).blob());

// Messages

function busy(words) {
  byId("busy").hidden = !words;
  byId("busy-text").textContent = words || "";
  if (words) say(words);
}
const say = (words) => { byId("status").textContent = words; };

function fail(error, again) {
  if (error.name === "AbortError") return;
  busy("");
  if (error.status === 401) {
    byId("key-form").hidden = false;
    byId("key").focus();
  }
  byId("error-text").textContent = error instanceof Problem ? `${plain(error.message)} (${error.code})` : "This page failed. Load it again.";
  byId("error").hidden = false;
  byId("again").hidden = !again;
  byId("again").onclick = again || null;
  if (!(error instanceof Problem)) console.error(error);
}
// Sentences about options of the command line are of no use here.
const plain = (text) => text.split(/(?<=\.)\s/).filter((part) => !part.includes("--")).join(" ") || text;
const calm = () => { byId("error").hidden = true; };

// Films

async function open(file) {
  calm();
  drop();
  const mine = ++state.opened;
  byId("film-name").textContent = state.name = file.name;
  byId("empty").hidden = byId("intro").hidden = true;
  byId("film-row").hidden = false;
  busy("Reading the film");
  try {
    const film = await (await call("/api/films", { method: "POST", body: file, headers: { "Content-Type": "application/octet-stream" } })).json();
    if (mine !== state.opened) return;
    state.film = film;
    const pictured = bitmap(`/api/films/${film.id}/picture.png`).then((picture) => {
      if (state.film !== film) return;
      state.picture = picture;
      state.zoom = 1; state.x = state.y = 0;
      for (const id of ["tools", "legend", "work"]) byId(id).hidden = false;
      byId("remove").disabled = false;
      draw();
    });
    const done = segment();
    await pictured;
    await done;
  } catch (error) {
    if (mine === state.opened) { drop(); fail(error, () => open(file)); }
  }
}

function drop() {
  state.controller?.abort();
  Object.assign(state, { film: null, picture: null, result: null, mask: null, heat: null, peak: null, zones: {}, typed: null, edit: null });
  state.asked++;
  state.opened++;
  for (const id of ["tools", "legend", "chips", "work", "map", "back", "film-row"]) byId(id).hidden = true;
  byId("empty").hidden = byId("intro").hidden = false;
  byId("report").value = byId("phrase").value = "";
  byId("film-name").textContent = "No film";
  byId("remove").disabled = true;
  busy("");
  draw();
}

// Words and masks

function order() {
  const text = byId("report").value.trim(), free = byId("free").value;
  const order = { laterality: byId("laterality").value };
  if (state.info?.writes_report) order.text_free = free;
  if (state.edit) { order.edit = state.edit; order.text_free = "generated"; order.laterality = chipSide(); }
  else if (text) order.text = text;
  return order;
}

async function segment() {
  const film = state.film, mine = ++state.asked;
  if (!film) return;
  state.controller?.abort();
  state.controller = new AbortController();
  calm();
  busy(state.result ? "Looking again" : "Looking for lesions");
  try {
    const result = await post(`/api/films/${film.id}/segment`, order(), state.controller.signal);
    if (mine !== state.asked) return; // a stale answer
    const mask = await bitmap(`/api/results/${result.id}/mask.png`);
    if (mine !== state.asked) return;
    state.result = result;
    state.zones = { ...result.record.text.zones };
    state.mask = layers(mask);
    busy("");
    show();
    draw();
  } catch (error) {
    if (mine === state.asked) fail(error, segment);
  }
}

let timer = 0;
function typed() {
  clearTimeout(timer);
  state.edit = null;
  state.typed = null;
  byId("back").hidden = true;
  timer = setTimeout(segment, DELAY);
}

// A chip goes on to its next state, and the report is written anew from all chips.
function press(name) {
  clearTimeout(timer);
  const corrects = state.result?.record.text.mode === "generated" || state.edit;
  state.zones[name] = NEXT[state.zones[name] || "unmentioned"];
  const words = sentence();
  if (corrects && words) {
    state.edit = words;
  } else {
    state.edit = null;
    if (state.typed === null && byId("report").value.trim()) {
      state.typed = [byId("report").value, byId("laterality").value];
      byId("back").hidden = false;
    }
    byId("report").value = words;
    byId("laterality").value = chipSide();
  }
  chips();
  segment();
}

const chipSide = () => (state.film?.sides_from === "tag" ? "patient" : "viewer");
// The side of a zone in the words of `chipSide`.
const named = (side) => (chipSide() === "patient" && state.film.mirrored ? SIDES[1 - SIDES.indexOf(side)] : side);

// Messages name zones by the viewer's sides; beside chips of the patient's that would mislead.
const chipSides = (text) => (chipSide() !== "patient" ? text
  : text.replace(/\b(left|right) (upper|middle|lower) zone \(viewer's side; /g, (_, side, level) => `patient's ${named(side)} ${level} zone (`));

function sentence() {
  const places = (wanted) => SIDES.flatMap((side) => LEVELS.filter((level) => state.zones[`${side} ${level}`] === wanted)
    .map((level) => `the ${named(side)} ${level} zone`));
  const joined = (list) => list.join(" and ");
  const ill = places("present"), clear = places("absent");
  return [ill.length ? `Opacity in ${joined(ill)}.` : "", ...clear.map((place) => `No opacity in ${place}.`)].filter(Boolean).join(" ");
}

// What the record says

const percent = (share, digits = 0) => `${(share * 100).toFixed(digits)} %`;
// No network is certain.
const chance = (p) => (p > 0.999 ? "over 99.9 %" : p < 0.001 ? "below 0.1 %" : percent(p, 1));
const item = (tag, text, className) => Object.assign(document.createElement(tag), { textContent: text, className: className || "" });

function show() {
  const { record } = state.result, { lesion, text, finding, lungs } = record;
  const area = lesion.mm2 === null ? `${lesion.pixels.toLocaleString("en")} pixels` : `${(lesion.mm2 / 100).toFixed(1)} cm²`;
  byId("headline").textContent = lesion.pixels ? `${percent(lesion.share, 1)} of the picture is marked` : "Nothing is marked";
  const figures = [];
  if (finding) figures.push(["Probability of any lesion, without words", chance(finding.probability)]);
  if (lungs) {
    const order = chipSide() === "patient" && state.film.mirrored ? ["right", "left"] : SIDES;
    for (const side of order) {
      const image = chipSide() === "patient" && state.film.mirrored ? SIDES[1 - SIDES.indexOf(side)] : side;
      const whose = chipSide() === "patient" ? `Patient's ${side} lung, affected` : `Lung at the picture's ${side}, affected`;
      figures.push([whose, lungs[image].affected === null ? "not found" : percent(lungs[image].affected)]);
    }
  }
  figures.push(["Area of the mask", lesion.pixels ? area : "none"], ["Read with", MODES[text.mode]]);
  byId("figures").replaceChildren(...figures.flatMap(([name, value]) => [item("dt", name), item("dd", value)]));
  byId("warnings").replaceChildren(...record.warnings.map((warning) => item("li",
    [chipSides(warning.text), /--|^Nothing/.test(warning.remedy) ? "" : warning.remedy].join(" ").trim(),
    ["W_REPORT_CONFLICT", "W_CONTRADICTION"].includes(warning.code) ? "conflict" : "")));
  understood(text, record.own_report);
  table();
  chips();
  files();
  say(`${byId("headline").textContent}. ${record.warnings.length ? `Warnings: ${record.warnings.length}.` : ""}`);
  byId("canvas").setAttribute("aria-label", `Chest film. ${byId("headline").textContent}.`);
}

const MODES = { none: "the film alone", given: "your words", generated: "the network's own report", edited: "your correction of its report" };

function understood(text, own) {
  const parts = [], used = text.used && (text.used.patient || text.used.viewer);
  const whose = text.used && text.used.patient ? "patient's sides" : "sides of the picture";
  const quote = (before, words, after) => {
    const line = item("p", before);
    line.append(item("q", words), after);
    return line;
  };
  if (used) parts.push(quote("The network read: ", used, ` (${whose})`));
  else if (text.given) {
    parts.push(item("p", Object.values(text.zones).includes("absent")
      ? "The words only deny lesions, which these weights do not read; the film was read alone."
      : "The words name no zone; the film was read alone."));
  }
  else parts.push(item("p", "No words: the film was read alone. Type a report, or press a zone on the film."));
  if (text.unused_words.length) {
    const line = item("p", "Words that changed nothing: ");
    line.append(...text.unused_words.map((word) => item("span", word, "unused")));
    parts.push(line);
  }
  const written = own?.sentence && (own.sentence.patient || own.sentence.viewer);
  if (written && !own.used) parts.push(quote("From the film alone it would have written: ", written, ` (${own.sentence.patient ? "patient's sides" : "sides of the picture"})`));
  byId("understood").replaceChildren(...parts);
}

function table() {
  const { finding, lesion } = state.result.record;
  byId("network-column").hidden = !finding?.zones;
  byId("table").tBodies[0].replaceChildren(...SIDES.flatMap((side) => LEVELS.map((level) => {
    const name = `${side} ${level}`, row = document.createElement("tr");
    const head = item("th", `${named(side)} ${level}`);
    head.scope = "row";
    row.append(head, item("td", `${SIGN[state.zones[name]]} ${WORDS[state.zones[name]]}`));
    if (finding?.zones) row.append(item("td", percent(finding.zones[name])));
    row.append(item("td", percent(lesion.zones[name].share)));
    return row;
  })));
  byId("sides").textContent = {
    tag: "Left and right are the patient's, by the film's tag.",
    assumed: "The film does not say which side is the patient's: left and right are those of the picture.",
    undefined: "The film has no left and right of the patient: they are those of the picture.",
  }[state.film.sides_from];
}

const label = (side, level) => (chipSide() === "patient" ? `Patient's ${named(side)}, ${level}` : `Picture's ${side}, ${level}`);

function files() {
  const dicom = state.film.format === "dicom", empty = !state.result.record.lesion.pixels;
  for (const button of byId("files").querySelectorAll("button")) {
    const name = button.dataset.file;
    button.disabled = name.endsWith(".dcm") && (!dicom || (name === "seg.dcm" && empty));
  }
  byId("files-note").textContent = !dicom ? "DICOM objects need a DICOM film that belongs to a study."
    : empty ? "The mask is empty, so there is no SEG; the SR says that nothing was found." : "";
}

async function download(name) {
  const { id } = state.result;
  calm();
  try {
    const blob = await (await call(`/api/results/${id}/${name}`)).blob();
    const link = document.createElement("a");
    link.href = URL.createObjectURL(blob);
    link.download = `${state.name.replace(/\.[^.]*$/, "") || "film"}.${name}`;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 60000);
    say(`${name} is downloaded.`);
  } catch (error) { fail(error); }
}

// Phrases

async function ground() {
  const phrase = byId("phrase").value.trim(), film = state.film, mine = ++state.phrase;
  if (!phrase || !film) return;
  calm();
  busy("Looking for the phrase");
  try {
    const found = await post(`/api/films/${film.id}/ground`, { phrase, laterality: byId("laterality").value });
    const bytes = Uint8Array.from(atob(found.map_png), (letter) => letter.charCodeAt(0));
    const levels = await createImageBitmap(new Blob([bytes], { type: "image/png" }));
    if (mine !== state.phrase || film !== state.film) return;
    state.heat = heated(levels);
    state.peak = found.peak;
    byId("low").textContent = `cosine ${found.low.toFixed(3)}`;
    byId("high").textContent = found.high.toFixed(3);
    byId("map-text").textContent = [
      found.read_as === found.phrase ? "" : `Read as “${found.read_as}”, by the ${found.read_as_laterality === "patient" ? "patient's" : "picture's"} sides.`,
      "The cross is where the phrase fits best; the map does not say that the finding is there.",
      ...found.notices.map((notice) => notice.text)].filter(Boolean).join(" ");
    byId("map").hidden = false;
    busy("");
    say("The map of the phrase is shown.");
    draw();
  } catch (error) { if (mine === state.phrase) fail(error); }
}

function mapOff() {
  state.heat = state.peak = null;
  byId("map").hidden = true;
  draw();
}

// Drawing

function canvasOf(picture, longest) {
  const scale = Math.min(1, longest / Math.max(picture.width, picture.height));
  const canvas = document.createElement("canvas");
  canvas.width = Math.max(1, Math.round(picture.width * scale));
  canvas.height = Math.max(1, Math.round(picture.height * scale));
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.drawImage(picture, 0, 0, canvas.width, canvas.height);
  return [canvas, context, context.getImageData(0, 0, canvas.width, canvas.height)];
}

// The tint and the outline of a mask, as two layers.
function layers(picture) {
  const [tint, context, pixels] = canvasOf(picture, LONGEST);
  const { width, height, data } = pixels, inside = new Uint8Array(width * height);
  for (let i = 0; i < inside.length; i++) inside[i] = data[4 * i] > 127 ? 1 : 0;
  const edge = new ImageData(width, height), thick = Math.max(1, Math.round(Math.max(width, height) / 500));
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      const i = y * width + x;
      data[4 * i] = 0; data[4 * i + 1] = 200; data[4 * i + 2] = 255; data[4 * i + 3] = inside[i] * 255;
      if (!inside[i]) continue;
      const border = x < thick || y < thick || x >= width - thick || y >= height - thick
        || !inside[i - thick] || !inside[i + thick] || !inside[i - thick * width] || !inside[i + thick * width];
      if (border) edge.data.set([0, 200, 255, 255], 4 * i);
    }
  }
  context.putImageData(pixels, 0, 0);
  const outline = document.createElement("canvas");
  outline.width = width; outline.height = height;
  outline.getContext("2d").putImageData(edge, 0, 0);
  return { tint, outline };
}

function colour(level) {
  const above = RAMP.findIndex(([place]) => place >= level), high = RAMP[Math.max(1, above)], low = RAMP[Math.max(1, above) - 1];
  const share = (level - low[0]) / (high[0] - low[0]);
  return [1, 2, 3].map((i) => low[i] + (high[i] - low[i]) * share);
}

function heated(picture) {
  const [canvas, context, pixels] = canvasOf(picture, LONGEST), { data } = pixels;
  const colours = Array.from({ length: 256 }, (_, level) => colour(level / 255));
  for (let i = 0; i < data.length; i += 4) {
    const level = data[i];
    data.set(colours[level], i);
    data[i + 3] = 40 + level * 0.68;
  }
  context.putImageData(pixels, 0, 0);
  return canvas;
}

function drawScale() {
  const canvas = byId("scale"), context = canvas.getContext("2d");
  for (let x = 0; x < canvas.width; x++) {
    context.fillStyle = `rgb(${colour(x / (canvas.width - 1)).map(Math.round).join(" ")})`;
    context.fillRect(x, 0, 1, canvas.height);
  }
}

// Where the film lies in the view: left and top corner, width and height.
function frame() {
  const { width, height } = byId("view").getBoundingClientRect(), { film } = state;
  const fit = Math.min(width / film.width, height / film.height) * state.zoom;
  const w = film.width * fit, h = film.height * fit;
  const most = [Math.max(0, (w - width) / 2), Math.max(0, (h - height) / 2)];
  state.x = Math.min(most[0], Math.max(-most[0], state.x));
  state.y = Math.min(most[1], Math.max(-most[1], state.y));
  return { x: (width - w) / 2 + state.x, y: (height - h) / 2 + state.y, w, h };
}

function draw() {
  const canvas = byId("canvas"), context = canvas.getContext("2d"), box = byId("view").getBoundingClientRect();
  const ratio = window.devicePixelRatio || 1;
  canvas.width = Math.round(box.width * ratio);
  canvas.height = Math.round(box.height * ratio);
  if (!state.picture) return;
  context.scale(ratio, ratio);
  context.imageSmoothingQuality = "high";
  const at = frame(), { x, y, w, h } = at;
  context.drawImage(state.picture, x, y, w, h);
  if (!pressed("before")) {
    if (state.heat) {
      context.drawImage(state.heat, x, y, w, h);
      cross(context, x + (state.peak.column + 0.5) / state.film.width * w, y + (state.peak.row + 0.5) / state.film.height * h);
    }
    if (state.mask) {
      context.globalAlpha = state.heat ? 0 : byId("opacity").value / 100;
      context.drawImage(state.mask.tint, x, y, w, h);
      context.globalAlpha = pressed("outline") ? 1 : 0;
      context.drawImage(state.mask.outline, x, y, w, h);
      context.globalAlpha = 1;
    }
  }
  letters(context, at, box);
  byId("zoom").textContent = `${Math.round(state.zoom * 100)} %`;
  byId("view").classList.toggle("zoomed", state.zoom > 1);
  place(at);
}

function cross(context, x, y) {
  for (const [width, colour] of [[5, "#000"], [2.5, "#fff"]]) {
    context.lineWidth = width;
    context.strokeStyle = colour;
    context.beginPath();
    for (const [dx, dy] of [[1, 0], [-1, 0], [0, 1], [0, -1]]) {
      context.moveTo(x + dx * 6, y + dy * 6);
      context.lineTo(x + dx * 18, y + dy * 18);
    }
    context.stroke();
  }
}

// R and L of the patient, with a question mark where the film does not tell.
function letters(context, at, box) {
  if (state.film.sides_from === "undefined") return;
  const unsure = state.film.sides_from === "assumed" ? "?" : "", [left, right] = state.film.mirrored ? ["R", "L"] : ["L", "R"];
  context.font = "bold 18px system-ui, sans-serif";
  context.textBaseline = "top";
  for (const [text, x, align] of [[left, Math.max(0, at.x) + 10, "left"], [right, Math.min(box.width, at.x + at.w) - 10, "right"]]) {
    context.textAlign = align;
    context.lineWidth = 4;
    context.strokeStyle = "#000";
    context.strokeText(text + unsure, x, Math.max(0, at.y) + 10);
    context.fillStyle = "#fff";
    context.fillText(text + unsure, x, Math.max(0, at.y) + 10);
  }
}

const pressed = (id) => byId(id).getAttribute("aria-pressed") === "true";

// Zones over the film

function chips() {
  const holder = byId("chips"), conflicts = state.result?.record.finding?.conflicts || [];
  if (!holder.children.length) {
    for (const side of SIDES) for (const level of LEVELS) {
      const chip = Object.assign(document.createElement("button"), { type: "button", className: "chip" });
      chip.dataset.zone = `${side} ${level}`;
      chip.append(Object.assign(document.createElement("b"), { ariaHidden: "true" }), document.createElement("span"));
      chip.addEventListener("click", () => press(`${side} ${level}`));
      holder.append(chip);
    }
  }
  for (const chip of holder.children) {
    const name = chip.dataset.zone, [side, level] = name.split(" "), now = state.zones[name] || "unmentioned";
    const doubted = conflicts.some((words) => words.includes(`the ${name} zone`));
    chip.dataset.state = now;
    chip.classList.toggle("doubted", doubted);
    chip.children[0].textContent = SIGN[now];
    chip.children[1].textContent = chipSide() === "patient" ? `${named(side)[0].toUpperCase()} ${level}` : level;
    chip.setAttribute("aria-label", `${chip.children[1].textContent}: ${label(side, level)} zone: ${WORDS[now]}${doubted ? ", which the film contradicts" : ""}`);
    chip.title = `${label(side, level)} zone: ${WORDS[now]}. Press for ${WORDS[NEXT[now]]}.`;
  }
}

function place(at) {
  const lungs = state.result?.record.lungs;
  chips();
  const hides = !pressed("zones") || pressed("before");
  byId("chips").hidden = hides || !state.picture;
  for (const chip of byId("chips").children) {
    const [side, level] = chip.dataset.zone.split(" "), box = lungs?.[side]?.box || USUAL_BOX[side];
    chip.style.left = `${at.x + (box.left + box.right) / 2 * at.w}px`;
    chip.style.top = `${at.y + (box.top + (box.end - box.top) * (LEVELS.indexOf(level) + 0.5) / 3) * at.h}px`;
  }
}

// The view

function zoom(factor, px, py) {
  if (!state.picture) return;
  const box = byId("view").getBoundingClientRect(), next = Math.min(12, Math.max(1, state.zoom * factor));
  const dx = (px ?? box.width / 2) - box.width / 2 - state.x, dy = (py ?? box.height / 2) - box.height / 2 - state.y;
  state.x -= dx * (next / state.zoom - 1);
  state.y -= dy * (next / state.zoom - 1);
  state.zoom = next;
  draw();
}

function fit() {
  Object.assign(state, { zoom: 1, x: 0, y: 0 });
  draw();
}

function toggle(id) {
  byId(id).setAttribute("aria-pressed", String(!pressed(id)));
  draw();
}

const KEYS = {
  "+": () => zoom(1.25), "=": () => zoom(1.25), "-": () => zoom(0.8), "0": fit, b: () => toggle("before"), o: () => toggle("outline"),
  ArrowLeft: () => { state.x += 40; draw(); }, ArrowRight: () => { state.x -= 40; draw(); },
  ArrowUp: () => { state.y += 40; draw(); }, ArrowDown: () => { state.y -= 40; draw(); },
};

// Start

async function start() {
  byId("key-form").hidden = true;
  calm();
  try {
    const info = await (await call("/api/info")).json();
    state.info = info.weights;
    byId("weights").textContent = `${info.weights.name}, TextRay ${info.textray}`;
    byId("kept").textContent = `It forgets a film that nobody uses for ${Math.round(info.limits.keep_seconds / 60)} minutes.`;
    byId("free-row").hidden = !info.weights.writes_report;
    if (info.weights.writes_report) byId("free").value = info.weights.text_free;
  } catch (error) { fail(error, error.status === 401 ? null : start); }
}

function listen() {
  const view = byId("view");
  byId("key-form").addEventListener("submit", (event) => {
    event.preventDefault();
    state.key = byId("key").value.trim();
    byId("key").value = "";
    start();
  });
  byId("file").addEventListener("change", () => { if (byId("file").files.length) open(byId("file").files[0]); byId("file").value = ""; });
  for (const kind of ["dragenter", "dragover"]) document.addEventListener(kind, (event) => { event.preventDefault(); view.classList.add("over"); });
  for (const kind of ["dragleave", "drop"]) document.addEventListener(kind, (event) => { event.preventDefault(); view.classList.remove("over"); });
  document.addEventListener("drop", (event) => { if (event.dataTransfer.files.length) open(event.dataTransfer.files[0]); });
  byId("remove").addEventListener("click", async () => {
    const { film } = state;
    drop();
    try { if (film) await call(`/api/films/${film.id}`, { method: "DELETE" }); say("The film is removed from the server."); } catch (error) { fail(error); }
  });
  byId("report").addEventListener("input", typed);
  for (const id of ["laterality", "free"]) byId(id).addEventListener("change", () => { state.edit = null; segment(); });
  byId("clear").addEventListener("click", () => { byId("report").value = ""; typed(); byId("report").focus(); });
  byId("back").addEventListener("click", () => {
    [byId("report").value, byId("laterality").value] = state.typed;
    typed();
    segment();
  });
  byId("phrase-form").addEventListener("submit", (event) => { event.preventDefault(); ground(); });
  byId("map-off").addEventListener("click", mapOff);
  byId("opacity").addEventListener("input", draw);
  for (const id of ["before", "outline", "zones"]) byId(id).addEventListener("click", () => toggle(id));
  byId("in").addEventListener("click", () => zoom(1.25));
  byId("out").addEventListener("click", () => zoom(0.8));
  byId("fit").addEventListener("click", fit);
  byId("files").addEventListener("click", (event) => { if (event.target.dataset.file) download(event.target.dataset.file); });
  view.addEventListener("keydown", (event) => {
    const act = KEYS[event.key.length === 1 ? event.key.toLowerCase() : event.key];
    if (act && state.picture && !event.ctrlKey && !event.metaKey && !event.altKey) { event.preventDefault(); act(); }
  });
  view.addEventListener("wheel", (event) => {
    if (!state.picture) return;
    event.preventDefault();
    const box = view.getBoundingClientRect();
    zoom(event.deltaY < 0 ? 1.15 : 1 / 1.15, event.clientX - box.left, event.clientY - box.top);
  }, { passive: false });
  view.addEventListener("pointerdown", (event) => { if (state.zoom > 1 && event.target === byId("canvas")) { state.last = [event.clientX, event.clientY]; view.setPointerCapture(event.pointerId); } });
  view.addEventListener("pointermove", (event) => {
    if (!state.last) return;
    state.x += event.clientX - state.last[0];
    state.y += event.clientY - state.last[1];
    state.last = [event.clientX, event.clientY];
    draw();
  });
  for (const kind of ["pointerup", "pointercancel"]) view.addEventListener(kind, () => { state.last = null; });
  new ResizeObserver(draw).observe(view);
}

function main() {
  state.key = new URLSearchParams(location.hash.slice(1)).get("key") || "";
  if (location.hash) history.replaceState(null, "", location.pathname); // the key stays in memory only
  listen();
  drawScale();
  drop();
  if (state.key) start();
  else byId("key-form").hidden = false;
}

main();
