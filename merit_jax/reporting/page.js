"use strict";
(() => {
  const tip = document.getElementById("tip");
  let active = null;

  const hush = () => {
    tip.hidden = true;
    if (active) active.classList.remove("active");
    active = null;
  };
  const say = (text, x, y) => {
    tip.textContent = text;
    tip.hidden = false;
    const box = tip.getBoundingClientRect();
    tip.style.left = Math.max(6, Math.min(x + 14, innerWidth - box.width - 6)) + "px";
    tip.style.top = (y + 18 + box.height > innerHeight ? y - box.height - 10 : y + 18) + "px";
  };
  const show = (mark) => {
    hush();
    active = mark;
    mark.classList.add("active");
    const box = mark.getBoundingClientRect();
    say(mark.getAttribute("aria-label"), box.x + box.width / 2, box.y + box.height / 2);
  };

  // A figure's marks are reached by the arrow keys too.
  const walk = (svg, columns) => {
    const marks = () => [...svg.querySelectorAll(".mark-symbol.role-mark > [aria-label], .mark-rect.role-mark > [aria-label]")];
    svg.setAttribute("tabindex", 0);
    svg.addEventListener("focusout", hush);
    svg.addEventListener("keydown", (event) => {
      const all = marks(), at = all.indexOf(active);
      const step = { ArrowRight: 1, ArrowDown: columns, ArrowLeft: -1, ArrowUp: -columns }[event.key];
      if (event.key === "Escape") hush();
      if (!step || !all.length) return;
      event.preventDefault();
      show(all[at < 0 ? (step > 0 ? 0 : all.length - 1) : (at + step + all.length) % all.length]);
    });
  };

  const options = {
    mode: "vega-lite", renderer: "svg", actions: false, defaultStyle: false, ast: true,
    tooltip: (handler, event, item, text) => (text ? say(text, event.clientX, event.clientY) : hush()),
  };
  document.querySelectorAll("figure.plot").forEach(async (figure) => {
    const spec = JSON.parse(figure.querySelector("script").textContent);
    await vegaEmbed(figure.querySelector(".chart"), spec, options);
    walk(figure.querySelector("svg"), spec.usermeta?.columns ?? 1);
  });
  addEventListener("scroll", hush, { passive: true });
  // Everything is on paper: what is folded is opened for printing, and closed again.
  addEventListener("beforeprint", () => document.querySelectorAll("details:not([open])").forEach((d) => { d.dataset.folded = ""; d.open = true; }));
  addEventListener("afterprint", () => document.querySelectorAll("details[data-folded]").forEach((d) => { delete d.dataset.folded; d.open = false; }));
})();
