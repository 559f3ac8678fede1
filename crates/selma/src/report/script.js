"use strict";
(() => {
  const grid = document.getElementById("grid");
  if (!grid) return;
  const byId = (id) => document.getElementById(id);
  const data = JSON.parse(byId("answers").textContent);
  const controls = byId("controls");
  const more = byId("more");
  const page = 24;
  let limit = page;
  let shown = [];

  const samples = [...grid.querySelectorAll(".sample")].map((element) => ({
    element,
    index: Number(element.dataset.index),
    skill: element.dataset.skill,
    thumbs: [...element.querySelectorAll(".thumb")],
    cells: [...element.querySelectorAll(".cell")].map((cell) => [...cell.querySelectorAll(".thumb")]),
    badges: [...element.querySelectorAll(".badge")].map((badge) => badge.textContent),
    scores: [],
  }));

  // What is looked at: the answers about one category, or a metric. The first metric is what the pictures say by themselves.
  let category = "";
  let metric = 0;
  const mean = (values) => values.length ? values.reduce((sum, value) => sum + value, 0) / values.length : null;
  const ofCategory = (sample, thumb) => {
    const { categories, answers } = data.samples[sample.index];
    const asked = answers[Number(thumb.dataset.picture)].filter(([question]) => categories[question] === category);
    return mean(asked.map(([, , ok]) => Number(ok)));
  };
  // By model; null where it drew nothing, or was not measured.
  const scores = (sample) => sample.cells.map((thumbs, model) => {
    if (category) return mean(thumbs.map((thumb) => ofCategory(sample, thumb)).filter((score) => score !== null));
    const values = data.samples[sample.index].values[metric];
    return values?.[model] ?? (metric ? null : mean(thumbs.map((thumb) => Number(thumb.dataset.score))));
  });
  const isShare = () => Boolean(category) || (data.metrics[metric]?.[1] ?? true);
  const plain = (value) => String(Number(value.toPrecision(4)));

  const difference = (sample) => {
    const first = sample.scores[Number(byId("first").value)];
    const second = sample.scores[Number(byId("second").value)];
    return first === null || second === null ? null : first - second;
  };

  // What cannot be compared comes last; equals keep the order of the file.
  const order = (key, sign) => (a, b) => {
    const [x, y] = [key(a), key(b)];
    if (x === null || y === null) return (x === null) - (y === null) || a.index - b.index;
    return sign * (x - y) || a.index - b.index;
  };
  const first = (sample) => sample.scores[Number(byId("first").value)];
  const orders = {
    given: (a, b) => a.index - b.index,
    gain: order(difference, -1),
    loss: order(difference, 1),
    low: order(first, 1),
  };

  // The badge of a picture says what is looked at; each picture of several has its own as long as it is the share of answers.
  const label = (sample, thumb, model) => {
    const badge = thumb.querySelector(".badge");
    const own = sample.badges[Number(thumb.dataset.picture)];
    const value = category ? ofCategory(sample, thumb) : sample.scores[model];
    const share = isShare();
    if (!category && metric === 0 && own !== "") badge.textContent = own;
    else badge.textContent = value === null ? "" : share ? String(Math.round(value * 100)) : plain(value);
    badge.classList.toggle("full", share && value !== null && (metric || category ? value : Number(thumb.dataset.score)) >= 1);
  };

  const update = () => {
    const skill = byId("skill").value;
    category = byId("category").value;
    metric = Number(byId("metric").value || 0);
    byId("metric").disabled = Boolean(category);
    for (const sample of samples) sample.scores = scores(sample);
    const asked = (sample) => !category || data.samples[sample.index].categories.includes(category);
    const chosen = [byId("first").value, byId("second").value];
    shown = samples.filter((sample) => (!skill || sample.skill === skill) && asked(sample)).sort(orders[byId("order").value]);
    for (const sample of samples) sample.element.hidden = true;
    shown.forEach((sample, position) => {
      grid.append(sample.element);
      sample.element.hidden = position >= limit;
    });
    for (const sample of samples) {
      const delta = sample.element.querySelector(".delta");
      const value = difference(sample);
      const points = value === null ? 0 : isShare() ? Math.round(value * 100) : Number(value.toPrecision(3));
      delta.textContent = value === null || chosen[0] === chosen[1] ? ""
        : points === 0 ? "\u00b10" : (points > 0 ? "+" : "\u2212") + Math.abs(points);
      sample.cells.forEach((thumbs, model) => thumbs.forEach((thumb) => label(sample, thumb, model)));
      delta.className = "delta" + (points > 0 ? " up" : points < 0 ? " down" : "");
      for (const cell of sample.element.querySelectorAll(".cell")) {
        cell.classList.toggle("chosen", chosen.includes(cell.dataset.model));
      }
    }
    const visible = Math.min(limit, shown.length);
    byId("count").textContent = `${visible} of ${shown.length} prompts`;
    more.hidden = visible >= shown.length;
  };
  controls.addEventListener("change", () => { limit = page; update(); });
  controls.addEventListener("submit", (event) => event.preventDefault());
  more.addEventListener("click", () => {
    const next = shown[limit];
    limit += 4 * page;
    update();
    next?.thumbs[0]?.focus({ preventScroll: true });
  });

  const dialog = byId("window");
  let sample = null;
  let picture = 0;

  const add = (parent, name, text, className) => {
    const element = document.createElement(name);
    element.textContent = text;
    if (className) element.className = className;
    parent.append(element);
  };
  const show = () => {
    const thumb = sample.thumbs[picture];
    const image = thumb.querySelector("img");
    const model = data.models[Number(thumb.closest(".cell").dataset.model)];
    const prompt = sample.element.querySelector("h3").textContent;
    const target = byId("window-image");
    target.hidden = !image;
    target.src = image ? image.src : "data:,";
    target.className = image ? image.className : "";
    target.alt = `Drawn by ${model}`;
    byId("window-model").textContent = model;
    byId("window-prompt").textContent = prompt;
    const score = byId("window-score");
    const answered = sample.badges[picture] !== "";
    score.hidden = !answered;
    score.textContent = `${Math.round(Number(thumb.dataset.score) * 1000) / 10}%`;
    score.classList.toggle("full", Number(thumb.dataset.score) >= 1);
    const number = Number(thumb.closest(".cell").dataset.model);
    const values = data.samples[sample.index].values.map((values, index) => [data.metrics[index], values[number]]);
    byId("window-metrics").textContent = values.slice(answered ? 1 : 0).filter(([, value]) => value !== null)
      .map(([[title, share], value]) => `${title} ${share ? `${Math.round(value * 1000) / 10}%` : plain(value)}`).join(" \u00b7 ");
    const list = byId("window-answers");
    list.replaceChildren();
    const { questions, answers } = data.samples[sample.index];
    for (const [question, answer, ok] of answers[picture]) {
      const item = document.createElement("li");
      const mark = document.createElement("span");
      mark.className = ok ? "right" : "wrong";
      mark.textContent = ok ? "\u2713" : "\u2717";
      mark.setAttribute("role", "img");
      mark.setAttribute("aria-label", ok ? "right" : "wrong");
      item.append(mark);
      item.title = data.samples[sample.index].categories[question];
      add(item, "span", questions[question]);
      add(item, "span", answer ?? "no answer", "said");
      list.append(item);
    }
  };
  const step = (by) => {
    picture = (picture + by + sample.thumbs.length) % sample.thumbs.length;
    show();
  };
  grid.addEventListener("click", (event) => {
    const thumb = event.target.closest(".thumb");
    if (!thumb) return;
    sample = samples.find((one) => one.element === thumb.closest(".sample"));
    picture = Number(thumb.dataset.picture);
    show();
    dialog.showModal();
  });
  byId("previous").addEventListener("click", () => step(-1));
  byId("next").addEventListener("click", () => step(1));
  byId("close").addEventListener("click", () => dialog.close());
  dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });
  dialog.addEventListener("keydown", (event) => {
    if (event.key === "ArrowLeft") step(-1);
    if (event.key === "ArrowRight") step(1);
  });
  dialog.addEventListener("close", () => sample.thumbs[picture].focus());

  controls.hidden = false;
  update();
})();
