// Pictures as they are needed: those to come are fetched ahead, a few are kept.

const KEPT = 24;

export class Pictures {
  #urls = new Map(); // image -> promise of an object URL, the latest used last

  // Rejects with the reason where there is no picture.
  url(image) {
    const known = this.#urls.get(image) ?? this.#fetch(image);
    this.#urls.delete(image);
    this.#urls.set(image, known);
    for (const [old, promise] of this.#urls) {
      if (this.#urls.size <= KEPT) break;
      this.#urls.delete(old);
      promise.then((url) => URL.revokeObjectURL(url), () => {});
    }
    return known;
  }

  ahead(image) {
    this.url(image).catch(() => {});
  }

  #fetch(image) {
    const promise = this.#get(image);
    promise.catch(() => this.#urls.delete(image)); // it may be back when it is shown again
    return promise;
  }

  async #get(image) {
    let answer;
    try {
      answer = await fetch(`picture/${image}`);
    } catch {
      throw new Error("the computer does not answer");
    }
    if (!answer.ok) throw new Error((await answer.json()).error);
    return URL.createObjectURL(await answer.blob());
  }
}
