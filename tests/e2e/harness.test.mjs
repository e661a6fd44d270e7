// The harness itself: what the other files rely on.
import assert from "node:assert/strict";
import { test } from "node:test";
import { startGateway } from "./harness/gateway.mjs";

const MINUTE = 60_000;
const DAY = 24 * 60 * MINUTE;

test("the bundle runs in workerd and reaches its object, whose state outlives a kill", async (t) => {
  const gateway = await startGateway(t);
  const told = async () => (await gateway.send("GET", "/")).json().told;
  assert.equal(await told(), 1);
  assert.equal(await told(), 2);
  await gateway.restart();
  assert.equal(await told(), 3);
});

test("the clock moves in a running workerd, forwards and back", async (t) => {
  const gateway = await startGateway(t);
  const seen = async () => (await gateway.send("GET", "/")).json().now;
  const about = (actual, expected) =>
    assert.ok(Math.abs(actual - expected) < MINUTE, `${actual} is not about ${expected}`);
  about(await seen(), Date.now());
  gateway.clock.advance(40 * DAY);
  about(await seen(), Date.now() + 40 * DAY);
  gateway.clock.advance(-41 * DAY);
  about(await seen(), Date.now() - DAY);
  gateway.clock.moveTo("2031-01-01T00:00:00Z");
  about(await seen(), Date.parse("2031-01-01T00:00:00Z"));
});

test("what the Worker logs, and the policy it runs under, are the test's", async (t) => {
  const gateway = await startGateway(t, { policy: "# eleven\n\n" });
  await gateway.send("GET", "/some/path");
  const line = await gateway.log((line) => line.url?.endsWith("/some/path"));
  assert.equal(line.policy_bytes, 10);
});
