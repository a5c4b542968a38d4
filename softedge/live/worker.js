// Loads the model with onnxruntime-web, checks it, and answers pictures one by one; apart from the page, which stays fluid.

import { finished } from "./integers.js";
import { prepare } from "./pixels.js";
import { sha256 } from "./sha256.js";

let about, ort, session;

async function bytes(name) {
  const answer = await fetch(name);
  if (!answer.ok) throw new Error(`${name} could not be fetched (${answer.status})`);
  return new Uint8Array(await answer.arrayBuffer());
}

// The browser's own, thirty times as fast, is there on secure pages only.
async function hash(file) {
  if (!self.crypto || !self.crypto.subtle) return sha256(file);
  const digest = new Uint8Array(await self.crypto.subtle.digest("SHA-256", file));
  return Array.from(digest, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

async function load(given) {
  about = given;
  const file = await bytes("model.onnx");
  if (await hash(file) !== about.sha256) throw new Error("The model file is damaged: its hash is not the exported file's.");
  ort = await import("./ort/ort.wasm.min.mjs");
  ort.env.wasm.wasmPaths = new URL("./ort/", import.meta.url).href;
  ort.env.wasm.numThreads = self.crossOriginIsolated ? Math.min(4, navigator.hardwareConcurrency || 1) : 1;
  ort.env.logLevel = "error";
  session = await ort.InferenceSession.create(file, { executionProviders: ["wasm"], logSeverityLevel: 3 });
  const { size } = about.preprocessing;
  await infer(new Uint8Array(3 * size * size)); // the first inference is slower: not the one to show
  return { threads: ort.env.wasm.numThreads || 1 };
}

// pixels: Uint8Array (size, size, 3).
async function infer(pixels) {
  const { size } = about.preprocessing;
  const tensor = new ort.Tensor("uint8", pixels, [1, size, size, 3]);
  const begun = performance.now();
  const outputs = await session.run({ [session.inputNames[0]]: tensor });
  const took = performance.now() - begun;
  const { data } = outputs[session.outputNames[0]];
  return { probabilities: Array.from(about.integers ? finished(data, about.integers) : data), ms: took };
}

// The golden images of the contract, in turns with pictures that are asked for meanwhile.
async function replay() {
  const images = await bytes("golden.bin");
  const { size } = about.preprocessing;
  const length = 3 * size * size;
  const found = [];
  for (let i = 0; i < about.golden.length; i++) {
    await new Promise((resolve) => setTimeout(resolve));
    found.push((await infer(images.slice(i * length, (i + 1) * length))).probabilities);
  }
  const gaps = found.flatMap((values, i) => values.map((value, k) => Math.abs(value - about.golden[i][k])));
  return { found, largest: Math.max(0, ...gaps) };
}

async function classify({ rgba, width, height }) {
  const begun = performance.now();
  const pixels = prepare(rgba, width, height, about.preprocessing);
  const prepareMs = performance.now() - begun;
  return { ...await infer(pixels), prepareMs, pixels };
}

const WORK = { load, replay, classify };

onmessage = async ({ data: { id, work, value } }) => {
  try {
    postMessage({ id, result: await WORK[work](value) });
  } catch (error) { // any kind: runtimes throw strings and numbers too
    postMessage({ id, error: String((error && error.message) || error).replace(/\s+/g, " ").slice(0, 400) });
  }
};
