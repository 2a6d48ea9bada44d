// The list of conversions: selecting rows with keys, and how many are selected.
"use strict";
(() => {
  const form = document.getElementById("chosen");
  const all = document.getElementById("all");
  if (!form || !all) return;
  const boxes = [...form.querySelectorAll("tbody input[name=id]")];
  const buttons = [...form.querySelectorAll("button[name=action]")];
  const count = document.getElementById("count");
  let last = -1;

  function show() {
    const picked = boxes.filter((box) => box.checked).length;
    for (const box of boxes) box.closest("tr").classList.toggle("picked", box.checked);
    for (const button of buttons) button.disabled = picked === 0;
    all.checked = picked === boxes.length;
    all.indeterminate = picked > 0 && picked < boxes.length;
    count.textContent = picked ? `${picked} selected:` : "Select some, or all:";
  }

  function pickAll(isPicked) {
    for (const box of boxes) box.checked = isPicked;
    show();
  }

  all.addEventListener("change", () => pickAll(all.checked));
  form.addEventListener("click", (event) => {
    const place = boxes.indexOf(event.target);
    if (place < 0) return;
    if (event.shiftKey && last >= 0) { // as in lists of mail: from the last one to this one
      for (const box of boxes.slice(Math.min(place, last), Math.max(place, last) + 1)) box.checked = event.target.checked;
    }
    last = place;
    show();
  });
  // What is sent is what is ticked, not whatever stands on the page.
  form.addEventListener("submit", () => { all.disabled = true; });
  addEventListener("pageshow", () => { all.disabled = false; show(); });

  let afterG = 0; // g and a letter opens a page: that letter is not ours
  document.addEventListener("keydown", (event) => {
    const field = event.target.closest("input:not([type=checkbox]), textarea, select, dialog");
    if (field || event.ctrlKey || event.metaKey || event.altKey) return;
    if (afterG && Date.now() - afterG < 1500) { afterG = 0; return; }
    afterG = event.key === "g" ? Date.now() : 0;
    const here = boxes.indexOf(document.activeElement);
    if (event.key === "j" || event.key === "k") {
      const next = here < 0 ? 0 : Math.min(Math.max(here + (event.key === "j" ? 1 : -1), 0), boxes.length - 1);
      boxes[next].focus();
    } else if (event.key === "x" && here >= 0) {
      boxes[here].checked = !boxes[here].checked;
      last = here;
      show();
    } else if (event.key === "*") {
      pickAll(!boxes.every((box) => box.checked));
    } else {
      form.querySelector(`button[data-key="${CSS.escape(event.key)}"]:enabled`)?.click();
    }
  });
  show();
})();
