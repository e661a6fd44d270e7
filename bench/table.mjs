// Tables as Markdown has them, aligned.
export function table(head, rows) {
  const all = [head, ...rows].map((row) => row.map((cell) => String(cell ?? "")));
  const widths = head.map((_, at) => Math.max(...all.map((row) => row[at].length)));
  const line = (row) => `| ${row.map((cell, at) => (at === 0 ? cell.padEnd(widths[at]) : cell.padStart(widths[at]))).join(" | ")} |`;
  const rule = widths.map((width, at) => (at === 0 ? "-".repeat(width) : `${"-".repeat(width - 1)}:`));
  return [line(all[0]), line(rule), ...all.slice(1).map(line)].join("\n");
}

export const digits = (value, places = 0) =>
  value.toLocaleString("en-US", { minimumFractionDigits: places, maximumFractionDigits: places });
