// An origin whose behaviour the test scripts, path by path, and which remembers what it received.
//
//   const origin = await startOrigin(t);
//   origin.on("POST /search", answer({ status: 503 }));
//   const { headers, body } = await origin.request(0);     // the first it received; `body` is a promise
//
// A path without a behaviour gets `echo`.
import http from "node:http";
import { EventEmitter, once } from "node:events";
import { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";

export async function startOrigin(t) {
  const behaviours = new Map();
  const requests = [];
  const arrivals = new EventEmitter().setMaxListeners(0);

  const server = http.createServer((incoming, outgoing) => {
    const exchange = exchangeOf(incoming, outgoing);
    requests.push(exchange);
    arrivals.emit("arrival");
    const [path] = exchange.path.split("?");
    const behave = behaviours.get(`${exchange.method} ${path}`) ?? behaviours.get(path) ?? echo;
    Promise.resolve(behave(exchange)).catch((error) => outgoing.destroy(error));
  });
  // workerd keeps its connections: one that the server closes for idleness would look like a broken origin.
  server.keepAliveTimeout = 0;
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  t.after(() => {
    server.closeAllConnections();
    server.close();
  });

  return {
    url: `http://127.0.0.1:${server.address().port}`,
    requests,
    // "METHOD /path" or "/path" for every method, without the query.
    on: (route, behaviour) => behaviours.set(route, behaviour),
    // The nth request, counted from 0, as soon as its headers are here.
    async request(n) {
      while (requests.length <= n) await once(arrivals, "arrival");
      return requests[n];
    },
  };
}

// Behaviours.

export async function echo({ method, path, headers, body, outgoing }) {
  const text = (await body).toString("utf8");
  outgoing.writeHead(200, { "content-type": "application/json" });
  outgoing.end(JSON.stringify({ method, path, headers, body: text }));
}

export const answer =
  ({ status = 200, headers = {}, body = "" } = {}) =>
  ({ outgoing }) => {
    outgoing.writeHead(status, headers);
    outgoing.end(body);
  };

// Takes the request and stays silent until the gateway gives up.
export const neverAnswer = () => () => {};

export const after =
  (milliseconds, behaviour = echo) =>
  (exchange) =>
    setTimeout(() => behaviour(exchange), milliseconds);

export const resetBeforeHeaders = () => (exchange) => exchange.reset();

// Promises `length` bytes, sends `start`, and breaks the connection.
export const resetInBody =
  (start = "begun", { length = 1_000_000, headers = {} } = {}) =>
  async (exchange) => {
    exchange.outgoing.writeHead(200, { "content-length": length, ...headers });
    await exchange.write(start);
    exchange.reset();
  };

// Sends `bytes` bytes, piece by piece, as fast as they are taken.
export const large =
  (bytes, { status = 200, headers = {} } = {}) =>
  async ({ outgoing }) => {
    const piece = Buffer.alloc(65_536, "x");
    function* pieces() {
      for (let left = bytes; left > 0; left -= piece.length)
        yield piece.subarray(0, Math.min(left, piece.length));
    }
    outgoing.writeHead(status, { "content-length": bytes, ...headers });
    // The other side may leave in the middle; that is the test's business.
    await pipeline(Readable.from(pieces()), outgoing).catch(() => {});
  };

// Answers on command: `const held = hold(); origin.on("/stream", held); const exchange = await held.next();`
// then exchange.begin(status, headers), exchange.write(bytes), exchange.end(bytes), exchange.reset().
export function hold() {
  const waiting = [];
  const arrivals = new EventEmitter();
  const behaviour = (exchange) => {
    waiting.push(exchange);
    arrivals.emit("arrival");
  };
  behaviour.next = async () => {
    while (waiting.length === 0) await once(arrivals, "arrival");
    return waiting.shift();
  };
  return behaviour;
}

function exchangeOf(incoming, outgoing) {
  const body = bodyOf(incoming);
  // A request that breaks off rejects it; a test that does not ask for the body need not know.
  body.catch(() => {});
  return {
    method: incoming.method,
    path: incoming.url,
    headers: incoming.headers,
    rawHeaders: incoming.rawHeaders,
    incoming,
    outgoing,
    body,
    // Resolves when the gateway's side of the connection is gone before the answer's end.
    left: new Promise((resolve) => outgoing.once("close", () => outgoing.writableFinished || resolve())),
    begin(status = 200, headers = {}) {
      outgoing.writeHead(status, headers);
      outgoing.flushHeaders();
    },
    write: (bytes) =>
      new Promise((resolve, reject) => outgoing.write(bytes, (error) => (error ? reject(error) : resolve()))),
    end: (bytes) => outgoing.end(bytes),
    reset: () => outgoing.socket?.resetAndDestroy(),
  };
}

async function bodyOf(incoming) {
  const pieces = [];
  for await (const piece of incoming) pieces.push(piece);
  return Buffer.concat(pieces);
}
