// All text of a database reaches the page as text nodes, never as markup.

const $ = (id) => document.getElementById(id);
const whole = new Intl.NumberFormat("en");
const COLOURS = 8;
const SHADES = 5;
const SHORT_TEXT = 160;
let collections = [];
let current = null;
let hits = [];
let times = [];

function element(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

async function ask(path, question) {
  const options = question === undefined ? {} : {
    method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(question),
  };
  let response;
  try {
    response = await fetch(path, options);
  } catch {
    throw new Error("The console does not answer; is gingham console still running?");
  }
  const answer = await response.json().catch(() => ({ error: `The console answered with status ${response.status}.` }));
  if (!response.ok) throw new Error(answer.error);
  return answer;
}

function say(id, text, bad = false) {
  $(id).textContent = text;
  $(id).classList.toggle("bad", bad);
}

// Runs what a form asks for, unless the reader has gone to another collection meanwhile.
function onSubmit(form, run) {
  const status = `${form}-status`;
  $(form).addEventListener("submit", async (event) => {
    event.preventDefault();
    const button = $(form).querySelector("button[type=submit]");
    const asked = current;
    button.disabled = true;
    say(status, "Working …");
    try {
      const show = await run(asked);
      if (asked === current) show();
    } catch (error) {
      if (asked === current) say(status, error.message, true);
    } finally {
      button.disabled = false;
      if (asked !== current) say(status, "");
    }
  });
}

function showFigures(id, figures) {
  $(id).replaceChildren(...Object.entries(figures).map(([name, value]) =>
    element("div", {}, element("dt", {}, name), element("dd", {}, value))));
}

function options(select, entries) {
  select.replaceChildren(...entries.map(([value, label]) => element("option", { value }, label)));
}

const size = (bytes) => {
  const units = ["bytes", "KiB", "MiB", "GiB", "TiB"];
  let at = 0;
  for (; bytes >= 1024 && at < units.length - 1; at += 1) bytes /= 1024;
  return `${at ? bytes.toFixed(1) : bytes} ${units[at]}`;
};
const milliseconds = (value) => `${value < 10 ? value.toFixed(2) : value.toFixed(1)} ms`;
const percent = (share) => `${(100 * share).toFixed(1)} %`;
const counted = (n, what) => `${whole.format(n)} ${what}${n === 1 ? "" : "s"}`;

// --- collections -----------------------------------------------------------------------------------------------

async function load() {
  try {
    const overview = await ask("/api/collections");
    $("failure").hidden = true;
    $("source").textContent = overview.name;
    $("version").textContent = `version ${overview.version}, reading only`;
    collections = overview.collections;
  } catch (error) {
    $("failure").textContent = error.message;
    $("failure").hidden = false;
    return;
  }
  $("collections").replaceChildren(...collections.map((one) => {
    const button = element("button", { type: "button" }, one.name,
      element("span", { className: "quiet" }, whole.format(one.rows)));
    button.addEventListener("click", () => choose(one));
    return element("li", {}, button);
  }));
  if (!collections.length) $("collections").append(element("li", { className: "quiet" }, "There are none yet."));
  const wanted = decodeURIComponent(location.hash.slice(1));
  choose(collections.find((one) => one.name === wanted) ?? collections[0] ?? null);
}

const WAYS = {
  words: (using) => `words in ${using}`,
  meaning: (using) => `meaning, by ${using}`,
  like: (using) => `likeness to a row, by ${using}`,
};

function choose(one) {
  current = one;
  hits = [];
  times = [];
  $("main").hidden = one === null;
  if (one === null) return;
  history.replaceState(null, "", `#${encodeURIComponent(one.name)}`);
  [...$("collections").querySelectorAll("button")].forEach((button, at) => {
    if (collections[at] === one) button.setAttribute("aria-current", "true");
    else button.removeAttribute("aria-current");
  });
  $("name").textContent = one.name;
  showCollection(one);
  options($("way"), one.ways.map((way, at) => [at, WAYS[way.by](way.using)]));
  chooseWay();
  const dense = one.ways.filter((way) => way.by === "like").map((way) => [way.using, way.using]);
  document.querySelectorAll("select.using").forEach((select) => options(select, dense));
  options($("colour"), [["", "nothing"], ...one.colours.map((name) => [name, name])]);
  $("vectors").hidden = !dense.length;
  $("search").hidden = !one.ways.length;
  for (const id of ["query", "where"]) $(id).value = "";
  for (const id of ["hits-frame", "steps-frame", "plot"]) $(id).hidden = true;
  for (const id of ["map-status", "recall-status", "latency-status"]) say(id, "");
  for (const id of ["recall-figures", "latency-figures"]) showFigures(id, {});
  say("search-status", one.ways.length ? "" :
    "There is nothing to search by here: no dense vectors, and no text field with bm25=True.");
  showOwnTimes();
}

function showCollection(one) {
  const shown = { rows: whole.format(one.rows) };
  const figures = one.figures;
  if (figures) {
    shown.segments = whole.format(figures.segments);
    shown["recent rows, not yet in a segment"] = whole.format(figures.tail_rows);
    shown["dead rows"] = whole.format(figures.dead_rows);
    shown.size = size(figures.nbytes);
    for (const [name, vector] of Object.entries(figures.vectors)) {
      const parts = [vector.indexed_rows ? `index on ${whole.format(vector.indexed_rows)} rows` : "no index, all are compared"];
      if (vector.coded_rows) parts.push(`codes of ${Math.round(vector.code_bytes)} bytes a row`);
      shown[`vectors ${name}`] = parts.join(", ");
    }
  }
  showFigures("figures", shown);
  $("columns").tBodies[0].replaceChildren(...one.columns.map((column) =>
    element("tr", {}, element("th", { scope: "row" }, column.name), element("td", {}, column.kind))));
}

// --- search ----------------------------------------------------------------------------------------------------

function chooseWay() {
  const way = current.ways[$("way").value];
  $("query-label").textContent = { words: "Words", meaning: "Text", like: "Id of a row" }[way?.by] ?? "Words";
  $("query").removeAttribute("data-kind");
}

function findLike(id, using) {
  const at = current.ways.findIndex((way) => way.by === "like" && (!using || way.using === using));
  $("way").value = at;
  chooseWay();
  $("query").value = id.text;
  $("query").dataset.kind = id.kind;
  $("search").requestSubmit();
}

async function search(asked) {
  const way = asked.ways[$("way").value];
  const query = $("query");
  const asks = way.by === "like" ? { like: { text: query.value, kind: query.dataset.kind ?? null } } : { text: query.value };
  $("hits-frame").hidden = true;
  $("steps-frame").hidden = true;
  const answer = await ask("/api/search", {
    collection: asked.name, using: way.using, where: $("where").value, k: Number($("k").value), ...asks,
  });
  return () => {
    const took = `${counted(answer.hits.length, "hit")} in ${milliseconds(answer.milliseconds)}`;
    say("search-status", answer.why ? `${took}: ${answer.why}` : took);
    showHits(answer.hits);
    showSteps(answer.steps);
    hits = answer.hits.map((hit) => key(hit.id));
    ringHits();
    times.push(answer.milliseconds);
    showOwnTimes();
  };
}

const key = (id) => `${id.kind} ${id.text}`;

function showHits(found) {
  const likeable = current.ways.some((way) => way.by === "like");
  const names = found.length ? Object.keys(found[0].fields) : [];
  const heads = [["score", "number"], ["id", ""], ...names.map((name) => [name, ""])];
  $("hits").tHead.replaceChildren(element("tr", {},
    ...heads.map(([name, className]) => element("th", { scope: "col", className }, name))));
  $("hits").tBodies[0].replaceChildren(...found.map((hit) => {
    const id = element("td", { className: hit.id.text.length > 24 ? "" : "number id" });
    if (likeable) {
      const button = element("button", { type: "button", title: "Find rows like this one" }, hit.id.text);
      button.addEventListener("click", () => findLike(hit.id));
      id.append(button);
    } else id.append(hit.id.text);
    return element("tr", {}, element("td", { className: "number" }, hit.score.toFixed(4)), id,
      ...names.map((name) => valueCell(hit.fields[name])));
  }));
  $("hits-frame").hidden = !found.length;
}

function valueCell(value) {
  if (value === null) return element("td", { className: "quiet" }, "null");
  if (typeof value === "number") return element("td", { className: "number" }, String(value));
  const text = String(value);
  if (text.length <= SHORT_TEXT) return element("td", { className: text.length > 20 ? "title" : "" }, text);
  const short = `${text.slice(0, SHORT_TEXT)}…`;
  const summary = element("summary", {}, short);
  const more = element("details", {}, summary, text);
  more.addEventListener("toggle", () => { summary.textContent = more.open ? "less" : short; });
  return element("td", { className: "text" }, more);
}

function showSteps(steps) {
  $("steps").tBodies[0].replaceChildren(...steps.map((step) => element("tr", {},
    element("td", { className: "step" }, step.label),
    element("td", { className: "number" }, step.milliseconds.toFixed(3)),
    element("td", { className: "number" }, whole.format(step.rows)),
    element("td", {}, step.detail))));
  $("steps-frame").hidden = !$("explain").checked;
}

// --- map -------------------------------------------------------------------------------------------------------

async function map(asked) {
  const using = $("map-using").value;
  const colour = $("colour").value;
  const answer = await ask("/api/map", {
    collection: asked.name, using, colour: colour || null, where: $("where").value, n: Number($("points").value),
  });
  return () => {
    const of = $("where").value ? `${counted(answer.rows, "row")} of the filter` : counted(answer.rows, "row");
    const first = answer.first < answer.rows ? `, drawn from the first ${whole.format(answer.first)}` : "";
    say("map-status", `${whole.format(answer.ids.length)} of ${of}${first}. The two axes show ` +
      `${percent(answer.shares[0] + answer.shares[1])} of how the vectors differ.`);
    draw(answer, using, answer.values ? classes(answer.values) : null);
    ringHits();
  };
}

// A class of the style sheet for each value, and a legend: shades for numbers, colours for the most frequent others.
function classes(values) {
  const present = values.filter((value) => value !== null);
  const numbers = present.length > 0 && present.every((value) => typeof value === "number");
  const distinct = new Map();
  for (const value of present) distinct.set(value, (distinct.get(value) ?? 0) + 1);
  const legend = [];
  let classOf;
  if (numbers && distinct.size > COLOURS) {
    const sorted = Float64Array.from(present).sort();
    const ends = Array.from({ length: SHADES }, (_, at) => sorted[Math.ceil((sorted.length * (at + 1)) / SHADES) - 1]);
    classOf = (value) => ends.findIndex((end) => value <= end);
    ends.forEach((end, at) => {
      if (classOf(end) === at) legend.push([`s${at}`, at === 0 ? `up to ${end}` : `above ${ends[at - 1]}, up to ${end}`]);
    });
    return { of: (value) => (value === null ? "none" : `s${classOf(value)}`), legend: withNull(legend, values) };
  }
  const ranked = [...distinct.keys()].sort((a, b) => distinct.get(b) - distinct.get(a) || (String(a) < String(b) ? -1 : 1));
  const named = ranked.length > COLOURS ? ranked.slice(0, COLOURS) : ranked;
  named.forEach((value, at) => legend.push([`c${at}`, String(value)]));
  if (ranked.length > COLOURS) legend.push(["none", `others (${whole.format(ranked.length - COLOURS)}) and null`]);
  const at = new Map(named.map((value, number) => [value, `c${number}`]));
  return { of: (value) => at.get(value) ?? "none", legend: ranked.length > COLOURS ? legend : withNull(legend, values) };
}

const withNull = (legend, values) => (values.includes(null) ? [...legend, ["none", "null"]] : legend);

function draw(answer, using, colours) {
  const [width, height, edge] = [640, 440, 14];
  const low = [Math.min(...answer.x), Math.min(...answer.y)];
  const high = [Math.max(...answer.x), Math.max(...answer.y)];
  const scale = Math.min((width - 2 * edge) / (high[0] - low[0] || 1), (height - 2 * edge) / (high[1] - low[1] || 1));
  const middle = [(low[0] + high[0]) / 2, (low[1] + high[1]) / 2];
  const circles = answer.ids.map((id, at) => {
    const circle = document.createElementNS("http://www.w3.org/2000/svg", "circle");
    circle.setAttribute("cx", width / 2 + (answer.x[at] - middle[0]) * scale);
    circle.setAttribute("cy", height / 2 - (answer.y[at] - middle[1]) * scale);
    circle.setAttribute("r", answer.ids.length > 500 ? 3 : 4.5);
    circle.dataset.at = at;
    circle.dataset.key = key(id);
    if (colours) circle.classList.add(colours.of(answer.values[at]));
    return circle;
  });
  const svg = $("points-of-map");
  svg.replaceChildren(...circles);
  svg.onpointerover = (event) => hover(event, answer);
  svg.onpointerleave = () => { $("hovered").textContent = ""; };
  svg.onclick = (event) => {
    const at = event.target.dataset.at;
    if (at !== undefined) findLike(answer.ids[at], using);
  };
  $("legend").replaceChildren(...(colours?.legend ?? []).map(([className, label]) => element("li", { className }, label)));
  $("hovered").textContent = "";
  $("plot").hidden = false;
}

function hover(event, answer) {
  const at = event.target.dataset.at;
  const shown = $("hovered");
  if (at === undefined) {
    shown.textContent = "";
    return;
  }
  const value = answer.values ? `: ${answer.values[at]}` : "";
  shown.textContent = `${answer.ids[at].text}${value}`;
  const frame = $("plot").getBoundingClientRect();
  const left = event.clientX - frame.left + 12;
  shown.style.left = `${Math.min(left, frame.width - shown.offsetWidth)}px`;
  shown.style.top = `${event.clientY - frame.top + 14}px`;
}

function ringHits() {
  const found = new Set(hits);
  for (const circle of [...$("points-of-map").children]) {
    if (circle.classList.toggle("hit", found.has(circle.dataset.key))) circle.parentNode.append(circle);
  }
}

// --- recall and latency ----------------------------------------------------------------------------------------

const filtered = (where) => (where ? `under the filter ${where}` : "");

const measurement = (asked, form) => ({
  collection: asked.name, using: $(`${form}-using`).value, where: $("where").value,
  k: Number($(`${form}-k`).value), n: Number($(`${form}-n`).value),
});

async function recall(asked) {
  const asks = measurement(asked, "recall");
  const found = await ask("/api/recall", asks);
  return () => {
    say("recall-status", filtered(asks.where));
    showFigures("recall-figures", {
      [`recall@${found.k}`]: percent(found.recall),
      "95 % sure": `${percent(found.low)} to ${percent(found.high)}`,
      queries: whole.format(found.queries),
      "all searches": milliseconds(1e3 * found.seconds),
      "all exact ones": milliseconds(1e3 * found.exact_seconds),
    });
  };
}

async function latency(asked) {
  const asks = measurement(asked, "latency");
  const found = await ask("/api/latency", asks);
  return () => {
    say("latency-status", filtered(asks.where));
    showFigures("latency-figures", {
      median: milliseconds(found.median),
      "99th percentile": milliseconds(found.p99),
      slowest: milliseconds(found.slowest),
      queries: whole.format(found.queries),
    });
  };
}

function showOwnTimes() {
  if (!times.length) {
    showFigures("own-figures", { searches: "none yet" });
    return;
  }
  const sorted = [...times].sort((a, b) => a - b);
  const quantile = (share) => {
    const at = share * (sorted.length - 1);
    const below = Math.floor(at);
    return sorted[below] + (at - below) * ((sorted[below + 1] ?? sorted[below]) - sorted[below]);
  };
  showFigures("own-figures", {
    median: milliseconds(quantile(0.5)), "99th percentile": milliseconds(quantile(0.99)), searches: whole.format(times.length),
  });
}

$("refresh").addEventListener("click", load);
$("way").addEventListener("change", chooseWay);
$("query").addEventListener("input", () => $("query").removeAttribute("data-kind"));
$("explain").addEventListener("change", () => { $("steps-frame").hidden = !$("explain").checked || $("hits-frame").hidden; });
onSubmit("search", search);
onSubmit("map", map);
onSubmit("recall", recall);
onSubmit("latency", latency);
load();
