// Bytes to the gateway as they are, over a connection of their own: what no HTTP client would send.
import net from "node:net";

// Sends `bytes` (text is latin1), and resolves with the answers that came until the connection was closed, by
// the gateway or after `patience` milliseconds without a byte: [{ status, headers, body }].
export async function sendBytes(url, bytes, { patience = 300 } = {}) {
  const pieces = [];
  await new Promise((resolve) => {
    const socket = net.connect(new URL(url).port, "127.0.0.1", () => socket.write(Buffer.from(bytes, "latin1")));
    socket.setTimeout(patience, () => socket.destroy());
    socket.on("data", (piece) => pieces.push(piece));
    socket.on("error", () => {});
    socket.on("close", resolve);
  });
  return answersIn(Buffer.concat(pieces).toString("latin1"));
}

// One request with a body of no bytes, and a connection that is closed after it.
export async function sendLine(url, requestLine, headers = {}) {
  const lines = Object.entries({ host: "api.example.com", connection: "close", ...headers });
  const head = lines.map(([name, value]) => `${name}: ${value}\r\n`).join("");
  const [answer] = await sendBytes(url, `${requestLine}\r\n${head}\r\n`, { patience: 10_000 });
  return answer ?? { status: 0, headers: {}, body: "" };
}

function answersIn(text) {
  const answers = [];
  for (let rest = text; rest.startsWith("HTTP/1.1 ");) {
    const end = rest.indexOf("\r\n\r\n");
    if (end < 0) break;
    const [first, ...lines] = rest.slice(0, end).split("\r\n");
    const headers = Object.fromEntries(lines.map((line) => /^([^:]*): ?(.*)$/s.exec(line).slice(1)).map(([name, value]) => [name.toLowerCase(), value]));
    rest = rest.slice(end + 4);
    let body;
    if (headers["transfer-encoding"] === "chunked") [body, rest] = unchunked(rest);
    else [body, rest] = [rest.slice(0, Number(headers["content-length"] ?? 0)), rest.slice(Number(headers["content-length"] ?? 0))];
    const status = Number(first.split(" ")[1]);
    // What is only on the way to an answer is none.
    if (status >= 200) answers.push({ status, headers, body });
  }
  return answers;
}

function unchunked(text) {
  let body = "";
  for (;;) {
    const end = text.indexOf("\r\n");
    const length = parseInt(text.slice(0, end), 16);
    if (end < 0 || !(length >= 0)) return [body, ""];
    body += text.slice(end + 2, end + 2 + length);
    text = text.slice(end + 4 + length);
    if (length === 0) return [body, text];
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
