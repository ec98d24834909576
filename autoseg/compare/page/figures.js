"use strict";
const data = JSON.parse(document.getElementById("report-data").textContent);

// Which plans the reader has unticked; figures and tables leave them out.
const plans = (() => {
  const hidden = new Set();
  const listeners = [];
  const boxes = [...document.querySelectorAll(".chips input")];
  const update = () => {
    hidden.clear();
    boxes.filter((box) => !box.checked).forEach((box) => hidden.add(box.dataset.plan));
    for (const row of document.querySelectorAll("tr[data-plan], .viewer label[data-plan]")) {
      row.hidden = hidden.has(row.dataset.plan);
    }
    listeners.forEach((listener) => listener());
  };
  boxes.forEach((box) => box.addEventListener("change", update));
  return { hidden, listen: (listener) => listeners.push(listener) };
})();

(() => {
  const config = { displayModeBar: false, displaylogo: false, responsive: false };

  function resolve(trace, shared) {
    const { refs = {}, ...full } = trace;
    for (const [field, name] of Object.entries(refs)) full[field] = shared[name];
    return full;
  }

  function connect(name, figure) {
    const place = document.getElementById(`plot-${name}`);
    const choices = figure.selectors.map((selector) => document.getElementById(`choose-${name}-${selector}`));
    place.style.height = `${figure.height}px`;
    const draw = () => {
      const view = figure.views[choices.map((choice) => choice.value).join("|")];
      const shown = view.data.filter((trace) => !plans.hidden.has(trace.meta));
      Plotly.react(place, shown.map((trace) => resolve(trace, figure.shared)), structuredClone(view.layout), config);
    };
    choices.forEach((choice) => choice.addEventListener("change", draw));
    plans.listen(draw);
    draw();
    return place;
  }

  const places = Object.entries(data.figures).map(([name, figure]) => connect(name, figure));
  const fit = () => places.forEach((place) => place.offsetParent && Plotly.Plots.resize(place));
  const watcher = new ResizeObserver(fit);
  places.forEach((place) => watcher.observe(place.parentElement));
  window.addEventListener("beforeprint", () => {
    document.querySelectorAll("details").forEach((details) => { details.open = true; });
    fit();
  });
  window.addEventListener("afterprint", fit);
})();
