// The measuring half: loads the models with onnxruntime-web, lets them take turns, posts raw outputs and samples.
// The rules are those of Plan in device.py.

import { finished } from "./integers.js";
import { sha256 } from "./sha256.js";

const say = (progress, what) => postMessage({ progress, what });
const now = () => performance.now();
const AHEAD = 32; // images, about what a slice uses
const STEPS = 20; // of the clock in a sample: a step is then at most a twentieth of what is measured
const MOST_RUNS = 1000; // in a sample

onmessage = async ({ data }) => {
  try {
    postMessage({ answer: await run(data.job, data.session) });
  } catch (error) {
    postMessage({ error: words(error) });
  }
};

function words(error) {
  return String((error && error.message) || error).replace(/\s+/g, " ").slice(0, 400);
}

async function bytes(name) {
  const answer = await fetch(name);
  if (!answer.ok) throw new Error(`${name}: the computer answered ${answer.status}`);
  return new Uint8Array(await answer.arrayBuffer());
}

// Small and fast (mulberry32): the order of turns must only be reproducible.
function random(seed) {
  return () => {
    seed = (seed + 0x6d2b79f5) | 0;
    let t = Math.imul(seed ^ (seed >>> 15), 1 | seed);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
}

function shuffle(items, draw) {
  for (let i = items.length - 1; i > 0; i--) {
    const j = Math.floor(draw() * (i + 1));
    [items[i], items[j]] = [items[j], items[i]];
  }
  return items;
}

// The smallest step of the clock, in ms: 0.005 in isolated pages, 0.1 to 1 elsewhere.
function clockStep() {
  let smallest = Infinity;
  const until = now() + 40;
  for (let last = now(); last < until; ) {
    const next = now();
    if (next > last) { smallest = Math.min(smallest, next - last); last = next; }
  }
  return Number.isFinite(smallest) ? smallest : 40;
}

// The images arrive in pieces and only the last few stay: a phone has little memory.
class Images {
  constructor({ count, piece, shape }) {
    Object.assign(this, { count, piece, shape });
    this.size = shape.reduce((a, b) => a * b, 1);
    this.kept = new Map();
    this.most = Math.max(2, Math.floor((96 << 20) / (piece * this.size)));
  }

  async get(index) {
    const number = Math.floor(index / this.piece);
    let piece = this.kept.get(number);
    if (!piece) {
      piece = await bytes(`images/${number}`);
      if (this.kept.size >= this.most) this.kept.delete(this.kept.keys().next().value);
      this.kept.set(number, piece);
    }
    const start = (index - number * this.piece) * this.size;
    return piece.subarray(start, start + this.size);
  }
}

// A detector's answer as one row, as bench/board/detections.py makes it: x1 y1 x2 y2 score label of each; label -1: none.
function asRow({ boxes, scores, labels }, count = 100) {
  const row = new Float32Array(6 * count);
  for (let k = 0; k < count; k++) row[6 * k + 5] = -1;
  for (let k = 0; k < Math.min(count, scores.data.length); k++) {
    row.set(boxes.data.subarray(4 * k, 4 * k + 4), 6 * k);
    row[6 * k + 4] = scores.data[k];
    row[6 * k + 5] = Number(labels.data[k]); // of 64 bits
  }
  return row;
}

class Subject {
  constructor(ort, entry, job, images, step) {
    Object.assign(this, { ort, entry, job, images, step });
    this.row = { name: entry.name, sha256: "", skipped: "", samples_ms: [], rounds: [], end_to_end_ms: {} };
    this.row.runs_per_sample = 1;
    this.outputs = [];
    this.next = 0;
    this.spent = 0;
  }

  tensor(pixels) {
    return new this.ort.Tensor("uint8", pixels, [1, ...this.images.shape]);
  }

  async infer(tensor) {
    const answer = await this.session.run({ [this.input]: tensor });
    if (this.entry.detections) return asRow(answer);
    return this.entry.integers ? finished(answer[this.output].data, this.entry.integers) : answer[this.output].data;
  }

  async load() {
    const file = await bytes(this.entry.file);
    this.row.sha256 = sha256(file);
    let begun = now();
    const options = { executionProviders: [this.job.backend], logSeverityLevel: 3 };
    this.session = await this.ort.InferenceSession.create(file, options);
    this.row.load_ms = now() - begun;
    [this.input] = this.session.inputNames;
    [this.output] = this.session.outputNames;
    const first = this.tensor(await this.images.get(0));
    begun = now();
    await this.infer(first);
    this.row.first_ms = now() - begun;
    for (let i = 0; i < this.job.warmup; i++) await this.infer(this.tensor(await this.images.get(i % this.images.count)));
    this.row.runs_per_sample = await this.runsPerSample(first);
  }

  // How many runs are timed as one, so that a sample is long against a step of the clock.
  async runsPerSample(tensor) {
    const enough = STEPS * this.step;
    for (let runs = 1; ; runs *= 2) {
      const begun = now();
      for (let i = 0; i < runs; i++) await this.infer(tensor);
      const took = now() - begun;
      if (took >= enough || runs >= MOST_RUNS) return Math.min(MOST_RUNS, Math.ceil(runs * enough / took));
    }
  }

  portion() {
    // A model of microseconds would take more samples in the time asked for than the server accepts.
    if (this.row.samples_ms.length >= this.job.most_samples) return 1;
    const count = this.row.samples_ms.length / this.job.min_count;
    return Math.min(1, count, this.job.min_seconds ? this.spent / 1000 / this.job.min_seconds : count);
  }

  async round(number) {
    await this.images.get((this.next + AHEAD) % this.images.count); // no download in the middle of a slice
    await this.infer(this.tensor(await this.images.get(this.next % this.images.count)));
    for (let spent = 0, taken = 0; spent < this.job.slice_ms || taken < this.job.slice_count; taken++) {
      const [runs, tensors, outputs] = [this.row.runs_per_sample, [], []];
      for (let i = 0; i < runs; i++) tensors.push(this.tensor(await this.images.get((this.next + i) % this.images.count)));
      const begun = now();
      for (const tensor of tensors) outputs.push(await this.infer(tensor));
      const took = now() - begun;
      this.row.samples_ms.push(took / runs);
      this.row.rounds.push(number);
      const missing = Math.max(0, this.images.count - this.next);
      for (const output of outputs.slice(0, missing)) this.outputs.push(Float32Array.from(output));
      this.next += runs;
      this.spent += took;
      spent += Math.max(took, 0.1); // should the clock read 0 all the same, slices end
    }
  }

  async endToEnd(photos) {
    const { size, resize } = this.job.spec;
    if (!photos.length) { this.row.end_to_end_skipped = "nothing to decode end to end: no encoded images in this benchmark"; return; }
    if (typeof OffscreenCanvas === "undefined" || typeof createImageBitmap === "undefined") {
      this.row.end_to_end_skipped = "this browser has no OffscreenCanvas";
      return;
    }
    const canvas = new OffscreenCanvas(size, size);
    const pen = canvas.getContext("2d", { willReadFrequently: true });
    if (!pen) { this.row.end_to_end_skipped = "this browser draws no 2D OffscreenCanvas"; return; }
    pen.imageSmoothingQuality = "high";
    const samples = { decode: [], resize: [], model: [], total: [] };
    for (let i = -1; i < this.job.end_to_end_count; i++) { // the first one warms up
      const times = [now()];
      const bitmap = await createImageBitmap(photos[(i + photos.length) % photos.length]);
      times.push(now());
      const side = Math.min(bitmap.width, bitmap.height) * size / resize;
      pen.drawImage(bitmap, (bitmap.width - side) / 2, (bitmap.height - side) / 2, side, side, 0, 0, size, size);
      const rgba = pen.getImageData(0, 0, size, size).data;
      const pixels = new Uint8Array(3 * size * size);
      for (let from = 0, to = 0; from < rgba.length; from += 4) {
        pixels[to++] = rgba[from];
        pixels[to++] = rgba[from + 1];
        pixels[to++] = rgba[from + 2];
      }
      times.push(now());
      await this.infer(this.tensor(pixels));
      times.push(now());
      bitmap.close();
      if (i < 0) continue;
      ["decode", "resize", "model"].forEach((key, k) => samples[key].push(times[k + 1] - times[k]));
      samples.total.push(times[3] - times[0]);
    }
    this.row.end_to_end_ms = samples;
  }

  async classify(index) {
    if (this.outputs.length > index) return; // seen while timing
    this.outputs.push(Float32Array.from(await this.infer(this.tensor(await this.images.get(index)))));
  }

  async finish(session) {
    const width = this.outputs[0].length;
    const all = new Float32Array(this.images.count * width);
    this.outputs.forEach((output, i) => all.set(output, i * width));
    const answer = await fetch(`${this.entry.outputs}?s=${session}`, { method: "POST", body: all });
    if (!answer.ok) throw new Error((await answer.json()).error);
    await this.session.release();
  }
}

async function run(job, session) {
  const begun = now();
  say(0, "Fetching onnxruntime-web …");
  const ort = await import(`./ort/${job.module}`);
  ort.env.wasm.wasmPaths = new URL("./ort/", import.meta.url).href;
  ort.env.wasm.numThreads = job.threads;
  ort.env.logLevel = "error";
  // Starting the runtime is not part of any model's load time.
  const tiny = await ort.InferenceSession.create(await bytes("tiny.onnx"), { executionProviders: [job.backend] });
  await tiny.release();
  const images = new Images(job.images);
  const step = clockStep();
  const subjects = job.artifacts.map((entry) => new Subject(ort, entry, job, images, step));
  let live = [...subjects];
  const attempt = async (subject, work) => {
    try {
      await work();
    } catch (error) { // any kind: runtimes throw strings and numbers too
      subject.row = { ...subject.row, skipped: words(error), samples_ms: [], rounds: [], end_to_end_ms: {} };
      live = live.filter((other) => other !== subject);
    }
  };
  for (const [i, subject] of subjects.entries()) {
    say(0.05 + 0.05 * i / subjects.length, `Loading ${subject.entry.name} …`);
    await attempt(subject, () => subject.load());
  }
  const draw = random(job.seed);
  for (let number = 0; ; number++) {
    const waiting = shuffle(live.filter((subject) => subject.portion() < 1), draw);
    if (!waiting.length) break;
    for (const subject of waiting) await attempt(subject, () => subject.round(number));
    const done = live.map((subject) => subject.portion());
    say(0.1 + 0.6 * Math.min(...done, 1), `Measuring ${live.length} model${live.length === 1 ? "" : "s"} …`);
  }
  const photos = [];
  for (let i = 0; i < job.encoded.length; i++) {
    photos.push(new Blob([await bytes(`encoded/${i}`)], { type: job.encoded[i] }));
  }
  for (const subject of [...live]) {
    say(0.7, `From photo to answer with ${subject.entry.name} …`);
    await attempt(subject, () => subject.endToEnd(photos));
  }
  for (let i = 0; i < images.count; i++) { // image by image: each is fetched once for all models
    if (i % 16 === 0) say(0.75 + 0.25 * i / images.count, `Classifying ${images.count} images …`);
    for (const subject of [...live]) await attempt(subject, () => subject.classify(i));
  }
  say(1, "Sending results …");
  for (const subject of [...live]) await attempt(subject, () => subject.finish(session));
  const version = (ort.env.versions && (ort.env.versions.web || ort.env.versions.common)) || "";
  return {
    rows: subjects.map((subject) => subject.row),
    threads: ort.env.wasm.numThreads || 1,
    version,
    timer_resolution_ms: step,
    seconds: (now() - begun) / 1000,
  };
}
