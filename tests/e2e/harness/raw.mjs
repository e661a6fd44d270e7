// Bytes to the gateway as they are, over a connection of their own: what no HTTP client would send.
import net from "node:net";

// Sends `bytes` (text is latin1), and resolves with the answers that came: [{ status, headers, body }], as soon as
// there are `expected`, the gateway has closed the connection, or `patience` milliseconds went by without a byte.
export async function sendBytes(url, bytes, { patience = 300, expected = Infinity } = {}) {
  let text = "";
  await new Promise((resolve) => {
    const socket = net.connect(new URL(url).port, "127.0.0.1", () => socket.write(Buffer.from(bytes, "latin1")));
    socket.setTimeout(patience, () => socket.destroy());
    socket.setEncoding("latin1").on("data", (piece) => {
      text += piece;
      if (answersIn(text).length >= expected) socket.destroy();
    });
    socket.on("error", () => {});
    socket.on("close", resolve);
  });
  return answersIn(text);
}

// One request with a body of no bytes, and a connection that is closed after it.
export async function sendLine(url, requestLine, headers = {}) {
  const lines = Object.entries({ host: "api.example.com", connection: "close", ...headers });
  const head = lines.map(([name, value]) => `${name}: ${value}\r\n`).join("");
  const [answer] = await sendBytes(url, `${requestLine}\r\n${head}\r\n`, { patience: 5_000, expected: 1 });
  return answer ?? { status: 0, headers: {}, body: "" };
}

// The answers that are complete.
function answersIn(text) {
  const answers = [];
  for (let rest = text; rest.startsWith("HTTP/1.1 ");) {
    const end = rest.indexOf("\r\n\r\n");
    if (end < 0) break;
    const [first, ...lines] = rest.slice(0, end).split("\r\n");
    const named = lines.map((line) => /^([^:]*): ?(.*)$/s.exec(line)).map(([, name, value]) => [name.toLowerCase(), value]);
    const headers = Object.fromEntries(named);
    const [body, after] = bodyIn(rest.slice(end + 4), headers);
    if (after === null) break;
    const status = Number(first.split(" ")[1]);
    // What is only on the way to an answer is none.
    if (status >= 200) answers.push({ status, headers, body });
    rest = after;
  }
  return answers;
}

// A body, and what comes after it: null where it is not complete.
function bodyIn(text, headers) {
  if (headers["transfer-encoding"] !== "chunked") {
    const length = Number(headers["content-length"] ?? 0);
    return [text.slice(0, length), text.length < length ? null : text.slice(length)];
  }
  let body = "";
  for (;;) {
    const end = text.indexOf("\r\n");
    const length = parseInt(text.slice(0, end), 16);
    const next = end + 4 + length;
    if (end < 0 || text.length < next) return [body, null];
    if (length === 0) return [body, text.slice(next)];
    body += text.slice(end + 2, end + 2 + length);
    text = text.slice(next);
  }
}

// Does `work` with each of `list`, `atOnce` at a time.
export async function each(list, atOnce, work) {
  const waiting = list[Symbol.iterator]();
  await Promise.all(
    Array.from({ length: atOnce }, async () => {
      for (const one of { [Symbol.iterator]: () => waiting }) await work(one);
    }),
  );
}
