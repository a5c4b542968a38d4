// The camera or a photo, the answer beneath it, and what was wrong about it.

import { Classifier } from "./classifier.js";
import { countKept, download, forget, keep, send } from "./keeping.js";

const element = (id) => document.getElementById(id);
const [video, still] = [element("video"), element("still")];
const grabbed = document.createElement("canvas");
const MANY = 12; // labels: more get a field to search in
const MOST_PIXELS = 16_000_000; // of a canvas on iOS; a larger photo is halved first
const LARGEST = 20_000_000; // bytes of a picture that the computer takes
let about, classifier, shown;
let live = false;
let choosing = false;
let times = [];

const say = (text) => { element("status").textContent = text; };

function problem(text) {
  element("problem").textContent = text;
  element("problem").hidden = !text;
}

function hint(text) {
  element("hint").textContent = text;
  element("hint").hidden = !text;
}

function fact(name, value) {
  const [term, text] = [document.createElement("dt"), document.createElement("dd")];
  term.textContent = name;
  text.textContent = value;
  element("about").append(term, text);
}

function frame(width, height) {
  // The stage shows the middle square of a picture, the model a part of that.
  const { size, resize } = about.preprocessing;
  element("frame").style.width = `${100 * Math.min(1, size / resize)}%`;
  element("frame").hidden = size >= resize;
  element("stage").dataset.picture = `${width}x${height}`;
}

function show({ probabilities, ms }) {
  times = [...times, ms].slice(-15);
  const median = [...times].sort((a, b) => a - b)[Math.floor(times.length / 2)];
  const sorted = probabilities.map((_, i) => i).sort((a, b) => probabilities[b] - probabilities[a]);
  const order = sorted.slice(0, 5);
  // Of scores any number of labels are present.
  const scores = about.present_from !== null;
  const answer = scores ? sorted.filter((index) => probabilities[index] >= about.present_from) : order.slice(0, 1);
  element("label").textContent = answer.map((index) => about.labels[index]).join(", ") || "none of the labels";
  element("ms").textContent = `${median < 10 ? median.toFixed(1) : Math.round(median)} ms`;
  const list = element("probabilities");
  while (list.children.length < order.length) list.append(line());
  order.forEach((index, i) => {
    const [name, bar, share] = list.children[i].children;
    name.textContent = about.labels[index];
    bar.firstChild.style.width = `${100 * probabilities[index]}%`;
    share.textContent = `${(100 * probabilities[index]).toFixed(1)} %`;
  });
  element("answer").hidden = element("wrong").hidden = false;
}

function line() {
  const item = document.createElement("li");
  for (const kind of ["name", "bar", "share"]) {
    const part = document.createElement("span");
    part.className = kind;
    item.append(part);
  }
  item.children[1].append(document.createElement("span"));
  return item;
}

function draw(source, width, height, canvas) {
  canvas.width = width;
  canvas.height = height;
  const pen = canvas.getContext("2d", { willReadFrequently: true });
  pen.fillStyle = "#ffffff"; // transparency is laid on white
  pen.fillRect(0, 0, width, height);
  pen.drawImage(source, 0, 0, width, height);
}

async function classify(canvas) {
  const answer = await classifier.classify(canvas);
  show(answer);
  return answer;
}

async function look() {
  const stream = video.srcObject;
  const current = () => live && video.srcObject === stream; // not while a photo is shown, nor of an earlier start
  while (current()) {
    if (video.readyState >= 2 && video.videoWidth && !choosing) {
      draw(video, video.videoWidth, video.videoHeight, grabbed);
      frame(grabbed.width, grabbed.height);
      try {
        const answer = await classifier.classify(grabbed);
        if (!current()) return; // a photo was chosen meanwhile: its answer and its file are what "wrong" is about
        show(answer);
        shown = { canvas: grabbed, file: null };
      } catch (error) {
        if (!current()) return;
        problem(error.message);
        stop();
      }
    }
    await new Promise(requestAnimationFrame);
  }
}

const REFUSED = "The camera was not allowed. Allow it in this site's settings and reload, or use a photo.";
const CAMERA = {
  NotAllowedError: REFUSED,
  SecurityError: REFUSED,
  NotFoundError: "No camera was found on this device. Use a photo.",
  OverconstrainedError: "No camera was found on this device. Use a photo.",
  NotReadableError: "The camera is in use by another app. Close that app and reload, or use a photo.",
};

async function start() {
  problem("");
  element("live").hidden = true;
  say("Starting the camera …");
  try {
    video.srcObject = await navigator.mediaDevices.getUserMedia({
      audio: false, video: { facingMode: { ideal: "environment" }, width: { ideal: 1280 }, height: { ideal: 720 } },
    });
    await video.play();
  } catch (error) {
    say("");
    problem(CAMERA[error.name] || `The camera did not start (${error.message}). Use a photo.`);
    element("photo").classList.add("main");
    return;
  }
  say("");
  still.hidden = true;
  video.hidden = false;
  times = [];
  live = true;
  video.srcObject.getVideoTracks()[0].onended = () => {
    stop();
    problem("The camera was disconnected. Use a photo, or reload.");
  };
  look();
}

function stop() {
  live = false;
  for (const track of video.srcObject ? video.srcObject.getTracks() : []) track.stop();
  video.srcObject = null;
}

async function photo(file) {
  const before = live || !element("live").hidden;
  stop();
  problem("");
  let bitmap;
  try {
    // As softedge decodes: upright by Exif, colours as they are in the file.
    bitmap = await createImageBitmap(file, { imageOrientation: "from-image", colorSpaceConversion: "none" });
  } catch {
    problem("This file is not a picture that this browser can read. Use a JPEG or PNG.");
    element("live").hidden = !before;
    return;
  }
  let [width, height] = [bitmap.width, bitmap.height];
  while (width * height > MOST_PIXELS) [width, height] = [width >> 1, height >> 1];
  draw(bitmap, width, height, still);
  bitmap.close();
  say("");
  [video.hidden, still.hidden, element("live").hidden] = [true, false, !before];
  frame(width, height);
  times = [];
  shown = { canvas: still, file };
  try {
    await classify(still);
  } catch (error) {
    problem(error.message);
  }
}

async function picture() {
  const kinds = ["image/jpeg", "image/png", "image/webp"];
  if (shown.file && kinds.includes(shown.file.type) && shown.file.size < LARGEST) return shown.file;
  return new Promise((resolve) => shown.canvas.toBlob(resolve, "image/jpeg", 0.95));
}

function choices() {
  const wanted = element("filter").value.toLowerCase();
  element("labels").replaceChildren(...about.labels.flatMap((label, index) => {
    if (!label.toLowerCase().includes(wanted)) return [];
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = label;
    button.onclick = () => correct(index);
    return [button];
  }));
}

async function wrong() {
  choosing = true; // the picture stays as it is until a label is chosen
  if (live) video.pause();
  element("filter").value = "";
  element("filter").hidden = about.labels.length <= MANY;
  choices();
  element("choose").showModal();
}

async function correct(index) {
  const name = about.labels[index];
  try {
    const blob = await picture();
    const count = about.app ? await keep(blob, about.folders[index]) : await send(blob, index);
    kept(`Kept as ‘${name}’: ${count} ${count === 1 ? "picture" : "pictures"} ${about.app ? "here" : "on the computer"}.`);
  } catch (error) {
    problem(error.message);
  }
  element("choose").close();
}

function kept(text) {
  element("kept-text").textContent = text;
  element("kept").hidden = false;
  element("download").hidden = !about.app;
}

async function save() {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(await download());
  link.download = "corrections.zip";
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
  await forget();
  element("download").hidden = true;
  element("kept-text").textContent = "Downloaded as corrections.zip: one folder a label.";
}

function listen() {
  element("file").onchange = ({ target }) => {
    if (target.files[0]) photo(target.files[0]);
    target.value = ""; // the same file again is another choice
  };
  element("live").onclick = start;
  element("wrong").onclick = wrong;
  element("cancel").onclick = () => element("choose").close();
  element("choose").onclose = () => {
    choosing = false;
    if (live) video.play();
  };
  element("filter").oninput = choices;
  element("download").onclick = () => save().catch((error) => problem(error.message));
  let paused = false;
  document.addEventListener("visibilitychange", () => { // a camera that nobody looks at is given back
    if (document.hidden && live) {
      stop();
      paused = true;
    } else if (!document.hidden && paused) {
      paused = false;
      start();
    }
  });
}

// Does this browser compute what was exported?  After the first answer: nobody should wait for it.
async function replay() {
  const { largest } = await classifier.replay();
  fact("Golden images", `${about.golden.length}, largest difference ${largest.toPrecision(2)}, allowed ${about.tolerance}`);
  if (largest <= about.tolerance) return;
  element("golden").textContent = "This browser's answers differ from those at export by more than the contract allows: "
    + `${largest.toPrecision(2)} on the golden images, ${about.tolerance} allowed.`
    + (about.int8 ? " x86 computers without VNNI saturate in int8: the difference may be the exporting computer's." : "");
  element("golden").hidden = false;
}

const PRIVATE = "Pictures stay on this device";

async function main() {
  const answer = await fetch("about.json");
  if (!answer.ok) throw new Error("The model could not be fetched. Is softedge try still running on the computer?");
  about = await answer.json();
  document.title = `${about.name} · softedge`;
  classifier = new Classifier();
  const { threads } = await classifier.load(about);
  fact("File", `${about.name}, ${(about.size_bytes / 1e6).toFixed(2)} MB`);
  fact("SHA-256", about.sha256);
  fact("Runtime", `onnxruntime-web ${about.runtime}, WebAssembly, ${threads} ${threads === 1 ? "thread" : "threads"}`);
  fact("Input", `${about.preprocessing.size} × ${about.preprocessing.size} pixels, ${about.preprocessing.interpolation}`);
  fact("Time", "milliseconds of the model alone, median of the last 15 pictures");
  listen();
  element("photo").hidden = false;
  if (about.app && await countKept()) kept("Corrected pictures are kept here.");
  const still = about.app ? `${PRIVATE}.` : `${PRIVATE}, except those you mark as wrong: they go to your computer.`;
  if (window.isSecureContext && navigator.mediaDevices) {
    hint(still);
    await start();
  } else {
    say("Take or choose a photo.");
    element("photo").classList.add("main");
    hint(`${still} For the live picture, run softedge try with --https or --cable: browsers give cameras to secure pages only.`);
  }
  await replay();
}

// The app is kept in the browser, for use without a network; whether it is, the page says.
async function install() {
  const { serviceWorker } = navigator;
  if (!document.querySelector("link[rel=manifest]") || !serviceWorker) return;
  serviceWorker.onmessage = ({ data }) => {
    if (data.notKept) hint(`${PRIVATE}. This app works online only: it could not be kept on this device (${data.notKept}).`);
  };
  await serviceWorker.register("service-worker.js");
  await serviceWorker.ready;
  fact("Without a network", "works: kept on this device");
}

main().catch((error) => {
  say("");
  problem(error instanceof TypeError ? "The model could not be fetched. Reload the page." : error.message);
}).finally(() => install().catch(() => {})); // without it the page works online only
