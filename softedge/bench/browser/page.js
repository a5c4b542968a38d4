// The visible half: says who this browser is, shows progress and results, notices when the page leaves the front.
// The measuring half is worker.js, so that neither disturbs the other.

const BEAT_MS = 2000;
const element = (id) => document.getElementById(id);
const session = sessionStorage.getItem("session") || newSession();
let worker = null;
let progress = 0;
let hiddenSince = null;
let hiddenMs = 0;
let over = false;

function newSession() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  const made = Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
  sessionStorage.setItem("session", made); // a reload of this tab is the same browser
  return made;
}

async function post(name, value) {
  const answer = await fetch(`${name}?s=${session}`, {
    method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(value),
  });
  const told = await answer.json();
  if (!answer.ok) throw new Error(told.error || `the computer answered ${answer.status}`);
  return told;
}

function say(text) { element("status").textContent = text; }

function warn(text) {
  element("warning").textContent = text;
  element("warning").hidden = false;
}

function show(fraction) {
  progress = Math.max(0, Math.min(1, fraction));
  const percent = Math.round(100 * progress);
  element("fill").style.width = `${percent}%`;
  element("bar").setAttribute("aria-valuenow", String(percent));
  document.title = over ? "softedge benchmark" : `${percent}% · softedge`;
}

function end(kind, text) {
  over = true;
  document.body.className = kind;
  element("hint").hidden = true;
  say(text.charAt(0).toUpperCase() + text.slice(1));
  show(kind === "finished" ? 1 : progress);
  if (kind !== "finished") document.title = element("status").textContent; // seen in the list of tabs, too
  if (worker) worker.terminate();
}

// The smallest step of the clock: 0.005 ms in isolated pages, 0.1 to 1 ms elsewhere.
function timerResolution() {
  let smallest = Infinity;
  const until = performance.now() + 40;
  for (let last = performance.now(); last < until;) {
    const now = performance.now();
    if (now > last) { smallest = Math.min(smallest, now - last); last = now; }
  }
  return Number.isFinite(smallest) ? smallest : 40;
}

async function about() {
  const data = navigator.userAgentData;
  const more = data ? await data.getHighEntropyValues(["model", "platformVersion"]).catch(() => ({})) : {};
  const adapter = navigator.gpu ? await navigator.gpu.requestAdapter().catch(() => null) : null;
  const info = adapter && adapter.info ? `${adapter.info.vendor} ${adapter.info.architecture}`.trim() : "";
  const told = {
    user_agent: navigator.userAgent.slice(0, 400),
    platform: data ? `${data.platform} ${more.platformVersion || ""}`.trim() : navigator.platform || "",
    model: more.model || "",
    screen: `${screen.width} x ${screen.height} at ${devicePixelRatio}`,
    secure_context: isSecureContext,
    cross_origin_isolated: Boolean(self.crossOriginIsolated),
    webgpu: adapter ? info || "unnamed adapter" : "",
    wake_lock: "wakeLock" in navigator,
    timer_resolution_ms: timerResolution(),
  };
  if (navigator.hardwareConcurrency) told.cores = navigator.hardwareConcurrency;
  if (navigator.deviceMemory) told.memory_gb = navigator.deviceMemory;
  return told;
}

function list(values) {
  for (const [key, value] of Object.entries(values)) {
    const term = document.createElement("dt");
    const text = document.createElement("dd");
    term.textContent = key.replaceAll("_", " ");
    text.textContent = value === "" ? "–" : typeof value === "number" ? String(+value.toFixed(3)) : String(value);
    element("about").append(term, text);
  }
}

async function stayAwake() {
  try {
    await navigator.wakeLock.request("screen");
  } catch {
    warn("This browser cannot keep the screen on by itself here: touch the screen now and then.");
  }
}

document.addEventListener("visibilitychange", () => {
  if (over || !worker) return;
  if (document.hidden) {
    hiddenSince = performance.now();
  } else if (hiddenSince !== null) {
    hiddenMs += performance.now() - hiddenSince;
    hiddenSince = null;
    warn("This page was in the background while it measured: the times do not count. Run the benchmark once more.");
    stayAwake();
  }
  beat();
});

addEventListener("pagehide", () => { if (!over) navigator.sendBeacon(`gone?s=${session}`, "{}"); });

function beat() {
  if (!over) post("beat", { progress, hidden: document.hidden }).catch(() => {});
}

function measure(job) {
  return new Promise((resolve, reject) => {
    worker = new Worker("worker.js", { type: "module" });
    worker.onmessage = ({ data }) => {
      if (data.progress !== undefined) { say(data.what); show(data.progress); }
      if (data.answer) resolve(data.answer);
      if (data.error) reject(new Error(data.error));
    };
    worker.onerror = (event) => reject(new Error(event.message || "the worker script did not start"));
    worker.postMessage({ job, session });
  });
}

function table(summary) {
  for (const row of summary.rows) {
    const line = element("rows").insertRow();
    const name = document.createElement("th");
    name.scope = "row";
    name.textContent = row.name;
    line.append(name);
    if (row.why) {
      const cell = line.insertCell();
      cell.colSpan = 3;
      cell.className = "why";
      cell.textContent = row.why;
    } else {
      for (const value of [row.p50_ms.toFixed(2), row.p90_ms.toFixed(2), row.n]) line.insertCell().textContent = value;
    }
  }
  for (const note of summary.notes) {
    const item = document.createElement("li");
    item.textContent = note;
    element("notes").append(item);
  }
  element("results").hidden = false;
}

async function next() {
  for (;;) {
    const told = await post("next", {});
    if (told.job) return told.job;
    if (told.over) throw new Error(told.over);
    await new Promise((resolve) => setTimeout(resolve, 500));
  }
}

async function main() {
  const told = await about();
  list(told);
  await post("hello", told);
  say("Connected. Waiting for your computer …");
  const job = await next();
  await stayAwake();
  hiddenSince = document.hidden ? performance.now() : null;
  setInterval(beat, BEAT_MS);
  const answer = await measure(job);
  if (hiddenSince !== null) hiddenMs += performance.now() - hiddenSince;
  const summary = await post("answer", { ...answer, hidden_ms: hiddenMs });
  end("finished", "Done");
  table(summary);
}

main().catch((error) => {
  const text = error instanceof TypeError ? "The computer does not answer any more." : error.message;
  if (!over) post("failed", { reason: text.slice(0, 400) }).catch(() => {});
  end("failed", text);
});
