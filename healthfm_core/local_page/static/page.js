"use strict";

/* A one-time link ends with #secret, which no server and no log sees: it becomes a form. */
function signInByLink() {
  const form = document.getElementById("sign-in");
  const secret = location.hash.slice(1);
  if (!form || !secret) return;
  history.replaceState(null, "", location.pathname);
  form.elements.token.value = secret;
  form.submit();
}

/* Puts the new content of one part in place; where the keyboard is, and what is open, stays. */
function place(part) {
  const element = document.getElementById(part.id);
  if (!element) return false;
  if (element.dataset.digest === part.digest) return true;
  const focused = element.contains(document.activeElement) ? document.activeElement : null;
  const all = "a, button, summary, [tabindex]";
  const at = focused ? [...element.querySelectorAll(all)].indexOf(focused) : -1;
  const open = [...element.querySelectorAll("details")].map((one) => one.open);
  const scrolled = [...element.querySelectorAll(".scroll")].map((one) => one.scrollLeft);
  element.innerHTML = part.html; /* escaped where it was rendered */
  element.dataset.digest = part.digest;
  element.querySelectorAll("details").forEach((one, n) => (one.open = Boolean(open[n])));
  element.querySelectorAll(".scroll").forEach((one, n) => (one.scrollLeft = scrolled[n] || 0));
  const again = at < 0 ? null : element.querySelectorAll(all)[at];
  if (again) again.focus();
  return true;
}

function watch(holder) {
  const lost = document.createElement("p");
  lost.className = "lost";
  lost.setAttribute("role", "status");
  const events = new EventSource(holder.dataset.live);
  events.onmessage = (event) => {
    if (!place(JSON.parse(event.data))) location.reload(); /* a site that is new has no row */
    ago();
  };
  events.onopen = () => lost.remove();
  events.onerror = () => {
    lost.textContent = "The page is not connected: what it shows may be old. It tries again.";
    holder.prepend(lost);
  };
  events.addEventListener("over", () => {
    events.close();
    location.reload();
  });
  addEventListener("pagehide", () => events.close());
}

/* How long ago each time was that asks for it. */
function ago() {
  for (const time of document.querySelectorAll("time[data-ago]")) {
    const seconds = Math.max(0, Math.round((Date.now() - Date.parse(time.dateTime)) / 1000));
    const units = [[86400, "d"], [3600, "h"], [60, "min"], [1, "s"]];
    const [length, name] = units.find(([each]) => seconds >= each) || units[3];
    time.textContent = `${Math.floor(seconds / length)} ${name}`;
    time.title = time.dateTime;
  }
}

signInByLink();
for (const one of document.querySelectorAll("[data-newest-right]")) one.scrollLeft = one.scrollWidth;
document.querySelectorAll("[data-live]").forEach(watch);
if (document.querySelector("time[data-ago]")) setInterval(ago, 1000);
ago();

/* A small file goes with the form, as text in a field of its own. */
for (const chosen of document.querySelectorAll("input[type=file][data-into]")) {
  const field = document.getElementById(chosen.dataset.into);
  const form = chosen.form;
  form.addEventListener("submit", async (event) => {
    const file = chosen.files[0];
    if (!file || field.dataset.of === file.name + file.lastModified) return;
    event.preventDefault();
    const bytes = new Uint8Array(await file.arrayBuffer());
    field.value = btoa(Array.from(bytes, (byte) => String.fromCharCode(byte)).join(""));
    field.dataset.of = file.name + file.lastModified;
    form.requestSubmit();
  });
}
