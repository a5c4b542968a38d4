// Pillow's antialiased resize, to the same bits, and the crop of the contract: what `softedge.data.decoding.prepare` does.
// Pillow, src/libImaging/Resample.c: weights in double precision, rounded to 22 bits; across first, then down, with
// 8-bit values in between.  Only pixels inside the crop are computed.

const BITS = 22;
const ONE = 2 ** BITS;
const LONGEST_STRIP = 8; // times the shorter side, as in decoding.py

const FILTERS = {
  bilinear: { support: 1, weight: (x) => Math.max(0, 1 - Math.abs(x)) },
  bicubic: {
    support: 2,
    weight: (x) => {
      const a = -0.5;
      x = Math.abs(x);
      if (x < 1) return ((a + 2) * x - (a + 3)) * x * x + 1;
      return x < 2 ? (((x - 5) * x + 8) * x - 4) * a : 0;
    },
  },
};

// For outputs first .. first + count of a line resized from `from` to `to` pixels: where each begins and its weights.
function lines(from, to, first, count, { support, weight }) {
  const scale = from / to;
  const stretch = Math.max(scale, 1);
  const reach = support * stretch;
  return Array.from({ length: count }, (_, i) => {
    const centre = (first + i + 0.5) * scale;
    const start = Math.max(0, Math.trunc(centre - reach + 0.5));
    const end = Math.min(from, Math.trunc(centre + reach + 0.5));
    const exact = Array.from({ length: end - start }, (_, k) => weight((k + start - centre + 0.5) * (1 / stretch)));
    const sum = exact.reduce((a, b) => a + b, 0);
    const rounded = exact.map((w) => w / sum * ONE).map((w) => Math.trunc(w < 0 ? w - 0.5 : w + 0.5));
    return { start, weights: Int32Array.from(rounded) };
  });
}

// Python's round(): halves go to the even neighbour.
function round(x) {
  const down = Math.floor(x);
  if (x - down !== 0.5) return Math.round(x);
  return down % 2 ? down + 1 : down;
}

// rgba: Uint8ClampedArray (height, width, 4).  Returns Uint8Array (size, size, 3).
export function prepare(rgba, width, height, { size, resize, interpolation }) {
  const filter = FILTERS[interpolation];
  if (!filter) throw new Error(`this page knows no '${interpolation}' interpolation`);
  let [left, top, columns, rows] = [0, 0, width, height];
  const longest = LONGEST_STRIP * Math.min(width, height);
  if (columns > longest) [left, columns] = [Math.floor((width - longest) / 2), longest];
  if (rows > longest) [top, rows] = [Math.floor((height - longest) / 2), longest];
  const long = Math.floor(resize * Math.max(columns, rows) / Math.min(columns, rows));
  const [wide, high] = rows <= columns ? [long, resize] : [resize, long];
  const across = lines(columns, wide, round((wide - size) / 2), size, filter);
  const down = lines(rows, high, round((high - size) / 2), size, filter);
  // Pillow leaves out a direction that keeps its length; the weights are then 0 and 1, and nothing changes.
  const from = down[0].start;
  const until = down[size - 1].start + down[size - 1].weights.length;
  const middle = new Uint8ClampedArray((until - from) * size * 3);
  for (let y = from; y < until; y++) {
    const line = ((top + y) * width + left) * 4;
    for (let x = 0, to = (y - from) * size * 3; x < size; x++, to += 3) {
      const { start, weights } = across[x];
      let [r, g, b] = [ONE / 2, ONE / 2, ONE / 2];
      for (let k = 0, at = line + start * 4; k < weights.length; k++, at += 4) {
        r += rgba[at] * weights[k];
        g += rgba[at + 1] * weights[k];
        b += rgba[at + 2] * weights[k];
      }
      middle[to] = Math.floor(r / ONE);
      middle[to + 1] = Math.floor(g / ONE);
      middle[to + 2] = Math.floor(b / ONE);
    }
  }
  const out = new Uint8ClampedArray(size * size * 3);
  const row = size * 3;
  for (let y = 0; y < size; y++) {
    const { start, weights } = down[y];
    for (let x = 0; x < row; x++) {
      let sum = ONE / 2;
      for (let k = 0, at = (start - from) * row + x; k < weights.length; k++, at += row) sum += middle[at] * weights[k];
      out[y * row + x] = Math.floor(sum / ONE);
    }
  }
  return new Uint8Array(out.buffer);
}
