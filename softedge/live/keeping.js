// Pictures that were answered wrongly, with the right label: sent to the computer, or kept here until downloaded.

const STORE = `corrections ${new URL("./", location.href).pathname}`; // other apps may share this host

// In one tab and its reloads the same.
export function session() {
  let made = sessionStorage.getItem("session");
  if (!made) {
    made = Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
    sessionStorage.setItem("session", made);
  }
  return made;
}

// The number of pictures kept so far.  picture: a Blob.  label: an index.
export async function send(picture, label) {
  let answer;
  try {
    const body = new Blob([JSON.stringify({ label }), "\n", picture]);
    answer = await fetch(`wrong?s=${session()}`, { method: "POST", body });
  } catch {
    throw new Error("The computer does not answer. Is softedge try still running there?");
  }
  const said = await answer.json();
  if (!answer.ok) throw new Error(said.error);
  return said.kept;
}

export async function keep(picture, folder) {
  const store = await caches.open(STORE);
  const ending = picture.type === "image/png" ? "png" : picture.type === "image/webp" ? "webp" : "jpg";
  const name = `${Date.now()}-${Math.floor(1e6 * Math.random())}.${ending}`;
  await store.put(`corrections/${encodeURIComponent(folder)}/${name}`, new Response(picture));
  return (await store.keys()).length;
}

export async function countKept() {
  return (await (await caches.open(STORE)).keys()).length;
}

export const forget = () => caches.delete(STORE);

// All kept pictures as a ZIP with one folder a label.
export async function download() {
  const store = await caches.open(STORE);
  const files = [];
  for (const request of await store.keys()) {
    const [folder, name] = new URL(request.url).pathname.split("/").slice(-2);
    const data = new Uint8Array(await (await store.match(request)).arrayBuffer());
    files.push({ name: `corrections/${decodeURIComponent(folder)}/${name}`, data });
  }
  return new Blob(zip(files), { type: "application/zip" });
}

const CRC = Uint32Array.from({ length: 256 }, (_, n) => {
  for (let k = 0; k < 8; k++) n = n & 1 ? (n >>> 1) ^ 0xedb88320 : n >>> 1;
  return n >>> 0;
});

function crc32(data) {
  let crc = 0xffffffff;
  for (const byte of data) crc = CRC[(crc ^ byte) & 255] ^ (crc >>> 8);
  return (crc ^ 0xffffffff) >>> 0;
}

// PKWARE's APPNOTE, 4.3: stored entries (pictures do not shrink), then the directory.
function zip(files) {
  const parts = [];
  const directory = [];
  let at = 0;
  for (const { name, data } of files) {
    const path = new TextEncoder().encode(name);
    const common = new DataView(new ArrayBuffer(26)); // what both headers hold, from "version needed" on
    [20, 0x0800, 0, 0, 0x21].forEach((value, i) => common.setUint16(2 * i, value, true)); // UTF-8; 1 January 1980
    [crc32(data), data.length, data.length].forEach((value, i) => common.setUint32(10 + 4 * i, value, true));
    common.setUint16(22, path.length, true);
    const more = new DataView(new ArrayBuffer(14)); // comment, disk, attributes: none; where the entry begins
    more.setUint32(10, at, true);
    parts.push(signature(0x04034b50), common.buffer, path, data);
    directory.push(signature(0x02014b50), new Uint8Array([20, 0]), common.buffer, more.buffer, path);
    at += 30 + path.length + data.length;
  }
  const size = directory.reduce((sum, part) => sum + part.byteLength, 0);
  const end = new DataView(new ArrayBuffer(18));
  end.setUint16(4, files.length, true);
  end.setUint16(6, files.length, true);
  end.setUint32(8, size, true);
  end.setUint32(12, at, true);
  return [...parts, ...directory, signature(0x06054b50), end.buffer];
}

function signature(number) {
  const view = new DataView(new ArrayBuffer(4));
  view.setUint32(0, number, true);
  return view.buffer;
}
