// What the live page shows: two panes, one time, particles. Computing is cut into pieces of a few milliseconds between
// frames, so that the page stays smooth; what is known of a field at a time is kept.

const ARROWS = 20; // per axis, at the middles of cells
const SHRINKAGE = 8; // arrows are drawn at this part of their length, which is at most about 0.5
const GRIDS = [40, 80]; // per axis, for the colour of the error: at first, and with time to spare
const DENSITY = 160; // per axis
const ERRORS = [0.003, 0.3]; // ends of the colours, relative coordinates
const [STEP_MS, BUDGET_MS, IDLE_BUDGET_MS] = [80, 9, 24];
const [MARGIN, PADDING] = [26, 6]; // of a canvas, left and below, right and above, in pixels of the page
const [THROWN, DROPPED, DROP_RADIUS, MOST] = [1000, 25, 0.015, 4000];

const byId = (id) => document.getElementById(id);
const data = JSON.parse(byId("data").textContent);
const problems = data.problems.map((about) => (about.schedule.type in SCHEDULES ? makeProblem(about) : null));
const known = (entry) => problems[entry.problem] && (entry.score_network.type ?? "mlp") in NETWORKS;
const entries = data.entries.filter(known).map((entry) => {
  const problem = problems[entry.problem];
  return { ...entry, problem, field: makeNetwork(entry, problem), cache: new Map() };
});
const exacts = new Map(problems.filter(Boolean).map((problem) => {
  const { field, numbers } = problem;
  return [problem, { title: "exact score", problem, field, exact: true, numbers, cache: new Map() }];
}));

// k: the time is k / STEPS; phase: how far particles are on the way to the next k; start: the k from which they come,
// null without any; hurried: they go to the end without being shown.
const state = { problem: null, k: 0.8 * STEPS, phase: 0, way: "reverse", start: null, seed: 0, pointer: null };
Object.assign(state, { playing: false, hurried: false });
const panes = ["left", "right"].map((side) => {
  const select = byId(side);
  const [base, top] = select.parentElement.querySelectorAll("canvas");
  const legend = select.parentElement.querySelector(".legend");
  return { side, select, base, top, legend, entry: null, path: {}, drawn: "", size: 0 }; // path: k -> particles
});
const still = matchMedia("(prefers-reduced-motion: reduce)");
const dark = matchMedia("(prefers-color-scheme: dark)");

const direction = () => WAYS[state.way].direction;
const endOf = (way) => (WAYS[way].direction < 0 ? 0 : STEPS);
const hasParticles = () => state.start !== null;

// Fields --------------------------------------------------------------------------------------------------------------

function gridPoints(size) {
  const x = new Float64Array(2 * size * size);
  for (let i = 0; i < size * size; i++) {
    x[2 * i] = ((i % size) + 0.5) / size; // along a row of the picture
    x[2 * i + 1] = 1 - (Math.floor(i / size) + 0.5) / size; // from top to bottom
  }
  return x;
}
const points = Object.fromEntries([ARROWS, ...GRIDS].map((size) => [size, gridPoints(size)]));

// Write what a field is on a grid at time k into its cache; `wanted` says whether it still is.
function* fieldOn(entry, k, size, wanted) {
  const { problem, cache } = entry;
  const [x, t, n] = [points[size], k / STEPS, size * size];
  const value = new Float64Array(2 * n);
  for (let begin = 0; begin < n; begin += CHUNK) {
    entry.field(x, begin, Math.min(begin + CHUNK, n), t, value);
    yield;
    if (!wanted()) return;
  }
  const scale = problem.effective(t) / problem.sigma(t);
  const found = cache.get(k) ?? { size: 0 };
  if (size === ARROWS) found.arrows = value.map((v) => scale * v);
  if (!entry.exact && size > found.size) {
    const exact = new Float64Array(2 * n);
    problem.field(x, 0, n, t, exact);
    found.size = size;
    const error = (i) => Math.hypot(value[2 * i] - exact[2 * i], value[2 * i + 1] - exact[2 * i + 1]);
    found.error = Float32Array.from({ length: n }, (_, i) => scale * error(i));
  }
  cache.set(k, found);
}

// Return the exact log-density at time k on a grid, from 1 at its maximum to 0 at three widths of a mode. Every term of
// the density is a product over the components, so two lines make the plane.
function densityOn(problem, k) {
  const noise = problem.sigma(k / STEPS);
  const lines = problem.modes.map((mode) => [0, 1].map((component) => Float64Array.from({ length: DENSITY }, (_, i) => {
    const u = displacement((i + 0.5) / DENSITY, mode.position[component]);
    wrappedNormal(u, problem.widthOf(mode, noise));
    return wrapped.logDensity;
  })));
  const values = new Float32Array(DENSITY * DENSITY);
  let highest = -Infinity;
  for (let row = 0, at = 0; row < DENSITY; row++) {
    for (let column = 0; column < DENSITY; column++, at++) {
      let sum = 0;
      problem.modes.forEach(({ weight }, m) => {
        sum += weight * Math.exp(lines[m][0][column] + lines[m][1][DENSITY - 1 - row]);
      });
      values[at] = Math.log(sum);
      highest = Math.max(highest, values[at]);
    }
  }
  return values.map((value) => Math.max(0, 1 + (value - highest) / 4.5));
}

// Particles -----------------------------------------------------------------------------------------------------------

// The last index, from the start on, at which the particles of a pane are known.
function front(pane) {
  let k = state.start;
  while (k !== endOf(state.way) && pane.path[k + direction()]) k += direction();
  return k;
}

function* stepOf(pane, k) {
  const { path, entry } = pane;
  const result = yield* moved(state.way, entry.field, state.problem.sigma, path[k], k, state.seed);
  if (pane.path === path) path[k + direction()] = result;
}

function place(x, k) {
  state.start = k;
  state.phase = 0;
  for (const pane of panes) pane.path = { [k]: Float64Array.from(x) };
}

function clear() {
  state.start = null;
  for (const pane of panes) pane.path = {};
  stop();
}

function throwParticles() {
  state.seed += 1;
  const { start } = WAYS[state.way];
  state.k = STEPS - endOf(state.way);
  place(start(THROWN, seeded(state.seed), state.problem), state.k);
  play();
}

function drop(x, y) {
  const random = seeded(Math.floor(2 ** 32 * wrap(1e3 * x + 17 * y)));
  const added = [];
  for (let i = 0; i < DROPPED; i++) {
    const [z1, z2] = normalPair(random);
    added.push(wrap(x + (DROP_RADIUS / 2) * z1), wrap(y + (DROP_RADIUS / 2) * z2));
  }
  const here = panes.every((pane) => pane.path[state.k]);
  if (here && panes[0].path[state.k].length >= 2 * MOST) return;
  if (state.k === endOf(state.way)) state.k = STEPS - endOf(state.way);
  state.start = state.k;
  state.phase = 0;
  for (const pane of panes) {
    const before = here && pane.path[state.k] ? pane.path[state.k] : [];
    pane.path = { [state.k]: Float64Array.from([...before, ...added]) };
  }
  if (!state.seed) state.seed = 1;
  play();
}

// A change of the way, or of a pane's score: particles start again from where all panes know them.
function restart(keepPosition) {
  if (!hasParticles()) return;
  const k = keepPosition && panes.every((pane) => pane.path[state.k]) ? state.k : state.start;
  state.start = k;
  state.phase = 0;
  for (const pane of panes) pane.path = { [k]: pane.path[k] };
}

// Playing -------------------------------------------------------------------------------------------------------------

function play() {
  const end = endOf(state.way);
  if (state.k === end) {
    if (hasParticles() && state.start === end) return throwParticles();
    state.k = hasParticles() ? state.start : STEPS - end;
  } else if (hasParticles() && !panes[0].path[state.k]) state.k = state.start;
  state.playing = !still.matches || hasParticles();
  state.hurried = still.matches; // compute to the end, and show that alone
  if (still.matches && !hasParticles()) state.k = end;
  showTime();
  schedule();
}

function stop() {
  state.playing = state.hurried = false;
  state.phase = 0;
  showTime();
  schedule();
}

function move(elapsed) {
  const end = endOf(state.way);
  const ready = () => !hasParticles() || panes.every((pane) => pane.path[state.k + direction()]);
  if (state.hurried) {
    if (panes.every((pane) => front(pane) === end)) {
      state.k = end;
      arrive();
    }
    return;
  }
  if (!ready()) return;
  state.phase += elapsed / STEP_MS;
  while (state.phase >= 1 && state.k !== end && ready()) {
    state.k += direction();
    state.phase -= 1;
  }
  state.phase = state.k !== end && ready() ? Math.min(state.phase, 1) : 0;
  showTime();
  if (state.k === end) arrive();
}

function arrive() {
  stop();
  if (!hasParticles()) return;
  const counts = panes.map((pane) => `${pane.entry.title}: ${count(pane)} strays`);
  byId("status").textContent = `t = ${(state.k / STEPS).toFixed(2)}. ${counts.join("; ")}`;
}

// What is to be computed next, the most urgent first.
function nextJob() {
  const { k, playing, hurried } = state;
  if (hasParticles()) {
    const ahead = hurried ? STEPS : playing ? 2 : 0;
    const behind = panes.map((pane) => [pane, front(pane)]).sort((a, b) => direction() * (a[1] - b[1]));
    for (const [pane, known] of behind) {
      const missing = known !== endOf(state.way) && direction() * (k + direction() * ahead - known) > 0;
      if (missing) return stepOf(pane, known);
    }
  }
  if (hurried) return null;
  const wanted = () => state.k === k;
  for (const { entry } of panes) if (!entry.cache.get(k)?.arrows) return fieldOn(entry, k, ARROWS, () => true);
  const sizes = playing ? (hasParticles() ? [] : GRIDS.slice(0, 1)) : GRIDS;
  for (const size of sizes) {
    for (const { entry } of panes) {
      if (!entry.exact && entry.cache.get(k).size < size) return fieldOn(entry, k, size, wanted);
    }
  }
  return null;
}

let job = null;
function work(deadline) {
  do {
    job ??= nextJob();
    if (!job) return;
    if (job.next().done) job = null;
  } while (performance.now() < deadline);
}

let [waiting, before] = [false, 0];
function schedule() {
  if (waiting) return;
  waiting = true;
  requestAnimationFrame(frame);
}

function frame(now) {
  waiting = false;
  if (state.playing) move(Math.min(now - before, 100));
  before = now;
  work(performance.now() + (state.playing && !state.hurried ? BUDGET_MS : IDLE_BUDGET_MS));
  panes.forEach(draw);
  showNumbers();
  if (state.playing || job || (job = nextJob())) schedule();
}

// Drawing -------------------------------------------------------------------------------------------------------------

const RAMP = ["error-0", "error-1", "error-2", "error-3"]; // colours of the style sheet
let colours = {};
function readColours() {
  const style = getComputedStyle(document.documentElement);
  const names = ["text", "quiet", "line", "particle", "stray", "arrow", "accent", "density", ...RAMP];
  colours = Object.fromEntries(names.map((name) => [name, style.getPropertyValue(`--${name}`).trim()]));
  const channels = (name) => [1, 3, 5].map((i) => parseInt(colours[name].slice(i, i + 2), 16));
  colours.ramp = Array.from({ length: 256 }, (_, i) => {
    const [part, stop] = [(i / 255) * 3, Math.min(2, Math.floor((i / 255) * 3))];
    const [low, high] = [channels(RAMP[stop]), channels(RAMP[stop + 1])];
    return low.map((channel, c) => Math.round(channel + (part - stop) * (high[c] - channel)));
  });
  colours.densityChannels = channels("density");
  for (const pane of panes) pane.drawn = "";
  for (const { cache } of [...entries, ...exacts.values()]) cache.forEach((found) => (found.picture = null));
}

function pictureOf(size, pixel) {
  const canvas = document.createElement("canvas");
  canvas.width = canvas.height = size;
  const context = canvas.getContext("2d");
  const image = context.createImageData(size, size);
  for (let i = 0; i < size * size; i++) image.data.set(pixel(i), 4 * i);
  context.putImageData(image, 0, 0);
  return canvas;
}

function background(entry, k) {
  const found = entry.cache.get(k);
  if (!found) return null;
  if (found.picture && found.pictureSize === found.size) return found.picture;
  if (entry.exact) {
    const density = densityOn(entry.problem, k);
    found.picture = pictureOf(DENSITY, (i) => [...colours.densityChannels, 255 * 0.75 * density[i]]);
  } else {
    const [low, high] = ERRORS.map(Math.log);
    const part = (error) => Math.min(1, Math.max(0, (Math.log(error + 1e-12) - low) / (high - low)));
    found.picture = pictureOf(found.size, (i) => [...colours.ramp[Math.round(255 * part(found.error[i]))], 255]);
  }
  found.pictureSize = found.size;
  return found.picture;
}

// A canvas in device pixels, with room for the axes; the unit square is at x, y from `left`, `bottom` on, `side` wide.
function layout(pane) {
  const ratio = Math.min(devicePixelRatio || 1, 2);
  const size = Math.round(pane.top.clientWidth * ratio);
  if (size !== pane.size) {
    pane.size = size;
    for (const canvas of [pane.base, pane.top]) canvas.width = canvas.height = size;
    pane.drawn = "";
  }
  const margin = MARGIN * ratio;
  const side = size - margin - PADDING * ratio;
  const at = (x, y) => [margin + x * side, PADDING * ratio + (1 - y) * side];
  return { ratio, size, side, left: margin, top: PADDING * ratio, at };
}

function draw(pane) {
  const view = layout(pane);
  const found = pane.entry.cache.get(state.k);
  const key = found?.arrows ? `${pane.entry.title} ${state.k} ${found.size}` : pane.drawn;
  if (view.size && key && key !== pane.drawn) {
    drawField(pane, view, found);
    pane.drawn = key;
  }
  drawParticles(pane, view);
}

function drawField(pane, { ratio, size, side, left, top, at }, { arrows }) {
  const context = pane.base.getContext("2d");
  const { problem } = state;
  context.clearRect(0, 0, size, size);
  context.imageSmoothingEnabled = true;
  context.imageSmoothingQuality = "high";
  context.drawImage(background(pane.entry, state.k), left, top, side, side);
  context.save();
  context.beginPath();
  context.rect(left, top, side, side);
  context.clip();

  context.strokeStyle = colours.arrow;
  context.lineWidth = 1.1 * ratio;
  context.beginPath();
  for (let i = 0; i < ARROWS * ARROWS; i++) {
    const [x, y] = at(points[ARROWS][2 * i], points[ARROWS][2 * i + 1]);
    arrow(context, x, y, (arrows[2 * i] * side) / SHRINKAGE, (-arrows[2 * i + 1] * side) / SHRINKAGE);
  }
  context.stroke();

  context.strokeStyle = colours.text;
  context.lineWidth = ratio;
  context.setLineDash([2 * ratio, 3 * ratio]);
  for (const mode of problem.modes) {
    const radius = 3 * problem.widthOf(mode, problem.sigma(state.k / STEPS));
    const [x, y] = at(...mode.position);
    context.beginPath();
    context.moveTo(x - 4 * ratio, y);
    context.lineTo(x + 4 * ratio, y);
    context.moveTo(x, y - 4 * ratio);
    context.lineTo(x, y + 4 * ratio);
    if (!pane.entry.exact && radius < 0.35) {
      context.moveTo(x + radius * side, y);
      context.arc(x, y, radius * side, 0, 2 * Math.PI);
    }
    context.stroke();
  }
  context.restore();

  context.strokeStyle = colours.line;
  context.lineWidth = ratio;
  context.strokeRect(left, top, side, side);
  context.fillStyle = colours.quiet;
  context.font = `${11 * ratio}px system-ui, sans-serif`;
  for (const value of [0, 0.5, 1]) {
    context.textAlign = ["left", "center", "right"][2 * value];
    context.textBaseline = "top";
    context.fillText(value, left + value * side, top + side + 5 * ratio);
    context.textAlign = "right";
    context.textBaseline = ["bottom", "middle", "top"][2 * value];
    context.fillText(value, left - 5 * ratio, top + (1 - value) * side);
  }
  const [horizontal, vertical] = axes();
  context.textBaseline = "top";
  context.textAlign = "center";
  context.fillText(horizontal, left + 0.25 * side, top + side + 5 * ratio);
  context.save();
  context.translate(left - 18 * ratio, top + 0.75 * side);
  context.rotate(-Math.PI / 2);
  context.fillText(vertical, 0, 0);
  context.restore();
}

function axes() {
  return state.problem.shape[0] === 2 ? ["atom 1", "atom 2"] : ["first coordinate", "second coordinate"];
}

function arrow(context, x, y, dx, dy) {
  const length = Math.hypot(dx, dy);
  context.moveTo(x, y);
  context.lineTo(x + dx, y + dy);
  if (!(length > 1)) return;
  const head = Math.min(0.4, 5 / length + 0.05);
  for (const turn of [0.45, -0.45]) {
    context.moveTo(x + dx, y + dy);
    const [cos, sin] = [head * Math.cos(turn), head * Math.sin(turn)];
    context.lineTo(x + dx - cos * dx + sin * dy, y + dy - sin * dx - cos * dy);
  }
}

function drawParticles(pane, { ratio, size, side, left, top, at }) {
  const context = pane.top.getContext("2d");
  context.clearRect(0, 0, size, size);
  const [now, later] = [pane.path[state.k], pane.path[state.k + direction()]];
  context.save();
  context.beginPath();
  context.rect(left, top, side, side);
  context.clip();
  if (now) {
    const marked = straysOf(pane);
    const [dot, cross] = [(now.length > 200 ? 1.3 : 2) * ratio, 4.5 * ratio];
    const crosses = [];
    context.fillStyle = colours.particle;
    context.beginPath();
    for (let i = 0; i < now.length; i += 2) {
      let [x, y] = [now[i], now[i + 1]];
      if (state.phase && later) {
        x = wrap(x + state.phase * displacement(later[i], x));
        y = wrap(y + state.phase * displacement(later[i + 1], y));
      }
      [x, y] = at(x, y);
      if (marked[i / 2]) crosses.push(x, y);
      else context.rect(x - dot, y - dot, 2 * dot, 2 * dot);
    }
    context.fill();
    context.strokeStyle = colours.stray;
    context.lineWidth = 2 * ratio;
    context.beginPath();
    for (let i = 0; i < crosses.length; i += 2) {
      const [x, y] = [crosses[i], crosses[i + 1]];
      context.moveTo(x - cross, y - cross);
      context.lineTo(x + cross, y + cross);
      context.moveTo(x - cross, y + cross);
      context.lineTo(x + cross, y - cross);
    }
    context.stroke();
  }
  if (state.pointer) {
    const [x, y] = at(...state.pointer);
    const [n1, n2] = valueAt(pane.entry.field, state.pointer);
    const t = state.k / STEPS;
    const scale = state.problem.effective(t) / state.problem.sigma(t);
    context.strokeStyle = colours.accent;
    context.lineWidth = 2 * ratio;
    context.beginPath();
    context.arc(x, y, 2.5 * ratio, 0, 2 * Math.PI);
    arrow(context, x, y, scale * n1 * side, -scale * n2 * side);
    context.stroke();
  }
  context.restore();
}

// Numbers -------------------------------------------------------------------------------------------------------------

function valueAt(field, point) {
  const out = new Float64Array(2);
  field(Float64Array.from(point), 0, 1, state.k / STEPS, out);
  return out;
}

function straysOf(pane) {
  const x = pane.path[state.k];
  if (pane.counted !== x) Object.assign(pane, { counted: x, marked: strays(state.problem, x, state.k / STEPS) });
  return pane.marked;
}

function count(pane) {
  return pane.path[state.k] ? straysOf(pane).filter(Boolean).length : 0;
}

const signed = (value) => (value < 0 ? "−" : "+") + Math.abs(value).toFixed(3);
const vector = ([a, b]) => `${signed(a)}, ${signed(b)}`;

function cell(row, label, texts, className = "") {
  const table = byId("live");
  const tr = table.rows[row] ?? table.insertRow();
  if (!tr.cells.length) {
    const th = document.createElement("th");
    th.scope = "row";
    tr.append(th);
    panes.forEach(() => tr.insertCell());
  }
  [label, ...texts].forEach((text, i) => {
    if (tr.cells[i].textContent !== text) tr.cells[i].textContent = text;
    tr.cells[i].className = i && className && !text.startsWith("0 ") && text !== "–" ? className : "";
  });
}

function showNumbers() {
  const { pointer, problem, k } = state;
  const t = k / STEPS;
  cell(0, "strays among the particles", panes.map((pane) => {
    const n = pane.path[k]?.length / 2;
    const percent = (((100 * count(pane)) / n) || 0).toFixed(n < 1000 ? 0 : 1);
    const text = n ? `${count(pane)} of ${n.toLocaleString("en")} (${percent} %)` : "–";
    const label = pane.legend.lastElementChild;
    label.textContent = n ? `strays: ${text}` : "";
    label.className = n && count(pane) ? "stray" : "";
    return text;
  }), "stray");
  const where = pointer ? ` at (${pointer.map((x) => x.toFixed(2)).join(", ")})` : "";
  const exact = pointer && valueAt(problem.field, pointer);
  const values = panes.map(({ entry }) => pointer && valueAt(entry.field, pointer));
  cell(1, `N${where || " at the pointer"}`, values.map((value) => (value ? vector(value) : "–")));
  const error = (value) => vector([value[0] - exact[0], value[1] - exact[1]]);
  cell(2, "N minus the exact N", values.map((value, i) => (value && !panes[i].entry.exact ? error(value) : "–")));
  const log = pointer ? problem.logDensity(...pointer, t).toFixed(2).replace("-", "−") : "–";
  cell(3, "log p, exact, nats", [log, log]);
}

function showRecorded() {
  const names = [...new Set(panes.flatMap(({ entry }) => Object.keys(entry.numbers ?? {})))];
  byId("recorded").replaceChildren(...names.map((name) => {
    const tr = document.createElement("tr");
    const th = document.createElement("th");
    th.scope = "row";
    th.textContent = name;
    tr.append(th);
    for (const { entry } of panes) tr.insertCell().textContent = entry.numbers?.[name] ?? "–";
    return tr;
  }));
  panes.forEach(({ side, entry, legend }) => {
    byId(`${side}-name`).textContent = entry.title;
    const ramp = RAMP.map((name) => `var(--${name})`).join(", ");
    const [low, bar, high] = legend.children;
    bar.style.background = `linear-gradient(to right, ${entry.exact ? "transparent, var(--density)" : ramp})`;
    const ends = entry.exact ? ["density: none", "most"] : [`error of an arrow: ${ERRORS[0]}`, ERRORS[1]];
    [low.textContent, high.textContent] = ends;
  });
  const origins = panes.filter(({ entry }) => entry.origin).map(({ entry }) => `${entry.title}: ${entry.origin}`);
  byId("origin").textContent = [...new Set(origins)].join(" ");
}

function showTime() {
  const t = state.k / STEPS;
  const slider = byId("time");
  slider.value = t;
  const width = `noise ${state.problem.sigma(t).toPrecision(2)}`;
  byId("now").textContent = t.toFixed(2);
  byId("noise").textContent = `, ${width}`;
  slider.setAttribute("aria-valuetext", `t = ${t.toFixed(2)}, ${width}`);
  byId("play").textContent = state.playing ? (state.hurried ? "Wait" : "Pause") : still.matches ? "To the end" : "Play";
}

// What the user does --------------------------------------------------------------------------------------------------

function choose(pane, entry) {
  pane.entry = entry;
  pane.drawn = "";
  if (hasParticles()) pane.path = { [state.start]: pane.path[state.start] };
  state.phase = 0;
  showRecorded();
  schedule();
}

function chooseProblem(problem) {
  state.problem = problem;
  const choices = [exacts.get(problem), ...entries.filter((entry) => entry.problem === problem)];
  for (const pane of panes) {
    pane.choices = choices;
    const options = choices.map(({ title, mark }, i) => new Option(mark ? `${title} (${mark})` : title, i));
    pane.select.replaceChildren(...options);
    pane.entry = choices[pane.side === "left" ? 1 : 0] ?? choices[0];
    pane.select.value = choices.indexOf(pane.entry);
    pane.drawn = "";
  }
  const atoms = "the positions of two atoms on a line whose ends are joined";
  const what = problem.shape[0] === 2 ? atoms : "the position of one atom in two dimensions";
  byId("configuration").textContent = `A point of the square is a configuration of the data: ${what}.`;
  clear();
  showRecorded();
}

function pointAt(event, canvas) {
  const box = canvas.getBoundingClientRect();
  const side = box.width - MARGIN - PADDING;
  return [(event.clientX - box.left - MARGIN) / side, 1 - (event.clientY - box.top - PADDING) / side];
}
const inside = (point) => point.every((x) => x >= 0 && x < 1);

function pointTo(point) {
  state.pointer = point && inside(point) ? point : null;
  schedule();
}

for (const pane of panes) {
  const { top, select } = pane;
  select.addEventListener("change", () => choose(pane, pane.choices[select.value]));
  top.addEventListener("pointermove", (event) => pointTo(pointAt(event, top)));
  top.addEventListener("pointerdown", (event) => pointTo(pointAt(event, top)));
  top.addEventListener("pointerleave", (event) => event.pointerType === "mouse" && pointTo(null));
  top.addEventListener("click", (event) => {
    const point = pointAt(event, top);
    if (inside(point)) drop(...point);
  });
  top.addEventListener("keydown", (event) => {
    const arrows = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] }[event.key];
    const point = state.pointer ?? [0.5, 0.5];
    if (arrows) pointTo(point.map((x, i) => wrap(x + (event.shiftKey ? 0.05 : 0.01) * arrows[i])));
    else if (event.key === "Enter" || event.key === " ") drop(...point);
    else if (event.key === "Escape") pointTo(null);
    else return;
    event.preventDefault();
  });
  top.addEventListener("focus", () => top.matches(":focus-visible") && pointTo(state.pointer ?? [0.5, 0.5]));
  new ResizeObserver(schedule).observe(top);
}
byId("play").addEventListener("click", () => (state.playing ? stop() : play()));
byId("throw").addEventListener("click", throwParticles);
byId("clear").addEventListener("click", clear);
byId("time").addEventListener("input", (event) => {
  state.playing = state.hurried = false;
  state.phase = 0;
  state.k = Math.round(STEPS * Number(event.target.value));
  showTime();
  schedule();
});
for (const radio of document.querySelectorAll("[name=way]")) {
  radio.addEventListener("change", () => {
    stop();
    restart(true);
    state.way = radio.value;
    schedule();
  });
}
dark.addEventListener("change", () => {
  readColours();
  schedule();
});
still.addEventListener("change", stop);

byId("problem").append(...problems.flatMap((problem, i) => (problem ? [new Option(problem.name, i)] : [])));
byId("problems").hidden = exacts.size < 2;
byId("problem").addEventListener("change", (event) => chooseProblem(problems[event.target.value]));
const leftOut = [...data.left_out, ...data.entries.filter((entry) => !known(entry)).map(({ title }) => title)];
byId("left-out").hidden = !leftOut.length;
const why = "Left out, since this page shows two components, and the networks and noise schedules that it knows";
byId("left-out").textContent = `${why}: ${leftOut.join("; ")}.`;
readColours();
chooseProblem(problems.find(Boolean));
