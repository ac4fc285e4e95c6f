// What every curve needs: from numbers to places on the page.

/** A function from numbers between `from` and `to` to places between `start` and `end`; `log`: on a logarithmic scale. */
export function scale(from, to, start, end, log = false) {
  const on = log ? Math.log : Number, low = on(from), span = on(to) - low || 1;
  return (value) => start + ((on(value) - low) / span) * (end - start);
}

/** A path's `d` through points [x, y]. */
export const line = (points) => points.map(([x, y], i) => `${i ? "L" : "M"}${x.toFixed(1)} ${y.toFixed(1)}`).join("");
