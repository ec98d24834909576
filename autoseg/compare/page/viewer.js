// Slices of a case with the outlines of the reference and of the plans.
(() => {
  const gallery = data.gallery;
  const viewer = document.getElementById("viewer");
  if (!gallery || !viewer) return;
  const canvas = viewer.querySelector("canvas");
  const slider = document.getElementById("viewer-slice");
  const number = viewer.querySelector(".slider output");
  const choice = document.getElementById("viewer-case");
  const boxes = [...viewer.querySelectorAll("[data-outline]")];
  const scratch = document.createElement("canvas");
  const loaded = new Map();
  const DASHES = [[], [6, 3], [2, 2], [9, 3, 2, 3]];

  function load(url) {
    const image = new Image();
    image.src = url;
    return image.decode().then(() => image);
  }

  // Images are decoded when their case is looked at, all of a case at once.
  function imagesOf(index) {
    if (!loaded.has(index)) {
      const shown = gallery.cases[index];
      const names = Object.keys(shown.labels);
      loaded.set(index, Promise.all([load(shown.image), ...names.map((name) => load(shown.labels[name]))]).then(
        ([image, ...labels]) => ({ image, labels: Object.fromEntries(names.map((name, i) => [name, labels[i]])) })));
    }
    return loaded.get(index);
  }

  function labelsOf(image, [width, height], slice) {
    scratch.width = width;
    scratch.height = height;
    const context = scratch.getContext("2d", { willReadFrequently: true });
    context.drawImage(image, 0, slice * height, width, height, 0, 0, width, height);
    return context.getImageData(0, 0, width, height).data;
  }

  // The outline runs along the edges between pixels of different labels.
  function outline(pixels, [width, height], scaleX, scaleY) {
    const path = new Path2D();
    const at = (x, y) => (x < width && y < height ? pixels[4 * (y * width + x)] : 0);
    for (let y = 0; y < height; y++) {
      for (let x = 0; x < width; x++) {
        const here = at(x, y);
        if (here !== at(x + 1, y)) {
          path.moveTo((x + 1) * scaleX, y * scaleY);
          path.lineTo((x + 1) * scaleX, (y + 1) * scaleY);
        }
        if (here !== at(x, y + 1)) {
          path.moveTo(x * scaleX, (y + 1) * scaleY);
          path.lineTo((x + 1) * scaleX, (y + 1) * scaleY);
        }
      }
    }
    return path;
  }

  function stroke(context, path, colour, width, dash) {
    context.strokeStyle = colour;
    context.lineWidth = width;
    context.setLineDash(dash);
    context.stroke(path);
  }

  async function draw() {
    const index = Number(choice.value);
    const shown = gallery.cases[index];
    const { image, labels } = await imagesOf(index);
    if (index !== Number(choice.value)) return;
    const slice = Number(slider.value);
    const ratio = window.devicePixelRatio || 1;
    const [width, height] = shown.size;
    const room = canvas.parentElement.clientWidth;
    const scale = Math.min(room / width, 520 / (height * shown.aspect));
    canvas.style.width = `${Math.round(width * scale)}px`;
    canvas.style.height = `${Math.round(height * scale * shown.aspect)}px`;
    canvas.width = Math.round(width * scale * ratio);
    canvas.height = Math.round(height * scale * shown.aspect * ratio);
    const [scaleX, scaleY] = [canvas.width / width, canvas.height / height];
    const context = canvas.getContext("2d");
    context.drawImage(image, 0, slice * height, width, height, 0, 0, canvas.width, canvas.height);
    boxes.forEach((box, place) => {
      const name = box.dataset.outline;
      if (!box.checked || !labels[name] || plans.hidden.has(name)) return;
      const path = outline(labelsOf(labels[name], shown.size, slice), shown.size, scaleX, scaleY);
      if (name === "reference") {
        stroke(context, path, "#000000", 5.5 * ratio, []);
        stroke(context, path, "#ffffff", 3 * ratio, []);
      } else {
        stroke(context, path, data.colours[name], 2 * ratio, DASHES[(place - 1) % DASHES.length].map((n) => n * ratio));
      }
    });
    number.textContent = `${shown.slices[slice]} (${slice + 1} of ${shown.slices.length})`;
    canvas.setAttribute("aria-label", `${shown.name}, slice ${shown.slices[slice]}, with outlines of ${
      boxes.filter((box) => box.checked).map((box) => box.dataset.outline).join(", ")}`);
    viewer.dataset.drawn = `${index}|${slice}`;
  }

  function choose() {
    const shown = gallery.cases[Number(choice.value)];
    slider.max = shown.slices.length - 1;
    slider.value = shown.start;
    for (const place of viewer.querySelectorAll("[data-dice]")) {
      const dice = shown.dice[place.dataset.dice];
      place.textContent = dice === null || dice === undefined ? "" : dice.toFixed(3);
    }
    draw();
  }

  function step(by) {
    slider.value = Number(slider.value) + by;
    draw();
  }

  slider.addEventListener("input", draw);
  choice.addEventListener("change", choose);
  boxes.forEach((box) => box.addEventListener("change", draw));
  plans.listen(draw);
  canvas.addEventListener("wheel", (event) => {
    event.preventDefault();
    step(Math.sign(event.deltaY));
  }, { passive: false });
  canvas.addEventListener("keydown", (event) => {
    const by = { ArrowUp: 1, ArrowRight: 1, ArrowDown: -1, ArrowLeft: -1 }[event.key];
    if (by) {
      event.preventDefault();
      step(by);
    }
  });
  new ResizeObserver(draw).observe(canvas.parentElement);
  choose();
})();
