// Keeps the whole app in the browser, so that it starts without a network.  FILES and VERSION are written by softedge.

const FILES = [/* files */];
const OURS = `softedge ${registration.scope} `; // other apps may share this host
const VERSION = `${OURS}/* version */`;
// Isolated pages get threads; static hosts rarely send these headers.
const ISOLATED = {
  "Cross-Origin-Opener-Policy": "same-origin",
  "Cross-Origin-Embedder-Policy": "require-corp",
  "Cross-Origin-Resource-Policy": "same-origin",
  "Content-Security-Policy": "/* policy */",
};

async function fetched(file) {
  for (let left = 2; ; left--) { // a phone's network comes and goes
    try {
      const answer = await fetch(file, { cache: "reload" });
      if (!answer.ok) throw new Error(`${answer.status}`);
      return answer;
    } catch {
      if (!left) throw new Error("a file could not be fetched");
      await new Promise((resolve) => setTimeout(resolve, 1000));
    }
  }
}

async function keepAll() {
  const cache = await caches.open(VERSION);
  for (const file of FILES) {
    const answer = await fetched(file);
    try {
      await cache.put(file, answer);
    } catch { // the quota, or a full disk: browsers name the latter differently
      throw new Error("too little free storage");
    }
  }
}

addEventListener("install", (event) => {
  const install = async () => {
    try {
      await keepAll();
    } catch (error) {
      const all = await clients.matchAll({ includeUncontrolled: true });
      for (const client of all) client.postMessage({ notKept: error.message });
      await caches.delete(VERSION);
      throw error;
    }
    await skipWaiting();
  };
  event.waitUntil(install());
});

addEventListener("activate", (event) => {
  const clean = async () => {
    for (const name of await caches.keys()) if (name !== VERSION && name.startsWith(OURS)) await caches.delete(name);
    await clients.claim();
  };
  event.waitUntil(clean());
});

async function answer(request) {
  const found = await (await caches.open(VERSION)).match(request, { ignoreSearch: true });
  if (!found) return fetch(request);
  const headers = new Headers(found.headers);
  headers.delete("Content-Encoding"); // what is kept is unpacked
  headers.delete("Content-Length");
  for (const [name, value] of Object.entries(ISOLATED)) headers.set(name, value);
  return new Response(found.body, { status: 200, headers });
}

addEventListener("fetch", (event) => {
  if (event.request.method === "GET" && new URL(event.request.url).origin === location.origin) {
    event.respondWith(answer(event.request));
  }
});
