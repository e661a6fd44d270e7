// Answers as people read them on a terminal.

/** @typedef {Record<string, unknown>} Row */

/**
 * Columns under their names, as wide as what is in them; numbers to the right.
 * @param {readonly Row[]} rows
 * @param {readonly string[]} columns
 */
export function table(rows, columns) {
  if (rows.length === 0) return "none";
  const cells = rows.map((row) => columns.map((column) => cell(row[column])));
  const widths = columns.map((column, at) =>
    Math.max(column.length, ...cells.map((line) => line[at]?.length ?? 0)),
  );
  const isNumber = columns.map((column) => rows.every((row) => typeof (row[column] ?? 0) === "number"));
  const line = (/** @type {readonly string[]} */ texts) =>
    texts
      .map((text, at) => (isNumber[at] ? text.padStart(widths[at] ?? 0) : text.padEnd(widths[at] ?? 0)))
      .join("  ")
      .trimEnd();
  return [line(columns.map((column) => column.toUpperCase())), ...cells.map(line)].join("\n");
}

/**
 * A line for each member.
 * @param {object} record
 */
export function list(record) {
  const members = Object.entries(record);
  const width = Math.max(...members.map(([name]) => name.length));
  return members.map(([name, value]) => `${name.padEnd(width)}  ${cell(value)}`).join("\n");
}

/** @param {unknown} value @returns {string} */
function cell(value) {
  if (value === null || value === undefined) return "-";
  if (Array.isArray(value)) return value.map(cell).join(", ");
  if (typeof value === "object") {
    const told = Object.entries(value).filter(([, inner]) => inner !== null);
    return told.map(([name, inner]) => `${name} ${cell(inner)}`).join(", ") || "-";
  }
  return String(value);
}
