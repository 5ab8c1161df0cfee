"use strict";
(() => {
  const tip = document.getElementById("tip");
  let active = null;

  const place = (x, y) => {
    const box = tip.getBoundingClientRect();
    tip.style.left = Math.max(6, Math.min(x + 14, innerWidth - box.width - 6)) + "px";
    tip.style.top = (y + 18 + box.height > innerHeight ? y - box.height - 10 : y + 18) + "px";
  };
  const say = (text, x, y) => { tip.textContent = text; tip.hidden = false; place(x, y); };
  const hush = () => {
    tip.hidden = true;
    if (active) active.classList.remove("active");
    active = null;
  };
  const show = (mark) => {
    hush();
    active = mark;
    mark.classList.add("active");
    const box = mark.getBoundingClientRect();
    say(mark.dataset.tip, box.x + box.width / 2, box.y + box.height / 2);
  };

  // Browsers would show a <title> beside our own tooltip; screen readers keep it as a label.
  document.querySelectorAll("svg .mark > title").forEach((title) => {
    const mark = title.parentElement;
    mark.dataset.tip = title.textContent;
    mark.setAttribute("aria-label", title.textContent);
    mark.setAttribute("role", "img");
    title.remove();
  });

  const walk = (svg) => {
    const marks = [...svg.querySelectorAll(".mark")];
    svg.addEventListener("pointerover", (event) => {
      if (event.target.classList.contains("mark")) show(event.target);
    });
    svg.addEventListener("pointerleave", hush);
    svg.addEventListener("focusout", hush);
    svg.addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
      if (event.key === "Escape") hush();
      if (!step || !marks.length) return;
      event.preventDefault();
      const at = marks.indexOf(active);
      show(marks[at < 0 ? (step > 0 ? 0 : marks.length - 1) : (at + step + marks.length) % marks.length]);
    });
  };

  const walkCells = (svg, data) => {
    const names = data.names, size = names.length;
    const bytes = Uint8Array.from(atob(data.values), (c) => c.charCodeAt(0));
    const values = new Int8Array(bytes.buffer);
    const image = svg.querySelector(".cells"), cursor = svg.querySelector(".cursor");
    const [left, top, side] = ["x", "y", "width"].map((name) => Number(image.getAttribute(name)));
    let row = 0, column = -1;
    const at = (r, c) => {
      row = r; column = c;
      const cell = side / size, box = image.getBoundingClientRect();
      const shape = { x: left + c * cell, y: top + r * cell, width: cell, height: cell };
      Object.entries(shape).forEach(([name, value]) => cursor.setAttribute(name, value));
      const text = r === c ? names[r] : names[r] + "\n" + names[c] + "\n" + (values[r * size + c] / 100).toFixed(2);
      say(text, box.x + ((c + 0.5) / size) * box.width, box.y + ((r + 0.5) / size) * box.height);
    };
    const leave = () => { hush(); cursor.setAttribute("width", 0); };
    image.addEventListener("pointermove", (event) => {
      const box = image.getBoundingClientRect();
      const index = (value, start, length) => Math.max(0, Math.min(size - 1, Math.floor(((value - start) / length) * size)));
      at(index(event.clientY, box.y, box.height), index(event.clientX, box.x, box.width));
    });
    svg.addEventListener("pointerleave", leave);
    svg.addEventListener("focusout", leave);
    svg.addEventListener("keydown", (event) => {
      const step = { ArrowRight: [0, 1], ArrowLeft: [0, -1], ArrowDown: [1, 0], ArrowUp: [-1, 0] }[event.key];
      if (event.key === "Escape") leave();
      if (!step) return;
      event.preventDefault();
      at((row + step[0] + size) % size, (Math.max(column, 0) + step[1] + size) % size);
    });
  };

  document.querySelectorAll("svg.figure").forEach((svg) => {
    const data = svg.parentElement.querySelector(".cell-data");
    if (data) walkCells(svg, JSON.parse(data.textContent));
    else walk(svg);
  });
  addEventListener("scroll", hush, { passive: true });
  // Everything is on paper: what is folded is opened for printing, and closed again.
  addEventListener("beforeprint", () => document.querySelectorAll("details:not([open])").forEach((d) => { d.dataset.folded = ""; d.open = true; }));
  addEventListener("afterprint", () => document.querySelectorAll("details[data-folded]").forEach((d) => { delete d.dataset.folded; d.open = false; }));
})();
