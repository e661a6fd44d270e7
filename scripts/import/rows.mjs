// What a CSV file of accounts and their keys says, with every mistake by its line. What stands in a row is
// never told: a column that slipped may be the one with the keys.

const REQUIRED = ["external_id", "plan", "key"];
const COLUMNS = [...REQUIRED, "credits"];

// A file that cannot be read as a whole.
export class Unreadable extends Error {
  constructor(line, what) {
    super(`line ${line}: ${what}`);
  }
}

// The records of a CSV text (RFC 4180), each with the line that it begins in; lines may end in LF alone,
// and empty ones are passed over.
export function* records(text) {
  let line = 1;
  let at = text.startsWith("\uFEFF") ? 1 : 0;
  while (at < text.length) {
    const record = { line, fields: [] };
    let isLast = false;
    while (!isLast) {
      let field;
      if (text[at] === '"') {
        [field, at] = quoted(text, at + 1, line);
        line += field.split("\n").length - 1;
      } else {
        const start = at;
        while (at < text.length && !',\r\n"'.includes(text[at])) at += 1;
        if (text[at] === '"') throw new Unreadable(line, 'a field with a " in it has to begin with one');
        field = text.slice(start, at);
      }
      record.fields.push(field);
      if (text[at] === ",") {
        at += 1;
        continue;
      }
      isLast = true;
      if (text[at] === "\r" && text[at + 1] === "\n") at += 1;
      if (at < text.length && text[at] !== "\n") {
        throw new Unreadable(line, "after a field there has to be a comma or the line's end");
      }
      at += 1;
      line += 1;
    }
    if (record.fields.length > 1 || record.fields[0] !== "") yield record;
  }
}

// The rest of a quoted field from `at` on, and where it ends.
function quoted(text, at, line) {
  let field = "";
  for (;;) {
    const end = text.indexOf('"', at);
    if (end < 0) throw new Unreadable(line, 'the " that begins a field here has no other that ends it');
    field += text.slice(at, end);
    if (text[end + 1] !== '"') return [field, end + 1];
    field += '"';
    at = end + 2;
  }
}

// What is to be imported: { accounts: [{ external_id, plan, line, rows: [{ line, key, credits? }] }],
// refused: [{ line, why }] }. Rows of one account stand together, however far apart they are in the file.
export function readRows(text) {
  const all = records(text);
  const header = all.next().value;
  const columns = columnsOf(header);
  const accounts = new Map();
  const keys = new Map();
  const refused = [];
  for (const { line, fields } of all) {
    const why = add(line, fields);
    if (why) refused.push({ line, why });
  }
  return { accounts: [...accounts.values()].filter(({ rows }) => rows.length > 0), refused };

  function add(line, fields) {
    if (fields.length !== header.fields.length) {
      return `it has ${fields.length} fields, and the header ${header.fields.length}`;
    }
    const row = Object.fromEntries(columns.map((name, index) => [name, fields[index]]));
    const empty = REQUIRED.find((name) => row[name] === "");
    if (empty) return `${empty}: there is none`;
    const credits = creditsOf(row.credits);
    if (credits === null) return "credits: expected a whole number up to 9007199254740991";
    if (keys.has(row.key)) return `key: it is that of line ${keys.get(row.key)}`;
    const known = accounts.get(row.external_id);
    const account = known ?? { external_id: row.external_id, plan: row.plan, line, rows: [] };
    if (account.plan !== row.plan) return `plan: the same external_id has another one in line ${account.line}`;
    const paid = account.rows.find((other) => other.credits);
    if (credits && paid) return `credits: the same external_id has some in line ${paid.line}; once is enough`;
    keys.set(row.key, line);
    account.rows.push({ line, key: row.key, ...(credits && { credits }) });
    accounts.set(row.external_id, account);
    return null;
  }
}

function columnsOf(header) {
  const names = header?.fields ?? [];
  const expected = "expected a header: external_id, plan, key and, where there are any, credits";
  if (!REQUIRED.every((name) => names.includes(name))) throw new Unreadable(1, expected);
  const unknown = names.findIndex((name) => !COLUMNS.includes(name));
  if (unknown >= 0) throw new Unreadable(1, `column ${unknown + 1} is none of ${COLUMNS.join(", ")}`);
  if (new Set(names).size < names.length) throw new Unreadable(1, "a column stands there twice");
  return names;
}

// 0 where there are none, null where it is no number of credits.
function creditsOf(text = "") {
  if (text === "") return 0;
  const credits = /^\d{1,16}$/.test(text) ? Number(text) : NaN;
  return Number.isSafeInteger(credits) ? credits : null;
}
