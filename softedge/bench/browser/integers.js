// An output in integers -> what other files give: probabilities, scores or features.
export function finished(data, { scale, zero_point, output }) {
  const values = Float32Array.from(data, (q) => scale * (q - zero_point));
  if (output === "scores") return values.map((x) => 1 / (1 + Math.exp(-x)));
  if (output !== "probabilities") return values;
  const largest = values.reduce((a, b) => Math.max(a, b));
  const powers = values.map((x) => Math.exp(x - largest));
  const sum = powers.reduce((a, b) => a + b);
  return powers.map((x) => x / sum);
}
