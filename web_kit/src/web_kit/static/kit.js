// Keeps parts of a page up to date: by asking again, or by what the server sends (SSE). Pages work without it.
"use strict";

function put(part, html) {
  // What is open, and what has the focus, stays so.
  if (part.contains(document.activeElement) && document.activeElement !== part) return;
  const open = new Set([...part.querySelectorAll("details[open][id]")].map((one) => one.id));
  part.innerHTML = html;
  for (const one of part.querySelectorAll("details[id]")) one.open = one.open || open.has(one.id);
}

for (const part of document.querySelectorAll("[data-refresh]")) {
  setInterval(async () => {
    if (document.hidden) return;
    try {
      const answer = await fetch(part.dataset.refresh, { headers: { "X-Part": "1" }, redirect: "error" });
      if (answer.ok) put(part, await answer.text());
      part.classList.toggle("stale", !answer.ok);
    } catch {
      part.classList.add("stale");
    }
  }, 1000 * Number(part.dataset.every || 10));
}

for (const part of document.querySelectorAll("[data-live]")) {
  const source = new EventSource(part.dataset.live);
  let lost;
  source.onmessage = (event) => put(part, event.data);
  // The server ends each answer after a while, and is asked again: only what stays away is told.
  source.onerror = () => { lost ??= setTimeout(() => part.classList.add("stale"), 3000); };
  source.onopen = () => {
    clearTimeout(lost);
    lost = undefined;
    part.classList.remove("stale");
  };
  source.addEventListener("end", () => {
    source.close();
    location.reload();
  });
}
