const WIDE = 720; // pixels: the width of a chart's own units, unless the screen is narrower
const HIGH = 250;
const EDGE = { left: 46, right: 12, top: 12, bottom: 30 };
const QUIET = 30; // minutes without news after which the page says that the training may have ended

const text = (x) => (Math.abs(x) >= 100 ? x.toFixed(0) : x.toFixed(Math.abs(x) >= 10 ? 1 : 3)).replace("-", "−");
const short = (x) => String(Number(x.toPrecision(3))).replace("-", "−");

/** Round values from 0 to `largest`, about `count` of them. */
function ticks(largest, count) {
  const rough = largest / count || 1;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].find((x) => x * power >= rough) * power;
  return Array.from({ length: Math.floor(largest / step + 1e-9) + 1 }, (_, k) => k * step);
}

const epochs = Math.max(...data.charts.flatMap((chart) => chart.lines.flatMap((line) => line.points.map(([x]) => x))), 0);

function chartOf(chart) {
  const legend = make("ul", { class: "legend" });
  const numbers = chart.lines.map((line, k) => {
    const number = make("span", { class: "number" });
    legend.append(make("li", {}, make("span", { class: `key k${k}`, "aria-hidden": "true" }), line.name, " ", number));
    return number;
  });
  const at = make("span", { class: "at" });
  const holder = make("div", { class: "plot", tabindex: 0, role: "slider", "aria-valuemin": 0 });
  const stops = [...new Set(chart.lines.flatMap((line) => line.points.map(([x]) => x)))].sort((a, b) => a - b);
  const marks = stops.filter((x) => chart.lines.some((line) => line.dots && line.points.some((point) => point[0] === x)));
  const largest = Math.max(...chart.lines.flatMap((line) => line.points.map(([, y]) => y)), 0) * 1.06 || 1;
  const nearest = (line, x) => line.points.reduce((a, b) => (Math.abs(b[0] - x) < Math.abs(a[0] - x) ? b : a));
  let width = WIDE;
  let pointer = null;
  const right = (x) => EDGE.left + ((width - EDGE.left - EDGE.right) * x) / (epochs || 1);
  const up = (y) => HIGH - EDGE.bottom - ((HIGH - EDGE.top - EDGE.bottom) * y) / largest;

  function values(x) {
    return chart.lines.map((line) => nearest(line, x)[1]);
  }
  function point(x) {
    const now = x === null ? stops[stops.length - 1] : x;
    values(now).forEach((value, k) => { numbers[k].textContent = text(value); });
    at.textContent = `epoch ${now.toFixed(2)}`;
    pointer.replaceChildren();
    if (x === null) return;
    pointer.append(make("svg:line", { class: "cross", x1: right(x), x2: right(x), y1: EDGE.top, y2: HIGH - EDGE.bottom }),
      ...chart.lines.map((line, k) => {
        const [at, y] = nearest(line, x);
        return make("svg:circle", { class: `spot k${k}`, cx: right(at), cy: up(y), r: 4.5 });
      }));
  }
  function draw() {
    width = Math.max(240, holder.clientWidth || WIDE);
    pointer = make("svg:g", {});
    const across = ticks(epochs, Math.max(2, Math.floor(width / 90)));
    const grid = ticks(largest, 5).map((y) => [
      make("svg:line", { class: "grid", x1: EDGE.left, x2: width - EDGE.right, y1: up(y), y2: up(y) }),
      make("svg:text", { x: EDGE.left - 8, y: up(y) + 4, "text-anchor": "end" }, short(y))]);
    const axis = across.map((x) =>
      make("svg:text", { x: right(x), y: HIGH - 10, "text-anchor": "middle" }, short(x)));
    const lines = chart.lines.map((line, k) => [
      make("svg:polyline", { class: `line k${k}`, points: line.points.map(([x, y]) => `${right(x)},${up(y)}`).join(" ") }),
      line.dots || line.points.length === 1 ?
        line.points.map(([x, y]) => make("svg:circle", { class: `dot k${k}`, cx: right(x), cy: up(y), r: 3 })) : []]);
    const size = { viewBox: `0 0 ${width} ${HIGH}`, width, height: HIGH, "aria-hidden": "true" };
    holder.replaceChildren(make("svg:svg", size, [...grid, axis, ...lines].flat(2), pointer));
    point(null);
  }
  const here = (event) => {
    const x = ((event.clientX - holder.getBoundingClientRect().left - EDGE.left) * epochs) / (width - EDGE.left - EDGE.right);
    return stops.reduce((a, b) => (Math.abs(b - x) < Math.abs(a - x) ? b : a));
  };
  holder.addEventListener("pointermove", (event) => point(here(event)));
  holder.addEventListener("pointerdown", (event) => point(here(event)));
  holder.addEventListener("pointerleave", () => point(null));
  holder.addEventListener("blur", () => point(null));
  const list = marks.length ? marks : stops; // where the arrow keys stop
  const last = list.length - 1;
  let stop = last;
  function go(to) {
    stop = Math.max(0, Math.min(last, to));
    const said = values(list[stop]).map((value, k) => `${chart.lines[k].name} ${text(value)}`);
    holder.setAttribute("aria-valuenow", stop);
    holder.setAttribute("aria-valuetext", `epoch ${list[stop].toFixed(2)}: ${said.join(", ")}`);
  }
  holder.addEventListener("keydown", (event) => {
    const [left, right] = [stop - 1, stop + 1];
    const to = { ArrowLeft: left, ArrowDown: left, ArrowRight: right, ArrowUp: right, Home: 0, End: last }[event.key];
    if (to === undefined || event.ctrlKey || event.altKey || event.metaKey) return;
    event.preventDefault();
    go(to);
    point(list[stop]);
  });
  holder.setAttribute("aria-label", `${chart.title}, ${chart.unit}, by epoch`);
  holder.setAttribute("aria-valuemax", last);
  go(last);
  new ResizeObserver(draw).observe(holder);
  return make("section", { class: "chart" },
    make("h2", {}, make("b", {}, chart.title), ` ${chart.unit}`),
    make("div", { class: "reading" }, legend, at), holder);
}

function tableOf() {
  const head = ["epoch", "step", ...data.columns].map((name) => make("th", { scope: "col" }, name));
  const rows = [...data.rows].reverse().map((row) => make("tr", { class: row.best ? "best" : null },
    make("td", {}, row.epoch.toFixed(2)), make("td", {}, String(row.step)),
    row.scores.map((score, k) => make("td", {}, score === null ? "–" : text(score),
      row.best && k === row.scores.length - 1 ? make("span", { class: "mark" }, "best") : null))));
  return make("section", { class: "table" }, make("h2", {}, make("b", {}, "Validations"), " newest first"),
    make("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "Validations" },
      make("table", {}, make("thead", {}, make("tr", {}, head)), make("tbody", {}, rows))));
}

/** Reload the page after some seconds, and later if somebody is reading values then. */
function reloadAfter(seconds) {
  setTimeout(() => {
    if (document.querySelector(":is(.plot, .scroll):is(:focus, :hover)")) reloadAfter(seconds);
    else location.reload();
  }, 1000 * seconds);
}

function build() {
  const done = data.steps ? data.step / data.steps : 1;
  const fill = make("span", { class: "fill" });
  fill.style.width = `${100 * done}%`;
  const minutes = (Date.now() / 1000 - data.written) / 60;
  const quiet = data.state === "running" && minutes > QUIET;
  const when = new Date(1000 * data.written).toLocaleString();
  const state = quiet ? `no news for ${Math.round(minutes)} minutes: it may have been stopped` : data.state;
  document.querySelector("main").append(
    make("header", {}, make("h1", {}, document.title),
      make("p", { class: "state" }, make("b", {}, state[0].toUpperCase() + state.slice(1)),
        `. Step ${data.step} of ${data.steps}, written ${when}.`,
        data.state === "running" ? " The page reloads itself while the training runs." : ""),
      make("span", { class: "track whole", "aria-hidden": "true" }, fill)),
    ...data.charts.map(chartOf),
    data.charts.length ? "" : make("p", { class: "note" }, "There are no numbers yet."),
    data.rows.length ? tableOf() : "");
  if (data.reload !== null) reloadAfter(data.reload);
}

build();
