// Sorting by a column's title, and finding cases.
(() => {
  const collator = new Intl.Collator("en", { numeric: true });

  function keyOf(cell) {
    if (cell.dataset.value !== undefined) return Number(cell.dataset.value);
    const text = cell.textContent.trim();
    return text === "–" ? null : text;
  }

  function compare(first, second) {
    if (first === null || second === null) return (first === null) - (second === null);
    if (typeof first === "number" && typeof second === "number") return first - second;
    return collator.compare(String(first), String(second));
  }

  // What is not known stays at the end in both directions.
  function order(keys, descending) {
    const places = keys.map((_, place) => place);
    return places.sort((a, b) => {
      const result = compare(keys[a], keys[b]);
      const undefinedOne = keys[a] === null || keys[b] === null;
      return (descending && !undefinedOne ? -result : result) || a - b;
    });
  }

  function mark(header, descending) {
    for (const other of header.parentElement.children) other.removeAttribute("aria-sort");
    header.setAttribute("aria-sort", descending ? "descending" : "ascending");
  }

  // A first click on numbers sorts the largest to the top.
  function nextDirection(header, numeric) {
    const now = header.getAttribute("aria-sort");
    return now === null ? numeric : now === "ascending";
  }

  for (const table of document.querySelectorAll("table.sortable")) {
    const body = table.tBodies[0];
    [...table.tHead.rows[0].cells].forEach((header, column) => header.addEventListener("click", () => {
      const rows = [...body.rows];
      const keys = rows.map((row) => keyOf(row.cells[column]));
      const descending = nextDirection(header, keys.some((key) => typeof key === "number"));
      mark(header, descending);
      body.append(...order(keys, descending).map((place) => rows[place]));
    }));
  }

  const table = document.getElementById("case-table");
  if (!table || !data.cases) return;
  const FEW = 10;
  const MORE = 50;
  const field = document.getElementById("find-case");
  const count = document.getElementById("found-cases");
  const more = document.getElementById("more-cases");
  let limit = FEW;
  let places = data.cases.names.map((_, place) => place);

  function cell(kind, text) {
    const made = document.createElement(kind);
    if (kind === "th") made.scope = "row";
    made.textContent = text;
    return made;
  }

  function show() {
    const wanted = field.value.trim().toLowerCase();
    const found = places.filter((place) => data.cases.names[place].toLowerCase().includes(wanted));
    const rows = found.slice(0, limit).map((place) => {
      const row = document.createElement("tr");
      row.append(cell("th", data.cases.names[place]));
      for (const values of data.cases.values) row.append(cell("td", values[place] === null ? "–" : values[place].toFixed(3)));
      return row;
    });
    table.tBodies[0].replaceChildren(...rows);
    const all = `${found.length} of ${places.length} cases`;
    count.textContent = found.length > limit ? `${all}, the first ${limit} are shown` : all;
    more.hidden = found.length <= limit;
  }

  [...table.tHead.rows[0].cells].forEach((header, column) => header.addEventListener("click", () => {
    const keys = column === 0 ? data.cases.names : data.cases.values[column - 1];
    const descending = nextDirection(header, false);
    mark(header, descending);
    places = order(keys, descending);
    show();
  }));
  field.addEventListener("input", show);
  more.addEventListener("click", () => {
    limit += MORE;
    show();
  });
  show();
})();
