"use strict";
const value = (row, column) => {
  const text = row.cells[column].textContent.trim();
  const number = parseFloat(text.replace(/,/g, ""));
  return Number.isNaN(number) ? text : number;
};
const compare = (a, b) => (typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b)));

for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => head.querySelector("button")?.addEventListener("click", () => {
    const falling = head.getAttribute("aria-sort") === "ascending";
    heads.forEach((each) => each.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", falling ? "descending" : "ascending");
    const rows = [...table.tBodies[0].rows];
    rows.sort((a, b) => (falling ? -1 : 1) * compare(value(a, column), value(b, column)));
    table.tBodies[0].append(...rows);
  }));
}

for (const select of document.querySelectorAll("select[data-sorts]")) {
  const panels = document.getElementById(select.dataset.sorts);
  const sort = () => panels.append(...[...panels.children].sort((a, b) => b.dataset[select.value] - a.dataset[select.value]));
  select.addEventListener("change", sort);
  sort();
}

const dialog = document.querySelector("dialog");
dialog.querySelector(".close").addEventListener("click", () => dialog.close());
dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });
document.addEventListener("click", (event) => {
  const button = event.target.closest(".enlarge");
  if (!button) return;
  const copy = button.closest("figure").cloneNode(true);
  for (const values of copy.querySelectorAll(".values")) values.hidden = false;
  dialog.lastElementChild.replaceChildren(copy);
  dialog.setAttribute("aria-label", copy.querySelector("figcaption").textContent);
  dialog.showModal();
});
