// The scripted origin and the client that hangs up, without a gateway between them.
import assert from "node:assert/strict";
import { test } from "node:test";
import { open, send } from "./harness/client.mjs";
import {
  answer,
  hold,
  large,
  neverAnswer,
  resetBeforeHeaders,
  resetInBody,
  startOrigin,
} from "./harness/origin.mjs";

test("an unscripted path is echoed, and what arrived is remembered", async (t) => {
  const origin = await startOrigin(t);
  const { status, json } = await send(`${origin.url}`, {
    method: "POST",
    path: "/a//b?q=1",
    body: "hello",
    headers: { "x-kept": "yes" },
  });
  assert.equal(status, 200);
  assert.equal(json().body, "hello");
  const received = await origin.request(0);
  assert.equal(received.path, "/a//b?q=1");
  assert.equal(received.headers["x-kept"], "yes");
  assert.equal(String(await received.body), "hello");
});

test("a scripted path answers as told, by method", async (t) => {
  const origin = await startOrigin(t);
  origin.on("GET /busy", answer({ status: 503, headers: { "retry-after": "1" }, body: "later" }));
  const busy = await send(`${origin.url}/busy`);
  assert.deepEqual([busy.status, busy.headers["retry-after"], busy.text()], [503, "1", "later"]);
  assert.equal((await send(`${origin.url}/busy`, { method: "POST" })).status, 200);
});

test("the connection breaks where the script says", async (t) => {
  const origin = await startOrigin(t);
  origin.on("/never-begun", resetBeforeHeaders());
  origin.on("/broken", resetInBody("some"));
  await assert.rejects(send(`${origin.url}/never-begun`), { code: "ECONNRESET" });
  const broken = await open(`${origin.url}/broken`).end();
  assert.equal(broken.status, 200);
  assert.equal(String(await broken.next()), "some");
  await assert.rejects(broken.next());
});

test("a held answer is streamed on command, and a client that leaves is noticed", async (t) => {
  const origin = await startOrigin(t);
  const held = hold();
  origin.on("/stream", held);
  const answer = open(`${origin.url}/stream`).end();
  const exchange = await held.next();
  exchange.begin(200, { "x-begun": "1" });
  const begun = await answer;
  assert.equal(begun.headers["x-begun"], "1");
  await exchange.write("one");
  assert.equal(String(await begun.next()), "one");
  begun.hangUp();
  await exchange.left;
});

test("a client can leave before any answer", async (t) => {
  const origin = await startOrigin(t);
  origin.on("/never", neverAnswer());
  const exchange = open(`${origin.url}/never`, { method: "POST" });
  exchange.end();
  const received = await origin.request(0);
  exchange.hangUp();
  await received.left;
});

test("a large body arrives whole", async (t) => {
  const origin = await startOrigin(t);
  origin.on("/large", large(1_000_001));
  assert.equal((await send(`${origin.url}/large`)).body.length, 1_000_001);
});
