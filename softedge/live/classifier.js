// The model as the page sees it: load, replay the golden images, classify a picture.  The work is done in worker.js.

export class Classifier {
  constructor() {
    this.waiting = new Map();
    this.count = 0;
    this.worker = new Worker("worker.js", { type: "module" });
    this.worker.onmessage = ({ data }) => {
      const { resolve, reject } = this.waiting.get(data.id);
      this.waiting.delete(data.id);
      if (data.error) reject(new Error(data.error)); else resolve(data.result);
    };
    this.worker.onerror = (event) => {
      for (const { reject } of this.waiting.values()) reject(new Error(event.message || "The worker did not start."));
      this.waiting.clear();
    };
  }

  ask(work, value, transfer = []) {
    return new Promise((resolve, reject) => {
      this.waiting.set(this.count, { resolve, reject });
      this.worker.postMessage({ id: this.count++, work, value }, transfer);
    });
  }

  load(about) { return this.ask("load", about); }

  // {found: probabilities of each golden image, largest: largest difference from those at export}
  replay() { return this.ask("replay"); }

  // canvas -> {probabilities, ms of the model, prepareMs, pixels: what the model was given}
  classify(canvas) {
    const { width, height } = canvas;
    const { data } = canvas.getContext("2d", { willReadFrequently: true }).getImageData(0, 0, width, height);
    return this.ask("classify", { rgba: data, width, height }, [data.buffer]);
  }
}
