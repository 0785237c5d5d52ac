// A page from Redis, as fastify's users would send it: no token, no limits, no log.
// Arguments: the listening socket's number, the Redis URL, the page's key.
"use strict";

const fastify = require("fastify")({ logger: false });
const Redis = require("ioredis");

const [descriptor, url, key] = process.argv.slice(2);
const redis = new Redis(url);

fastify.get("/page", async (_request, reply) => {
  const page = await redis.getBuffer(key);
  return reply.type("application/x-ndjson").send(page);
});

fastify.ready().then(() => fastify.server.listen({ fd: Number(descriptor) }));
