// An origin that breaks HTTP itself, byte by byte; and clients that are slow, stop half-way, or ask ahead.
import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { EventEmitter, once } from "node:events";
import http from "node:http";
import net from "node:net";
import test from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { openAccount } from "../e2e/harness/account.mjs";
import { areSound } from "../e2e/harness/books.mjs";
import { startGateway } from "../e2e/harness/gateway.mjs";
import { residentMegabytes } from "../e2e/harness/memory.mjs";
import { answer, startOrigin } from "../e2e/harness/origin.mjs";
import { sendBytes } from "../e2e/harness/raw.mjs";
import { isFull, show } from "../e2e/harness/scale.mjs";

const MB = 1_000_000;
const sane = await startOrigin(test);
const raw = await rawOrigin(test);
const bodies = await bodyOrigin(test);
const gateway = await startGateway(test, {
  policy: `
[gateway]
key_prefix = "tk_live"
hold_seconds = 30
origin_timeout_seconds = 2
forgive_per_day = 100000
[origins]
default = "${sane.url}"
"raw.example.com" = "${raw.url}"
"bodies.example.com" = "${bodies.url}"
[pools.credits]
[plans.free]
requests_in_flight = 100
grants = [{ pool = "credits", amount = 100000, renews = "never" }]
[[routes]]
match = "GET /work"
cost = 10
[[routes]]
match = "POST /work"
cost = 10
[[routes]]
match = "POST /body"
cost = 1
[[routes]]
match = "POST /whole"
cost = 1
whole_body = true
[[routes]]
match = "POST /priced"
charge = { rate = 1, unit = 1, from = "body.minutes", maximum = 100 }
`,
});
const customer = await openAccount(gateway);
const authorization = `Bearer ${customer.key}`;

// What the origin says, in bytes, and what comes of it: the client's status (0: the connection broke), and the charge.
const ANSWERS = {
  "nothing, and closes": ["", [502], 0],
  "no HTTP": ["hello\r\n\r\n", [502], 0],
  "HTTP/0.9": ["<html>", [502], 0],
  "another protocol": ["SSH-2.0-x\r\n", [502], 0],
  "a status of two digits": ["HTTP/1.1 20 OK\r\n\r\n", [200, 502], null],
  "a status of no digits": ["HTTP/1.1 abc OK\r\n\r\n", [502], 0],
  "status 99": ["HTTP/1.1 099 X\r\nContent-Length: 0\r\n\r\n", [502], 0],
  "status 999": ["HTTP/1.1 999 X\r\nContent-Length: 0\r\n\r\n", [502, 999], 0],
  "half of a header": ["HTTP/1.1 200 OK\r\nContent-Le", [502], 0],
  "a header without a colon": ["HTTP/1.1 200 OK\r\nnonsense\r\n\r\n", [502], 0],
  "two lengths": ["HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab", [502, 200, 0], null],
  "a length that is none": ["HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\nab", [502, 200, 0], null],
  "a negative length": ["HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\nab", [502, 200, 0], null],
  "length and chunks": ["HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n", [200, 502], null],
  "fewer bytes than told": ["HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc", [0, 200], 10],
  "more bytes than told": ["HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabcdefHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", [200], 10],
  "broken chunks": ["HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nabc\r\n", [0, 200, 502], null],
  "chunks without an end": ["HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n", [0, 200], 10],
  "100 and then 200": ["HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", [200, 502], null],
  "102, 103 and then 200": ["HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", [200, 502], null],
  "100 for ever": ["HTTP/1.1 100 Continue\r\n\r\n".repeat(1_000), [502, 504], 0],
  "101 that nobody asked for": ["HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\n", [502, 504], 0],
  "204 with a body": ["HTTP/1.1 204 No Content\r\nContent-Length: 3\r\n\r\nabc", [204], 10],
  "304 with a body": ["HTTP/1.1 304 Not Modified\r\nContent-Length: 3\r\n\r\nabc", [304, 502], null],
  "two answers": ["HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 500 X\r\nContent-Length: 0\r\n\r\n", [200], 10],
  "1 MB of headers": [`HTTP/1.1 200 OK\r\nX: ${"x".repeat(1_000_000)}\r\n\r\n`, [502], 0],
  "10,000 headers": [`HTTP/1.1 200 OK\r\n${Array.from({ length: 10_000 }, (_, n) => `X-${n}: 1`).join("\r\n")}\r\nContent-Length: 0\r\n\r\n`, [502, 200, 0], null],
  "a header that breaks lines": ["HTTP/1.1 200 OK\r\nX: a\rX-Credits-Remaining: 9\r\nContent-Length: 2\r\n\r\nok", [200, 502], null],
  "a body up to the close": ["HTTP/1.1 200 OK\r\n\r\nall of it", [200], 10],
};

test("an origin that breaks HTTP: the caller gets an answer, and pays only for what was one", async (t) => {
  const came = new Map();
  const odd = [];
  for (const [what, [bytes, statuses, charge]] of Object.entries(ANSWERS)) {
    await isMended();
    raw.says(bytes);
    const { spent } = await customer.balance();
    const answered = await gateway.call(customer.key, "GET", "/work", { headers: { host: "raw.example.com" } }).catch(() => ({ status: 0, headers: {} }));
    const paid = await settledSince(spent);
    came.set(answered.status, (came.get(answered.status) ?? 0) + 1);
    if (!statuses.includes(answered.status)) odd.push(`${what}: ${answered.status}`);
    // 200 and below 400 is success, also where the body breaks; nothing else is.
    const expected = charge ?? (answered.status > 0 && answered.status < 400 ? 10 : 0);
    if (answered.status !== 0 && paid !== expected) odd.push(`${what}: ${answered.status}, paid ${paid}`);
    if (answered.headers["x-credits-remaining"]) assert.equal(answered.headers["x-credits-remaining"], String((await customer.balance()).available), what);
  }
  assert.deepEqual(odd, []);
  show(t, { answers: Object.keys(ANSWERS).length, statuses: [...came].map(([status, count]) => `${status || "broken off"} × ${count}`).join(", ") });
});

test("an origin that drips headers, or never ends them, is given up in time", async () => {
  raw.drips();
  const started = performance.now();
  const answered = await gateway.call(customer.key, "GET", "/work", { headers: { host: "raw.example.com" } });
  const waited = performance.now() - started;
  assert.ok([502, 504].includes(answered.status), `${answered.status}`);
  assert.ok(waited < 10_000, `${waited} ms`);
  raw.says("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
  assert.equal((await customer.finished("GET", "/work", { headers: { host: "raw.example.com" } })).status, 200);
});

test("clients that send slowly, half, or ahead get what they pay for", async () => {
  sane.on("/work", answer({ body: "done" }));
  const { spent } = await customer.balance();
  // A byte at a time.
  const request = `POST /work HTTP/1.1\r\nHost: api.example.com\r\nAuthorization: ${authorization}\r\nContent-Length: 3\r\n\r\nabc`;
  const socket = net.connect(new URL(gateway.url).port, "127.0.0.1");
  const slowly = once(socket, "data");
  for (const byte of request) {
    socket.write(byte);
    await new Promise(setImmediate);
  }
  assert.match(String((await slowly)[0]), /^HTTP\/1.1 200 /);
  socket.destroy();
  // Half of the request's line, of its headers, of its body; and then silence or the end.
  for (const length of [3, 20, request.indexOf("\r\n\r\n"), request.length - 2])
    for (const patience of [50, 150]) await sendBytes(gateway.url, request.slice(0, length), { patience });
  // Three at once on one connection.
  const answers = await sendBytes(gateway.url, request.repeat(3), { expected: 3, patience: 5_000 });
  assert.deepEqual(answers.map(({ status }) => status), [200, 200, 200]);
  // Two half bodies were forwarded, and this origin answers without waiting for their end.
  assert.equal(await settledSince(spent), 60);
});

test("bodies of every size come and go byte for byte, and workerd stays as it is", { timeout: 600_000 }, async (t) => {
  const sizes = [0, 1, 4_095, 4_096, 65_535, 65_536, 65_537, MB, 10 * MB, ...(isFull ? [200 * MB, 1_000 * MB] : [])];
  const before = residentMegabytes();
  for (const path of ["/body", "/whole"])
    for (const size of sizes)
      for (const chunked of [false, true]) {
        const exchange = gateway.open("POST", path, {
          headers: { authorization, host: "bodies.example.com", ...(chunked ? { "transfer-encoding": "chunked" } : { "content-length": String(size) }) },
        });
        const sent = createHash("sha256");
        const received = createHash("sha256");
        const answered = exchange.answer.then(async (answer) => {
          for (let piece; (piece = await answer.next()) !== null;) received.update(piece);
          return answer;
        });
        for (let at = 0; at < size; at += MB) {
          const piece = Buffer.alloc(Math.min(MB, size - at), `${at}-`);
          sent.update(piece);
          await exchange.write(piece);
        }
        exchange.end();
        assert.equal((await answered).status, 200, `${path} ${size}`);
        assert.equal(received.digest("hex"), sent.digest("hex"), `${path}, ${size} bytes`);
      }
  const grown = residentMegabytes("VmHWM") - before;
  assert.ok(grown < 200, `workerd grew by ${grown} MB`);
  show(t, { sizes: sizes.join(", "), "both ways, with a length and chunked, handed on and carried": sizes.length * 4, "workerd grew by at most": `${grown.toFixed(0)} MB` });
});

test("a body without end is handed on as it comes, and over when the client leaves", async (t) => {
  const { spent } = await customer.balance();
  const before = residentMegabytes();
  const read = isFull ? 2_000 * MB : 50 * MB;
  for (const path of ["/body", "/whole"]) {
    const headers = { authorization, host: "bodies.example.com", "x-endless": "yes" };
    const answered = await gateway.open("POST", path, { headers }).end();
    for (let bytes = 0; bytes < read;) bytes += (await answered.next()).length;
    const isOver = once(bodies.over, "close");
    answered.reset();
    // The origin is not read any further.
    await isOver;
  }
  const grown = residentMegabytes() - before;
  assert.ok(grown < 150, `workerd grew by ${grown} MB`);
  // Who leaves pays: the origin has answered.
  assert.equal(await settledSince(spent), 2);
  show(t, { "read before the client left, in MB": read / MB, "handed on and carried": 2, "workerd grew by": `${grown.toFixed(0)} MB` });
});

test("afterwards the books are sound", async () => {
  gateway.clock.advance(100_000);
  await areSound(gateway, customer.id);
});

// What an origin sends beyond its answer, the runtime may take for the next one, on the same connection: until
// that is gone, so that each of them is tried by itself.
async function isMended() {
  raw.says("HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nmended");
  for (;;) {
    const answered = await gateway.call(customer.key, "GET", "/work", { headers: { host: "raw.example.com" } }).catch(() => null);
    await settledSince(0);
    if (answered?.text() === "mended") return;
  }
}

// What was spent since, when nothing is held any more.
async function settledSince(spent) {
  for (;;) {
    const now = await customer.balance();
    if (now.held === 0) return now.spent - spent;
    await sleep(5);
  }
}

// An origin that says what it is told to, whatever it is asked.
async function rawOrigin(t) {
  let words = "";
  let drip = false;
  const sockets = new Set();
  const server = net.createServer((socket) => {
    sockets.add(socket);
    socket.on("error", () => {});
    socket.on("close", () => sockets.delete(socket));
    socket.once("data", async () => {
      if (!drip) return socket.end(words);
      socket.write("HTTP/1.1 200 OK\r\n");
      for (let n = 0; sockets.has(socket) && n < 100_000; n++) {
        socket.write(`X-${n}: ${n}\r\n`);
        await sleep(5);
      }
    });
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  t.after(() => {
    for (const socket of sockets) socket.destroy();
    server.close();
  });
  return {
    url: `http://127.0.0.1:${server.address().port}`,
    says: (text) => ([words, drip] = [text, false]),
    drips: () => (drip = true),
  };
}

// An origin that answers with the body that it gets, as it comes, or with one that never ends: `over` emits "close"
// when nobody reads that any more.
async function bodyOrigin(t) {
  const over = new EventEmitter();
  const piece = Buffer.alloc(65_536, "endless ");
  const server = http.createServer((incoming, outgoing) => {
    if (!incoming.headers["x-endless"]) return incoming.pipe(outgoing);
    const more = () => {
      while (outgoing.write(piece));
    };
    outgoing.on("drain", more).on("close", () => over.emit("close"));
    more();
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  t.after(() => {
    server.closeAllConnections();
    server.close();
  });
  return { url: `http://127.0.0.1:${server.address().port}`, over };
}
