const CELL = 0.6; // standard deviation of the spot of one cell, in cells, as in satnp.figures.upsample
const MAP = 112; // pixels of the longer side of a map; the browser enlarges it smoothly
const PANEL = 320; // pixels of the longer side of a panel
const VEIL = [10, 12, 20, 0.73]; // colour and opacity where the network did not look
const GLOW = [255, 176, 46, 0.26]; // and where it looked most

const COLOURS = Array.from({ length: 256 }, (_, k) => {
  const light = k / 255;
  const veil = VEIL[3] * (1 - light) ** 1.3;
  const glow = GLOW[3] * light ** 2;
  const opacity = glow + veil * (1 - glow);
  const mixed = [0, 1, 2].map((c) => (GLOW[c] * glow + VEIL[c] * veil * (1 - glow)) / (opacity || 1));
  return [...mixed, 255 * opacity];
});

const share = (x) => `${Math.round(100 * x)} %`;
const nats = (x) => (x === null ? "" : `log p ${x.toFixed(2).replace("-", "−")}`);

/** The bytes of a caption's maps -> one Uint8Array for each word. */
function mapsOf(caption) {
  const bytes = Uint8Array.from(atob(caption.maps), (letter) => letter.charCodeAt(0));
  const size = bytes.length / caption.words.length;
  return caption.words.map((_, t) => bytes.subarray(t * size, (t + 1) * size));
}

/** The weights of the cells for each pixel along one side. */
function weights(cells, pixels) {
  return Array.from({ length: pixels }, (_, k) => {
    const at = ((k + 0.5) * cells) / pixels - 0.5;
    const row = Array.from({ length: cells }, (_, cell) => Math.exp(-0.5 * ((at - cell) / CELL) ** 2));
    const sum = row.reduce((a, b) => a + b);
    return row.map((x) => x / sum);
  });
}

/** Interpolate a map of rows x columns cells to height x width pixels. */
function interpolate(map, [rows, columns], height, width) {
  const down = weights(rows, height);
  const across = weights(columns, width);
  const light = new Float32Array(height * width);
  for (let y = 0; y < height; y++) {
    const line = new Float32Array(columns);
    for (let r = 0; r < rows; r++) {
      for (let c = 0; c < columns; c++) line[c] += down[y][r] * map[r * columns + c];
    }
    for (let x = 0; x < width; x++) {
      for (let c = 0; c < columns; c++) light[y * width + x] += across[x][c] * line[c];
    }
  }
  return light;
}

/** For each pixel the weight of its frame; the frames of a clip are beside each other. */
function frameWeights(map, height, width) {
  return Float32Array.from({ length: height * width }, (_, k) => map[Math.floor(((k % width) * map.length) / width)]);
}

/** For each pixel the sum of the weights of the regions that cover it. */
function cover(map, boxes, photo, height, width) {
  const light = new Float32Array(height * width);
  boxes.forEach(([x0, y0, x1, y1], k) => {
    if (!map[k] || x1 <= x0) return;
    const [left, right] = [x0, x1].map((x) => Math.round((x * width) / photo.width));
    const [top, bottom] = [y0, y1].map((y) => Math.round((y * height) / photo.height));
    for (let y = Math.max(0, top); y < Math.min(height, Math.max(bottom, top + 1)); y++) {
      for (let x = Math.max(0, left); x < Math.min(width, Math.max(right, left + 1)); x++) light[y * width + x] += map[k];
    }
  });
  return light;
}

/** True for a captioner of regions with a sentinel: all its maps have one scale, and 255 is the weight 1. */
const oneScale = (captioner) => captioner.regions && captioner.sentinel;

/** True unless the sentinel of such a captioner has half of the weight of the word t, or more. */
const looksAtRegion = (caption, t, captioner) => !oneScale(captioner) || caption.strength[t] > 0.5;

/** Paint where a word looked into a canvas of the photo's shape: dark at 0, clear with a glow at the largest value. */
function paint(canvas, map, captioner, view, photo) {
  const longer = captioner.regions ? 2 * MAP : MAP;
  const scale = longer / Math.max(photo.width, photo.height);
  const [width, height] = [photo.width, photo.height].map((side) => Math.max(1, Math.round(side * scale)));
  const light = view.boxes ? cover(map, view.boxes, photo, height, width)
    : captioner.clips ? frameWeights(map, height, width) : interpolate(map, captioner.grid, height, width);
  const largest = oneScale(captioner) ? 255 : light.reduce((a, b) => Math.max(a, b), 0) || 1;
  Object.assign(canvas, { width, height });
  const context = canvas.getContext("2d");
  const image = context.createImageData(width, height);
  light.forEach((x, k) => image.data.set(COLOURS[Math.min(255, Math.round((255 * x) / largest))], 4 * k));
  context.putImageData(image, 0, 0);
}

/** Where a map is largest, in words. */
function place(map, captioner, view, photo) {
  const k = map.indexOf(Math.max(...map));
  if (captioner.clips) return `frame ${k + 1} of ${map.length}`;
  let [x, y] = [0, 0];
  if (view.boxes) {
    const [x0, y0, x1, y1] = view.boxes[k];
    [x, y] = [(x0 + x1) / 2 / photo.width, (y0 + y1) / 2 / photo.height];
  } else {
    const [rows, columns] = captioner.grid;
    [x, y] = [((k % columns) + 0.5) / columns, (Math.floor(k / columns) + 0.5) / rows];
  }
  const third = (at, names) => names[Math.max(0, Math.min(2, Math.floor(3 * at)))];
  const [row, column] = [third(y, ["top", "middle", "bottom"]), third(x, ["left", "middle", "right"])];
  if (row === column) return "the middle of the photo";
  return `the ${row === "middle" ? "" : row} ${column === "middle" ? "" : column} of the photo`.replace(/ +/g, " ");
}

/** A bar with its label: [element, function that sets its value, or null for none]. */
function bar(label, symbol) {
  const fill = make("span", { class: "fill" });
  const number = make("span", { class: "number" }, "–");
  const element = make("div", { class: "bar" },
    make("span", { class: "label" }, label, " ", make("span", { class: "symbol" }, symbol)),
    make("span", { class: "track", "aria-hidden": "true" }, fill), number);
  return [element, (value) => {
    fill.style.width = `${100 * (value || 0)}%`;
    number.textContent = value === null ? "–" : share(value);
  }];
}

const strengthName = (captioner) => (captioner.sentinel ? ["On the photo", "1 − β"] : ["Strength of the photo", "gate β"]);

/** What a word shows, as a sentence. */
function told(caption, t, map, captioner, view, photo) {
  const where = looksAtRegion(caption, t, captioner) ? place(map, captioner, view, photo) : "the sentinel";
  const parts = [`${caption.words[t]}: looks most at ${where}`];
  if (caption.strength) parts.push(`${strengthName(captioner)[0].toLowerCase()} ${share(caption.strength[t])}`);
  return `${parts.concat(`spread ${share(caption.spread[t])}`).join(", ")}.`;
}

/** Outlines on the photo: boxes in its pixels. */
function frames(photo, boxes, kind) {
  const rects = boxes.map(([x0, y0, x1, y1]) => ["under", "over"].map((where) =>
    make("svg:rect", { class: where, x: x0, y: y0, width: Math.max(0, x1 - x0), height: Math.max(0, y1 - y0) })));
  const size = `0 0 ${photo.width} ${photo.height}`;
  return make("svg:svg", { class: kind, viewBox: size, preserveAspectRatio: "none", "aria-hidden": "true" }, rects.flat());
}

/** The boxes of objects with their names: above the box, or below it. */
function labelled(photo, objects, kind, below) {
  const tags = objects.map(({ name, box: [x0, y0, x1, y1] }) => {
    const tag = make("span", { class: "tag" }, name);
    const [side, x] = x0 < 0.55 * photo.width ? ["left", x0] : ["right", photo.width - x1];
    const [edge, y] = (below ? y1 > 0.88 * photo.height : y0 > 0.12 * photo.height) ? ["bottom", photo.height - y0] : ["top", y1];
    tag.style[side] = `${(100 * x) / photo.width}%`;
    tag.style[edge] = `${(100 * y) / photo.height}%`;
    if (below && y0 <= 0.12 * photo.height) tag.style.marginTop = "22px"; // the name of a true box is there
    return tag;
  });
  const boxes = objects.map((object) => object.box);
  return make("div", { class: `labelled ${kind}`, "aria-hidden": "true" }, frames(photo, boxes, "frames"), tags);
}

/** What one captioner says of one photo. */
function viewOf(photo, captioner, view) {
  const [best, ...others] = view.captions;
  const sentence = best.words.join(" ") || data.no_words;
  const looks = best.maps !== undefined;
  const [objects, found] = [photo, view].map((x) => x.objects.map((object) => object.name).join(", "));
  const image = make("img", {
    src: photo.source, width: photo.width, height: photo.height,
    class: photo.pixels ? "pixels" : null,
    alt: `${photo.name}: ${sentence}${objects && `. True objects: ${objects}`}${found && `. Found objects: ${found}`}`,
  });
  const canvas = make("canvas", { class: "map", "aria-hidden": "true" });
  const region = make("div", { "aria-hidden": "true" });
  const stage = make("div", { class: "stage" }, image, canvas, region,
    photo.objects.length ? labelled(photo, photo.objects, "truth", false) : null,
    view.objects.length ? labelled(photo, view.objects, "found", true) : null);
  stage.style.maxWidth = `min(560px, ${(80 * photo.width) / photo.height}vh)`; // a tall photo fits on the screen with its words
  const bars = [
    best.strength ? [bar(...strengthName(captioner)), "strength"] : null,
    looks ? [bar("Spread", "entropy"), "spread"] : null,
  ].filter(Boolean);

  let kept = null; // the word that stays when the pointer leaves: [caption, t, its button]
  let shown = null;
  let again = false; // the pointer is pressed on the word that was kept already
  const maps = new Map();
  const mapOf = (caption, t) => {
    if (!maps.has(caption)) maps.set(caption, mapsOf(caption));
    return maps.get(caption)[t];
  };
  function show(word) {
    if (shown) shown[2].classList.remove("shown");
    shown = word;
    stage.classList.toggle("looking", Boolean(word));
    region.replaceChildren();
    for (const [[, set], name] of bars) set(word ? word[0][name][word[1]] : null);
    if (!word) return;
    const [caption, t, button] = word;
    const map = mapOf(caption, t);
    button.classList.add("shown");
    paint(canvas, map, captioner, view, photo);
    if (view.boxes && looksAtRegion(caption, t, captioner)) {
      region.append(frames(photo, [view.boxes[map.indexOf(Math.max(...map))]], "frames most"));
    }
  }
  function keep(word) {
    if (kept) kept[2].removeAttribute("aria-current");
    kept = word;
    if (word) {
      word[2].setAttribute("aria-current", "true");
      say(told(word[0], word[1], mapOf(word[0], word[1]), captioner, view, photo));
    }
    show(word);
  }

  function rowOf(caption, label) {
    if (!caption.words.length) return make("p", { class: "words none" }, data.no_words);
    if (!looks) return make("p", { class: "words plain", dir: "auto" }, caption.words.join(" "));
    const buttons = caption.words.map((word, t) => {
      const button = make("button", { type: "button", tabindex: t ? -1 : 0 }, word);
      const mine = [caption, t, button];
      if (caption.strength) button.style.setProperty("--strength", caption.strength[t]);
      button.addEventListener("pointerenter", () => show(mine));
      button.addEventListener("focus", () => {
        for (const other of buttons) other.tabIndex = other === button ? 0 : -1;
        keep(mine);
      });
      // a press of the word that is kept lets go of it; the focus comes between these two events
      button.addEventListener("pointerdown", () => { again = kept === mine; });
      button.addEventListener("click", () => { keep(again ? null : mine); again = false; });
      return button;
    });
    const row = make("div", { class: "words", role: "toolbar", "aria-label": label, dir: "auto" }, buttons);
    row.addEventListener("pointerleave", () => show(kept));
    row.addEventListener("keydown", (event) => {
      const at = buttons.indexOf(document.activeElement);
      const left = getComputedStyle(row).direction === "rtl" ? at + 1 : at - 1;
      const to = { ArrowLeft: left, ArrowRight: 2 * at - left, Home: 0, End: buttons.length - 1 }[event.key];
      if (event.key === "Escape") keep(null);
      if (to === undefined || event.ctrlKey || event.altKey || event.metaKey) return;
      event.preventDefault();
      buttons[Math.max(0, Math.min(buttons.length - 1, to))].focus();
    });
    return row;
  }

  const panels = make("div", { class: "panels", hidden: true });
  function spread(all) {
    panels.hidden = !all;
    if (!all || panels.childElementCount) return;
    panels.append(...best.words.map((word, t) => {
      const map = mapOf(best, t);
      const picture = make("canvas", { role: "img", "aria-label": told(best, t, map, captioner, view, photo) });
      image.decode().then(() => {
        const scale = PANEL / Math.max(photo.width, photo.height);
        Object.assign(picture, { width: Math.round(photo.width * scale) || 1, height: Math.round(photo.height * scale) || 1 });
        const context = picture.getContext("2d");
        const over = document.createElement("canvas");
        paint(over, map, captioner, view, photo);
        context.imageSmoothingEnabled = !image.classList.contains("pixels");
        context.drawImage(image, 0, 0, picture.width, picture.height);
        Object.assign(context, { imageSmoothingEnabled: true, imageSmoothingQuality: "high" });
        context.drawImage(over, 0, 0, picture.width, picture.height);
      });
      const values = [
        best.strength && ["strength", captioner.sentinel ? "1 − β" : "gate β", best.strength[t]],
        ["spread", "spread", best.spread[t]],
      ].filter(Boolean);
      return make("figure", {}, picture, make("figcaption", {}, make("span", { class: "word" }, word),
        ...values.map(([name, label, value]) => {
          const fill = make("span", { class: "fill" });
          fill.style.width = `${100 * value}%`;
          return make("span", { class: `small ${name}` }, make("span", {}, label),
            make("span", { class: "track", "aria-hidden": "true" }, fill), make("span", { class: "number" }, share(value)));
        })));
    }));
  }
  if (looks) spreaders.push(spread);

  return make("div", { class: "view", role: "group", "aria-label": captioner.label },
    stage,
    make("div", { class: "said" },
      make("p", { class: "captioner" }, make("b", {}, captioner.label), " ", make("span", {}, captioner.kind)),
      rowOf(best, `Caption of ${photo.name}; arrow keys move between its words`),
      make("p", { class: "probability" }, nats(best.log_prob)),
      looks ? make("div", { class: "bars" }, bars.map(([[element]]) => element)) :
        make("p", { class: "note" }, "The words of this captioner have no map."),
      others.length ? make("details", {},
        make("summary", {}, others.length === 1 ? "Another caption of the beam" : `${others.length} other captions of the beam`),
        make("ol", {}, others.map((caption, k) => make("li", {},
          rowOf(caption, `Caption ${k + 2} of the beam`), make("span", { class: "probability" }, nats(caption.log_prob))))),
      ) : null),
    panels);
}

const spreaders = [];

function toggle(label, pressed, change) {
  const button = make("button", { type: "button", class: "toggle", "aria-pressed": String(pressed) }, label);
  button.addEventListener("click", () => {
    pressed = !pressed;
    button.setAttribute("aria-pressed", String(pressed));
    change(pressed);
  });
  return button;
}

function explanation() {
  const looks = data.captioners.filter((_, k) => data.photos.some((photo) => photo.views[k].captions[0].maps !== undefined));
  const strong = (sentinel) => data.captioners.some((captioner, k) => captioner.sentinel === sentinel &&
    data.photos.some((photo) => photo.views[k].captions[0].strength));
  const rows = [
    looks.length ? ["The map", "The photo stays clear where the network looked when it chose the word, and gets dark where it " +
      "did not look." + (looks.every(oneScale) ? "" : " Each map has its own scale: it is clearest at the word's largest weight.")] : null,
    data.captioners.some((captioner) => captioner.regions) ? ["Regions", "Some captioners look at regions in place of a grid. " +
      "The frame is around the region with the largest weight." + (data.captioners.some(oneScale) ? " With a sentinel, all maps " +
      "have one scale: they are clearest at the weight 1. Where β is 50 % or more, no region has a frame." : "")] : null,
    data.photos.some((photo) => photo.views.some((view) => view.objects.length)) ? ["Yellow boxes", "Objects that the " +
      "captioner found, each with the words that it has for it, below the box."] : null,
    strong(true) ? ["On the photo, 1 − β", "The share of the weight that is on the photo. The rest, β, is on the sentinel, which " +
      "stands for the memory of the words so far, or for the vocabulary: such words can be said without looking at the photo. " +
      "The line under a word is as strong as this share."] : null,
    strong(false) ? ["Strength of the photo, gate β", "The factor by which the network multiplies what it sees. The line under " +
      "a word is as strong as this factor."] : null,
    looks.length ? ["Spread, entropy", "The entropy of the word's weights, as a share of the largest possible entropy. " +
      "0 % means a single place, and 100 % means all places equally."] : null,
    ["log p", "The logarithm of the caption's probability, in nats. The nearer to 0, the more probable the caption is. " +
      "The beam orders its captions by log p, corrected for their length as the checkpoint says, so a longer caption may stand " +
      "before a more probable one."],
  ].filter(Boolean);
  return make("details", { class: "help" }, make("summary", {}, "How to read this page"),
    make("dl", {}, rows.map(([term, text]) => [make("dt", {}, term), make("dd", {}, text)]).flat()));
}

function build() {
  const main = document.querySelector("main");
  const count = data.photos.length;
  const articles = data.photos.map((photo) => make("article", { class: data.captioners.length > 1 ? "several" : "alone" },
    make("h2", { dir: "auto" }, photo.name),
    make("div", { class: "views" }, data.captioners.map((captioner, k) => viewOf(photo, captioner, photo.views[k])))));
  const controls = [];
  if (spreaders.length) {
    controls.push(toggle("All words beside each other", false, (all) => spreaders.forEach((spread) => spread(all))));
  }
  if (data.photos.some((photo) => photo.objects.length)) {
    controls.push(toggle("True boxes", true, (on) => main.classList.toggle("without-truth", !on)));
  }
  const [first, ...more] = data.captioners;
  const captioners = more.length ? `${more.length + 1} captioners` : `captioner ${first.label} (${first.kind})`;
  const hint = spreaders.length ? "Point at a word, tap it, or move through the words with the arrow keys: the photo shows " +
    "where the network looked for it. Tap the word again, or press Escape, to see the whole photo." : "";
  main.append(make("header", {},
    make("h1", {}, document.title),
    make("p", {}, `${count} ${count === 1 ? "photo" : "photos"}, ${captioners}, beam ${data.beam}. ${hint}`),
    explanation(), controls.length ? make("div", { class: "controls" }, controls) : null), ...articles);
}

build();
