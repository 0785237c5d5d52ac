// A tenant's clients, an object a line, as fastify's users would send them: no token, no limits.
// Arguments: the listening socket's number, the database's URL.
"use strict";

const { Transform } = require("node:stream");
const fastify = require("fastify")({ logger: false });
const { Pool } = require("pg");
const QueryStream = require("pg-query-stream");

const [descriptor, url] = process.argv.slice(2);
const pool = new Pool({ connectionString: url });
const SQL = "SELECT * FROM wedding.clients WHERE tenant_id = $1 ORDER BY id";

fastify.get("/clients", async (request, reply) => {
  const client = await pool.connect();
  const rows = client.query(new QueryStream(SQL, [request.query.tenant], { batchSize: 1000 }));
  const lines = new Transform({
    writableObjectMode: true,
    transform(row, _encoding, done) {
      done(null, JSON.stringify(row) + "\n");
    },
  });
  rows.once("close", () => client.release());
  rows.once("error", (error) => lines.destroy(error));
  return reply.type("application/x-ndjson").send(rows.pipe(lines));
});

fastify.ready().then(() => fastify.server.listen({ fd: Number(descriptor) }));
