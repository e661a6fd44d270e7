// How much of the faults and attacks is tried: a short form in `npm test`, all of it in `npm run faults`
// and `npm run attacks`. What is random comes from a seed that is printed.
export const isFull = process.env.TOLLGATE_FULL === "1";

export const scaled = (short, full) => (isFull ? full : short);

// TOLLGATE_SEED=7 tries the same again, as far as the machine's own timing lets it.
export const seed = Number(process.env.TOLLGATE_SEED ?? Math.floor(Math.random() * 1_000_000));

// Random numbers from the seed, and apart from those of another `stream`: mulberry32.
export function randomOf(stream = 0) {
  let state = (seed + stream * 0x9e3779b9) >>> 0;
  const unit = () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
  const below = (limit) => Math.floor(unit() * limit);
  return {
    unit,
    below,
    between: (from, to) => from + below(to - from),
    one: (list) => list[below(list.length)],
    shuffled(list) {
      for (let at = list.length - 1; at > 0; at--) {
        const other = below(at + 1);
        [list[at], list[other]] = [list[other], list[at]];
      }
      return list;
    },
  };
}

// Figures of what was tried, in the order in which they are given.
export const show = (t, figures) =>
  t.diagnostic(Object.entries(figures).map(([name, value]) => `${name}: ${value}`).join(" · "));

// The value below which this part of them lies; the values need not be sorted.
export function percentile(values, part) {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * part))];
}
