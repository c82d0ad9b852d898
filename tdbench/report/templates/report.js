"use strict";
// Sorting: every header of a .sortable table becomes a button. Cells without a value stay last in both directions.
for (const table of document.querySelectorAll("table.sortable")) {
  const headers = [...table.tHead.rows[0].cells];
  const body = table.tBodies[0];
  const key = (row, column) => row.cells[column].dataset.value ?? row.cells[column].textContent.trim();
  const sort = (column) => {
    const header = headers[column];
    const numeric = header.dataset.kind === "number";
    const before = header.getAttribute("aria-sort");
    const first = header.dataset.first || (numeric ? "descending" : "ascending");
    const other = first === "ascending" ? "descending" : "ascending";
    const direction = before === first ? other : first;
    const sign = direction === "ascending" ? 1 : -1;
    const rows = [...body.rows].sort((a, b) => {
      const [x, y] = [key(a, column), key(b, column)];
      if (x === "" || y === "") return (x === "") - (y === "");
      return sign * (numeric ? x - y : x.localeCompare(y, undefined, { numeric: true }));
    });
    body.append(...rows);
    headers.forEach((h) => h.removeAttribute("aria-sort"));
    header.setAttribute("aria-sort", direction);
  };
  headers.forEach((header, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...header.childNodes);
    button.addEventListener("click", () => sort(column));
    header.append(button);
  });
}
// Filtering: one field shows and hides everything on the page that belongs to a searcher.
const bar = document.getElementById("filter");
if (bar) {
  const field = bar.querySelector("input");
  const count = bar.querySelector("output");
  const apply = () => {
    const words = field.value.toLowerCase().split(/\s+/).filter(Boolean);
    const seen = new Set(), all = new Set();
    for (const element of document.querySelectorAll("[data-searcher]")) {
      const name = element.dataset.searcher;
      const shown = words.every((word) => name.toLowerCase().includes(word));
      element.hidden = !shown;
      if (element.dataset.reference === undefined) {
        all.add(name);
        if (shown) seen.add(name);
      }
    }
    const total = `${all.size} searcher${all.size === 1 ? "" : "s"}`;
    count.textContent = words.length ? `${seen.size} of ${total}` : total;
  };
  field.addEventListener("input", apply);
  bar.hidden = false;
  apply();
}
