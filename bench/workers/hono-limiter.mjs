// hono-rate-limiter on a store of Durable Objects: one for each caller, its count in storage. (The store
// that its authors publish, @hono-rate-limiter/cloudflare, cannot be installed beside a current wrangler.
// This one does what theirs does, with one call and one write for each request.)
import { DurableObject } from "cloudflare:workers";
import { Hono } from "hono";
import { rateLimiter } from "hono-rate-limiter";

export class Limiter extends DurableObject {
  async update(by, windowMs) {
    let value = await this.ctx.storage.get("value");
    if (value === undefined || value.resetTime <= Date.now()) value = { totalHits: 0, resetTime: Date.now() + windowMs };
    value = { ...value, totalHits: value.totalHits + by };
    this.ctx.storage.put("value", value);
    return value;
  }

  reset() {
    return this.ctx.storage.delete("value");
  }
}

class ObjectStore {
  #objects;
  #windowMs;

  constructor(objects) {
    this.#objects = objects;
  }

  init({ windowMs }) {
    this.#windowMs = windowMs;
  }

  async increment(key) {
    const { totalHits, resetTime } = await this.#objects.getByName(key).update(1, this.#windowMs);
    return { totalHits, resetTime: new Date(resetTime) };
  }

  async decrement(key) {
    await this.#objects.getByName(key).update(-1, this.#windowMs);
  }

  resetKey(key) {
    return this.#objects.getByName(key).reset();
  }
}

const app = new Hono();
let limited = null;

app.use((context, next) => {
  limited ??= rateLimiter({
    windowMs: 60_000,
    limit: 1_000_000,
    standardHeaders: "draft-7",
    keyGenerator: ({ req }) => req.header("authorization"),
    store: new ObjectStore(context.env.LIMITER),
  });
  return limited(context, next);
});

app.all("*", (context) => {
  const url = new URL(context.req.url);
  return fetch(context.env.ORIGIN + url.pathname + url.search, context.req.raw);
});

export default app;
