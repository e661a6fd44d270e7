// Requests that two readers could part differently, and what no client library would send: whatever comes of them,
// each request that reaches the origin is a call of its own, signed as it arrived.
import assert from "node:assert/strict";
import { createHmac } from "node:crypto";
import test from "node:test";
import { openAccount } from "../e2e/harness/account.mjs";
import { exportOf } from "../e2e/harness/books.mjs";
import { secrets, startGateway } from "../e2e/harness/gateway.mjs";
import { startOrigin } from "../e2e/harness/origin.mjs";
import { each, sendBytes } from "../e2e/harness/raw.mjs";
import { show } from "../e2e/harness/scale.mjs";

const origin = await startOrigin(test);
const gateway = await startGateway(test, {
  policy: `
[gateway]
base_path = "/v1"
key_prefix = "tk_live"
[origins]
default = "${origin.url}"
[pools.credits]
[plans.free]
grants = [{ pool = "credits", amount = 1000000, renews = "never" }]
[[routes]]
match = "POST /cheap"
cost = 1
[[routes]]
match = "GET /cheap"
cost = 1
[[routes]]
match = "POST /dear"
cost = 1000
[[routes]]
match = "GET /dear"
cost = 1000
[[routes]]
match = "POST /open"
public = true
root = true
`,
});
const customer = await openAccount(gateway);
const auth = `Authorization: Bearer ${customer.key}`;
const HIDDEN = `GET /v1/dear HTTP/1.1\r\nHost: api.example.com\r\n\r\n`;
const PAID = `POST /v1/dear HTTP/1.1\r\nHost: api.example.com\r\n${auth}\r\nContent-Length: 0\r\n\r\n`;

const post = (headers, body = "", path = "/v1/cheap") => `POST ${path} HTTP/1.1\r\nHost: api.example.com\r\n${auth}\r\n${headers}\r\n\r\n${body}`;
const chunk = (bytes) => `${bytes.length.toString(16)}\r\n${bytes}\r\n`;
const both = (te) => post(`Content-Length: ${HIDDEN.length + 5}\r\n${te}`, `0\r\n\r\n${HIDDEN}`);

const FORMS = {
  "both lengths, the chunks' end first": both("Transfer-Encoding: chunked"),
  "both lengths, the other way round": post("Transfer-Encoding: chunked\r\nContent-Length: 4", `${chunk(HIDDEN)}0\r\n\r\n`),
  ...Object.fromEntries(
    [
      "Transfer-Encoding : chunked", "Transfer-Encoding: xchunked", "Transfer-Encoding: chunked, identity", "Transfer-Encoding: identity, chunked",
      "Transfer-Encoding: \x0bchunked", "Transfer-Encoding:\tchunked", " Transfer-Encoding: chunked", "X: y\nTransfer-Encoding: chunked", "Transfer-Encoding\r\n : chunked",
      "Transfer-Encoding: chunked\r\nTransfer-Encoding: x", "Transfer-Encoding: x\r\nTransfer-Encoding: chunked", "TRANSFER-ENCODING: CHUNKED", "Transfer_Encoding: chunked",
      "Transfer-Encoding: \"chunked\"", "Transfer-Encoding: chunked;q=1", "Transfer-Encoding: gzip, chunked", "Transfer-Encoding: chun\r\n ked", "TE: chunked", "Transfer-Encoding: chunked\0",
    ].map((te) => [`beside a length: ${JSON.stringify(te)}`, both(te)]),
  ),
  ...Object.fromEntries(
    ["0\r\nContent-Length: 50", "50\r\nContent-Length: 0", "+5", "-1", "5, 5", "5, 50", "0x5", "5 5", " 5", "5 ", "05", "5.0", "5e0", "", "99999999999999999999", "18446744073709551621", "5\x0b", "\u0665"].map((length) => [
      `Content-Length: ${JSON.stringify(length)}`,
      post(`Content-Length: ${length}`, `12345${HIDDEN}`),
    ]),
  ),
  ...Object.fromEntries(
    [`5;ext=${"x".repeat(50)}\r\nhello\r\n0\r\n\r\n`, "5\nhello\n0\n\n", "0x5\r\nhello\r\n0\r\n\r\n", "+5\r\nhello\r\n0\r\n\r\n", "-5\r\nhello\r\n0\r\n\r\n", "5 \r\nhello\r\n0\r\n\r\n", "fffffffffffffffff5\r\nhello\r\n0\r\n\r\n", "5\r\nhelloXX0\r\n\r\n", "5\r\nhello\r\n0\r\nHost: evil\r\nAuthorization: x\r\n\r\n", "5\r\nhel", "\r\n0\r\n\r\n", "g\r\n\r\n", "00000005\r\nhello\r\n000\r\n\r\n"].map((body) => [
      `chunks: ${JSON.stringify(body).slice(0, 40)}`,
      post("Transfer-Encoding: chunked", `${body}${HIDDEN}`),
    ]),
  ),
  "a GET with a request as its body": `GET /v1/cheap HTTP/1.1\r\nHost: api.example.com\r\n${auth}\r\nContent-Length: ${PAID.length}\r\n\r\n${PAID}`,
  "a HEAD with a request as its body": `HEAD /v1/cheap HTTP/1.1\r\nHost: api.example.com\r\n${auth}\r\nContent-Length: ${PAID.length}\r\n\r\n${PAID}`,
  "a body without a length": `GET /v1/cheap HTTP/1.1\r\nHost: api.example.com\r\n${auth}\r\n\r\n${HIDDEN}`,
  "pipelined, all paid": post("Content-Length: 0") + PAID + post("Content-Length: 3", "abc"),
  "pipelined behind a public one": `POST /open HTTP/1.1\r\nHost: api.example.com\r\nContent-Length: 0\r\n\r\n${PAID}`,
  "100 asked for": post(`Expect: 100-continue\r\nContent-Length: ${PAID.length}`, PAID),
  "lines that end in LF": post("Content-Length: 0").replaceAll("\r\n", "\n"),
  "a line that ends in CR": post("Content-Length: 0\rX: y"),
  "a folded header": post("X-A: one\r\n two\r\nContent-Length: 0"),
  "a header name with a space": post("X A: one\r\nContent-Length: 0"),
  "a header without a colon": post("nothing\r\nContent-Length: 0"),
  "NUL in a header": post("X-A: a\0b\r\nContent-Length: 0"),
  "two hosts": `POST /v1/cheap HTTP/1.1\r\nHost: api.example.com\r\nHost: other.example.com\r\n${auth}\r\nContent-Length: 0\r\n\r\n`,
  "no host": `POST /v1/cheap HTTP/1.1\r\n${auth}\r\nContent-Length: 0\r\n\r\n`,
  ...Object.fromEntries(
    ["api.example.com:80", "api.example.com:99999", "user@api.example.com", "api.example.com/v1/dear", "api.example.com?x", "api.example.com#x", "api.example.com\\@evil", "[::1]", "127.0.0.1", "..", "a b", "xn--nxasmq6b", "%61pi.example.com", "API.EXAMPLE.COM", "api.example.com."].map((host) => [
      `Host: ${host}`,
      `POST /v1/cheap HTTP/1.1\r\nHost: ${host}\r\n${auth}\r\nContent-Length: 0\r\n\r\n`,
    ]),
  ),
  ...Object.fromEntries(
    [
      "POST http://api.example.com/v1/dear HTTP/1.1", "POST https://evil.example.com/v1/dear HTTP/1.1", "POST //evil.example.com/v1/dear HTTP/1.1", "POST api.example.com:80 HTTP/1.1", "POST * HTTP/1.1", "POST v1/cheap HTTP/1.1",
      "POST  /v1/cheap HTTP/1.1", "POST\t/v1/cheap\tHTTP/1.1", "POST /v1/cheap", "POST /v1/cheap HTTP/1.0", "POST /v1/cheap HTTP/0.9", "POST /v1/cheap HTTP/2.0", "POST /v1/cheap HTTP/1.1 x", "post /v1/cheap HTTP/1.1", "Post /v1/cheap HTTP/1.1", "GET\0 /v1/cheap HTTP/1.1",
      "PRI * HTTP/2.0", "CONNECT api.example.com:443 HTTP/1.1", "TRACE /v1/cheap HTTP/1.1", "PURGE /v1/cheap HTTP/1.1", "PROPFIND /v1/cheap HTTP/1.1", "\r\nPOST /v1/cheap HTTP/1.1", "POST /v1/cheap?a=%0d%0aX:%20y HTTP/1.1", "POST /v1/cheap%0d%0a HTTP/1.1", "POST /v1/cheap\u00ff HTTP/1.1",
    ].map((line) => [JSON.stringify(line), `${line}\r\nHost: api.example.com\r\n${auth}\r\nContent-Length: 0\r\n\r\n`]),
  ),
  ...Object.fromEntries(
    ["Connection: X-Tollgate-Signature, X-Tollgate-Call", "Connection: Authorization", "Connection: Content-Length", "Connection: Host", "Connection: Transfer-Encoding", "Upgrade: h2c\r\nConnection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA", "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13"].map((header) => [
      header.split("\r\n")[0],
      post(`${header}\r\nContent-Length: 0`),
    ]),
  ),
  "64 kB of a header": post(`X-Long: ${"x".repeat(65_536)}\r\nContent-Length: 0`),
  "2,000 headers": post(`${Array.from({ length: 2_000 }, (_, n) => `X-${n}: 1`).join("\r\n")}\r\nContent-Length: 0`),
};

const LINES = ["call", "account", "key", "plan", "external-id"];

// The signature is of exactly what arrived.
function isSigned({ method, path, headers }) {
  const [, t, v1] = /^t=(\d+),v1=([0-9a-f]{64})$/.exec(headers["x-tollgate-signature"]) ?? [];
  const [pathOnly, query = ""] = path.split(/\?(.*)/s);
  const signed = [t, method, pathOnly, query, ...LINES.map((name) => headers[`x-tollgate-${name}`] ?? "")];
  return v1 === createHmac("sha256", secrets.ORIGIN_SECRET).update(signed.join("\n")).digest("hex");
}

test("no way of writing a request hides another in it, or gets one past its price", { timeout: 300_000 }, async (t) => {
  const statuses = new Map();
  await each(Object.entries(FORMS), 8, async ([form, bytes]) => {
    const answers = await sendBytes(gateway.url, bytes, { patience: 400 });
    for (const { status } of answers) statuses.set(status, (statuses.get(status) ?? 0) + 1);
    if (answers.length === 0) statuses.set("closed", (statuses.get("closed") ?? 0) + 1);
    // What the runtime says itself, of what it cannot read, before the Worker is asked.
    for (const { status, body } of answers) assert.ok(status !== 500 || body === "Internal Server Error", `${form}: ${body}`);
  });
  const thrown = gateway.logs().filter(({ message }) => message?.startsWith("Uncaught") && !message.startsWith("Uncaught exception: kj/compat/"));
  assert.deepEqual(thrown, []);
  // What is on its way arrives, is settled, and nothing else is.
  gateway.clock.advance(400_000);
  const { calls } = await exportOf(gateway, customer.id);
  const log = new Map(calls.map((call) => [call.id, call]));
  const seen = new Set();
  let open = 0;
  for (const request of origin.requests) {
    assert.ok(isSigned(request), `${request.method} ${request.path} is not signed as it arrived`);
    const call = request.headers["x-tollgate-call"];
    if (request.path === "/open") {
      open += 1;
      assert.equal(call, undefined);
      continue;
    }
    assert.ok(!seen.has(call), `${call} arrived twice`);
    seen.add(call);
    const { endpoint, charged, state } = log.get(call);
    assert.equal(request.path.split("?")[0], `/v1${endpoint}`);
    assert.ok(charged === (endpoint === "/dear" ? 1_000 : 1) || charged === 0, `${call}: ${charged}, ${state}`);
    for (const [name, value] of Object.entries(request.headers)) {
      assert.ok(!/[\r\n\0]/.test(name + value), `${name} of ${call}`);
      assert.ok(!value.includes(customer.key), `${name} tells the key`);
    }
  }
  // It is alive, and so is its connection to the origin: nothing was left in it for the next caller.
  const after = await customer.finished("POST", "/v1/cheap", { body: "mine" });
  assert.deepEqual([after.status, after.json().body], [200, "mine"]);
  show(t, {
    forms: Object.keys(FORMS).length,
    "reached the origin, each a call of its own": seen.size,
    "public": open,
    answers: [...statuses].map(([status, count]) => `${status} × ${count}`).join(", "),
  });
});
