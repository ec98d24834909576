"use strict";
(() => {
  const figures = JSON.parse(document.getElementById("figures").textContent);
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
      const data = view.data.map((trace) => resolve(trace, figure.shared));
      Plotly.react(place, data, structuredClone(view.layout), config);
    };
    choices.forEach((choice) => choice.addEventListener("change", draw));
    draw();
    return place;
  }

  const places = Object.entries(figures).map(([name, figure]) => connect(name, figure));
  const fit = () => places.forEach((place) => Plotly.Plots.resize(place));
  const watcher = new ResizeObserver(fit);
  places.forEach((place) => watcher.observe(place.parentElement));
  window.addEventListener("beforeprint", fit);
  window.addEventListener("afterprint", fit);
})();
