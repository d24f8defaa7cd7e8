"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const byId = (id) => document.getElementById(id);
const make = (tag, attributes = {}, ...children) => {
  const element = document.createElement(tag);
  for (const [key, value] of Object.entries(attributes)) {
    if (key in element && key !== "style") element[key] = value;
    else element.setAttribute(key, value);
  }
  element.append(...children);
  return element;
};
const swatch = (word) => make("span", { className: "swatch", style: `background: rgb(${data.colours[word]})` });
const percent = (share) => `${(100 * share).toFixed(1)} %`;

const off = new Set(); // words that are switched off, by their place in data.words
let opacity = 0.6;
const drawn = new Set(); // the panels that hold pixels now

const decoded = async (address) => {
  const image = new Image();
  image.src = address;
  await image.decode();
  const canvas = new OffscreenCanvas(image.naturalWidth, image.naturalHeight);
  const context = canvas.getContext("2d", { willReadFrequently: true, colorSpace: "srgb" });
  context.drawImage(image, 0, 0);
  return context.getImageData(0, 0, canvas.width, canvas.height);
};

// A layer of one image: its canvas, and what lies at a place.
class Panel {
  constructor(figure, layer, place, article) {
    this.layer = layer;
    this.canvas = make("canvas", { "aria-hidden": "true" });
    const image = make("img", { alt: this.description(figure.name, place), loading: "lazy" });
    [image.width, image.height] = figure.size;
    image.src = figure.image;
    this.stack = article
      ? make("button", { type: "button", className: "stack", "aria-haspopup": "dialog" }, image, this.canvas)
      : make("div", { className: "stack" }, image, this.canvas);
    if (layer && layer.heat) this.stack.classList.add("heat");
    this.hover = make("p", { className: "hover" });
    const caption = make("figcaption", {}, this.caption(place));
    this.element = make("figure", { className: "panel" }, this.stack, caption, this.hover);
    this.stack.addEventListener("pointermove", (event) => this.tell(event));
    this.stack.addEventListener("pointerleave", () => { this.hover.textContent = ""; });
    if (article) this.stack.addEventListener("click", () => openFull(article));
    else if (layer && !layer.distinct) this.element.append(this.list());
  }

  // Each word of the layer with its share of the pixels and its best score, largest share first.
  get totals() {
    const { words, shares, scores } = this.layer;
    const totals = new Map();
    words.forEach((word, k) => {
      const own = totals.get(word) ?? { share: shares ? 0 : null, score: null };
      if (shares) own.share += shares[k];
      if (scores && scores[k] !== null) own.score = Math.max(own.score ?? 0, scores[k]);
      totals.set(word, own);
    });
    return [...totals].sort((a, b) => b[1].share - a[1].share);
  }

  // What an image shows in words, where neither the legend nor a pointer is at hand.
  list() {
    const items = this.totals.map(([word, { share, score }]) => {
      const figures = [share === null ? "" : percent(share), score === null ? "" : `score ${score.toFixed(2)}`];
      return make("li", {}, swatch(word), make("bdi", {}, data.words[word]), ` ${figures.filter(Boolean).join(", ")}`);
    });
    return make("ul", { className: "parts" }, ...items);
  }

  caption(place) {
    const name = data.layers[place];
    return this.layer ? name : `${name}: nothing of this image`;
  }

  // The words of the layer, largest share first, for those who hear the page.
  description(name, place) {
    if (!this.layer) return name;
    const parts = this.totals.slice(0, 8)
      .map(([word, { share }]) => data.words[word] + (share === null ? "" : ` ${percent(share)}`));
    return `${name}, ${data.layers[place]}: ${parts.join(", ") || "no region"}`;
  }

  async show() {
    if (!this.layer || drawn.has(this)) return;
    drawn.add(this);
    const pixels = await decoded(this.layer.regions ?? this.layer.heat);
    if (!drawn.has(this)) return;
    this.pixels = pixels;
    [this.width, this.height] = this.layer.size ?? [pixels.width, pixels.height];
    this.canvas.width = this.width;
    this.canvas.height = this.height;
    this.paint();
  }

  hide() {
    drawn.delete(this);
    this.pixels = undefined;
    this.canvas.width = this.canvas.height = 0;
  }

  // The place of the region, or of the strongest map, at a pixel, and its strength; -1 for none.
  at(index) {
    const { layer, pixels } = this;
    if (layer.regions) {
      const region = pixels.data[4 * index] + 256 * pixels.data[4 * index + 1] - 1;
      return region < 0 || off.has(layer.words[region]) ? [-1, 0] : [region, 1];
    }
    let best = -1, value = 0;
    for (let k = 0; k < layer.words.length; k++) {
      if (off.has(layer.words[k])) continue;
      const own = pixels.data[4 * (k * this.width * this.height + index)] / 255;
      if (own > value) [best, value] = [k, own];
    }
    return [best, value];
  }

  // Of its word; of proposals, which have one word, a colour of their own.
  colour(region) {
    if (!this.layer.distinct) return data.colours[this.layer.words[region]];
    const turn = (k) => Math.round(140 + 90 * Math.cos(2.4 * region + 2 * Math.PI * k / 3)); // by the golden angle
    return [turn(0), turn(1), turn(2)];
  }

  paint() {
    if (!this.pixels) return;
    const context = this.canvas.getContext("2d");
    const output = context.createImageData(this.width, this.height);
    for (let index = 0; index < this.width * this.height; index++) {
      const [region, strength] = this.at(index);
      if (region < 0) continue;
      output.data.set(this.colour(region), 4 * index);
      output.data[4 * index + 3] = 255 * opacity * strength;
    }
    context.putImageData(output, 0, 0);
  }

  tell(event) {
    if (!this.pixels) return;
    const box = this.canvas.getBoundingClientRect();
    const x = Math.floor((event.clientX - box.left) / box.width * this.width);
    const y = Math.floor((event.clientY - box.top) / box.height * this.height);
    if (x < 0 || y < 0 || x >= this.width || y >= this.height) return;
    const [region, strength] = this.at(y * this.width + x);
    if (region < 0) { this.hover.textContent = "no word"; return; }
    const score = this.layer.scores ? this.layer.scores[region] : strength;
    const name = data.words[this.layer.words[region]];
    this.hover.replaceChildren(make("bdi", {}, name), score === null ? "" : `, score ${score.toFixed(2)}`);
  }
}

// In the page, where an article holds them, or without one in full view.
const panelsOf = (figure, article) => {
  const panels = figure.layers.map((layer, place) => new Panel(figure, layer, place, article));
  const measures = Object.entries(figure.measures)
    .map(([name, value]) => `${name} ${value === null ? "–" : percent(value)}`).join(", ");
  const row = make("div", { className: "row" }, ...panels.map((panel) => panel.element));
  return { panels, elements: measures ? [row, make("p", { className: "measures" }, measures)] : [row] };
};

let full = [], shown = null; // the panels in full view, and whose they are
const openFull = (article) => {
  const figure = parsed(article);
  const { panels, elements } = panelsOf(figure, null);
  full.forEach((panel) => panel.hide());
  [full, shown] = [panels, article];
  byId("full-name").textContent = figure.name;
  byId("full").querySelector("div").replaceChildren(...elements);
  if (!byId("full").open) byId("full").showModal();
  full.forEach((panel) => panel.show());
};
// The image before or behind the one in full view, of those that are seen; the first comes after the last.
const turn = (step) => {
  const listed = [...byId("figures").children].filter((article) => !article.hidden);
  openFull(listed.at((listed.indexOf(shown) + step) % listed.length));
};

const articles = [...document.querySelectorAll("article")];
const built = new WeakMap();
const parsed = (article) => JSON.parse(article.querySelector("script").textContent);
const watch = new IntersectionObserver((entries) => {
  for (const { target, isIntersecting } of entries) {
    if (isIntersecting) {
      if (!built.has(target)) {
        const figure = parsed(target);
        const { panels, elements } = panelsOf(figure, target);
        built.set(target, panels);
        target.style.minHeight = "";
        target.append(...elements);
      }
      built.get(target).forEach((panel) => panel.show());
    } else if (built.has(target)) {
      built.get(target).forEach((panel) => panel.hide());
      built.delete(target);
      const height = target.offsetHeight;
      target.style.minHeight = `${height}px`; // the page keeps its place
      target.querySelectorAll(":scope > :not(h2, script)").forEach((element) => element.remove());
    }
  }
}, { rootMargin: "400px" });
articles.forEach((article) => watch.observe(article));

let waiting = false;
const repaint = () => {
  if (waiting) return;
  waiting = true;
  requestAnimationFrame(() => {
    waiting = false;
    drawn.forEach((panel) => panel.paint());
  });
};

if (byId("controls")) {
  data.used.forEach((place) => {
    const box = make("input", { type: "checkbox", checked: true });
    box.addEventListener("change", () => {
      if (box.checked) off.delete(place); else off.add(place);
      repaint();
    });
    byId("legend").append(make("li", {}, make("label", {}, box, swatch(place), make("bdi", {}, data.words[place]))));
  });
  const switchAll = (on) => {
    document.querySelectorAll("#legend input").forEach((box) => { box.checked = on; });
    data.used.forEach((place) => { if (on) off.delete(place); else off.add(place); });
    repaint();
  };
  byId("all").addEventListener("click", () => switchAll(true));
  byId("none").addEventListener("click", () => switchAll(false));
  byId("opacity").addEventListener("input", (event) => { opacity = event.target.value / 100; repaint(); });

  let measures; // of each article; read at the first sorting, for they lie with its pixels
  byId("sort").addEventListener("change", (event) => {
    const key = event.target.value;
    measures ??= new Map(articles.map((article) => [article, parsed(article).measures]));
    const reverse = "reverse" in event.target.selectedOptions[0].dataset;
    const sorted = [...articles];
    if (key === "name") sorted.sort((a, b) => a.dataset.name.localeCompare(b.dataset.name));
    else if (key) {
      const value = (article) => measures.get(article)[key] ?? Infinity; // without a measure: last
      const sign = reverse ? -1 : 1;
      sorted.sort((a, b) => {
        const [first, second] = [value(a), value(b)];
        if (first === second) return 0;
        if (first === Infinity || second === Infinity) return first - second;
        return sign * (first - second);
      });
    }
    byId("figures").append(...sorted);
  });
  byId("filter").addEventListener("input", (event) => {
    const text = event.target.value.toLocaleLowerCase();
    let count = 0;
    for (const article of articles) {
      article.hidden = !article.dataset.name.toLocaleLowerCase().includes(text);
      count += !article.hidden;
    }
    byId("summary").textContent = text ? `${count} of ${articles.length} images` : `${count} images`;
  });
}
byId("close").addEventListener("click", () => byId("full").close());
byId("full").addEventListener("close", () => {
  full.forEach((panel) => panel.hide());
  full = [];
  shown.scrollIntoView({ block: "nearest" });
  shown.querySelector("button.stack")?.focus();
});
byId("previous").addEventListener("click", () => turn(-1));
byId("next").addEventListener("click", () => turn(1));
byId("full").addEventListener("keydown", (event) => {
  if (event.key === "ArrowLeft") turn(-1);
  if (event.key === "ArrowRight") turn(1);
});

// Curves, as SVG: each named line, its axes with their ends marked.
const SVG = "http://www.w3.org/2000/svg";
const svg = (tag, attributes, text = "") => {
  const element = document.createElementNS(SVG, tag);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.textContent = text;
  return element;
};
const LINES = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9"];
const number = (value) => String(Number(value.toPrecision(3)));
document.querySelectorAll(".curve").forEach((section, place) => {
  for (const [index, [name, [x, y]]] of Object.entries(data.curves[place].lines).entries()) {
    const [low, high] = [Math.min(...y), Math.max(...y)];
    const [first, last] = [Math.min(...x), Math.max(...x)];
    const at = (value, from, to, start, length) =>
      start + (to > from ? (value - from) / (to - from) : 0.5) * length;
    const points = x.map((step, k) => `${at(step, first, last, 60, 680)},${at(y[k], low, high, 170, -150)}`);
    const label = `${name} over ${x.length} points, from ${number(y[0])} to ${number(y[y.length - 1])}`;
    const image = svg("svg", { viewBox: "0 0 760 210", role: "img", "aria-label": label });
    image.append(
      svg("path", { d: "M60 15V175H745", class: "axis", fill: "none" }),
      svg("polyline", { points: points.join(" "), fill: "none", stroke: LINES[index % LINES.length], "stroke-width": 2 }),
      svg("text", { x: 60, y: 10 }, name),
      svg("text", { x: 54, y: 24, "text-anchor": "end" }, number(high)),
      svg("text", { x: 54, y: 172, "text-anchor": "end" }, number(low)),
      svg("text", { x: 60, y: 195 }, number(first)),
      svg("text", { x: 740, y: 195, "text-anchor": "end" }, `step ${number(last)}`),
    );
    section.append(image);
  }
});
