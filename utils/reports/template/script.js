"use strict";

// Videos: one button and one slider for all. Frame k of n shows t = k / (n - 1).
(() => {
  const section = document.querySelector("[data-frames-per-second]");
  const [button, slider, readout] = ["play", "time", "now"].map((id) => document.getElementById(id));
  const videos = [...section.querySelectorAll("video")];
  if (!videos.length) return;
  const frameSeconds = 1 / Number(section.dataset.framesPerSecond);
  const last = (video) => Math.max(1, Math.round(video.duration / frameSeconds) - 1);
  const usable = () => videos.filter((video) => video.readyState > 0 && !video.error);
  let playing = false;

  function show(t) {
    slider.value = t;
    readout.textContent = t.toFixed(2);
    slider.setAttribute("aria-valuetext", `t = ${t.toFixed(2)}`);
  }

  function place(video, t) {
    video.currentTime = (Math.round(t * last(video)) + 0.5) * frameSeconds; // the middle of the frame
  }

  function timeOf(video) {
    return Math.min(1, Math.floor(video.currentTime / frameSeconds) / last(video));
  }

  function seek(t) {
    const [leader] = usable();
    usable().forEach((video) => place(video, t));
    show(leader ? Math.round(t * last(leader)) / last(leader) : t);
  }

  function stop() {
    playing = false;
    button.textContent = "Play";
    videos.forEach((video) => video.pause());
    const [leader] = usable();
    if (leader) seek(timeOf(leader)); // all on the same frame
  }

  function start() {
    const [leader] = usable();
    if (!leader) return;
    if (timeOf(leader) >= 1) seek(0);
    playing = true;
    button.textContent = "Pause";
    usable().forEach((video) => video.play().catch(() => {})); // pausing before it started is no error
    requestAnimationFrame(follow);
  }

  function follow() {
    if (!playing) return;
    const [leader, ...others] = usable();
    if (!leader || leader.ended || leader.paused) return stop();
    show(timeOf(leader));
    for (const video of others) {
      const drift = Math.abs(video.currentTime - leader.currentTime);
      if (drift > 1.5 * frameSeconds && !video.seeking) video.currentTime = leader.currentTime;
    }
    requestAnimationFrame(follow);
  }

  function ready(video) {
    slider.step = Math.floor(1e6 / last(video)) / 1e6; // one frame, rounded down so that the last can be reached
    place(video, Number(slider.value));
  }

  function failed(video) {
    video.hidden = true;
    video.nextElementSibling.hidden = false;
  }

  for (const video of videos) {
    video.addEventListener("loadedmetadata", () => ready(video));
    video.addEventListener("error", () => failed(video));
    if (video.readyState > 0) ready(video);
    if (video.error) failed(video);
  }
  button.addEventListener("click", () => (playing ? stop() : start()));
  slider.addEventListener("input", () => {
    const t = Number(slider.value);
    if (playing) stop();
    seek(t);
  });
})();

// Tables: numbers by value, and what has none last, whatever the direction.
for (const table of document.querySelectorAll("table.sortable")) {
  const headers = [...table.tHead.rows[0].cells];
  headers.forEach((header, column) => {
    header.querySelector("button").addEventListener("click", () => {
      const direction = header.getAttribute("aria-sort") === "ascending" ? "descending" : "ascending";
      headers.forEach((other) => other.setAttribute("aria-sort", other === header ? direction : "none"));
      const sign = direction === "ascending" ? 1 : -1;
      const body = table.tBodies[0];
      body.append(...[...body.rows].sort((a, b) => compare(a.cells[column], b.cells[column], sign)));
    });
  });
}

function compare(a, b, sign) {
  const [left, right] = [a.dataset.value, b.dataset.value];
  if (left === undefined) return sign * a.textContent.localeCompare(b.textContent);
  const known = [left, right].map((text) => text !== "" && Number.isFinite(Number(text)));
  return known[0] && known[1] ? sign * (Number(left) - Number(right)) : known[1] - known[0];
}

// Definitions: shown beside a column's name under the pointer or in focus; Escape closes.
(() => {
  const box = document.getElementById("explanation");
  let closing = 0;
  let header = null;

  function open(button) {
    clearTimeout(closing);
    header = button.closest("th");
    box.textContent = document.getElementById(button.getAttribute("aria-describedby")).textContent;
    box.hidden = false;
    place();
  }

  function place() {
    if (box.hidden) return;
    const { left, bottom } = header.getBoundingClientRect();
    box.style.left = `${Math.max(8, Math.min(left, document.documentElement.clientWidth - box.offsetWidth - 8))}px`;
    box.style.top = `${bottom + 4}px`;
  }

  function close() {
    clearTimeout(closing);
    box.hidden = true;
  }

  const closeSoon = () => (closing = setTimeout(close, 200)); // time to move the pointer onto the text
  for (const button of document.querySelectorAll("th [aria-describedby]")) {
    button.addEventListener("mouseenter", () => open(button));
    button.addEventListener("mouseleave", closeSoon);
    button.addEventListener("focus", () => open(button));
    button.addEventListener("blur", close);
  }
  box.addEventListener("mouseenter", () => clearTimeout(closing));
  box.addEventListener("mouseleave", closeSoon);
  document.addEventListener("keydown", (event) => event.key === "Escape" && close());
  document.addEventListener("scroll", place, { capture: true, passive: true });
})();

// Paper has nothing to open.
addEventListener("beforeprint", () => {
  document.querySelectorAll("details").forEach((details) => (details.open = true));
  document.querySelectorAll("img").forEach((image) => (image.loading = "eager"));
});
