// Keep a copy of a feed in a file: FEEDSVC_TOKEN=… node sync.mjs URL FILE KEYCOLUMN…
//
// URL is the feed's, with the columns and filters that are wanted. In a browser the same loop keeps
// rows and cursor in IndexedDB, both in one transaction.
import { readFileSync, renameSync, writeFileSync } from "node:fs";

const [url, file, ...key] = process.argv.slice(2);
const headers = { Authorization: `Bearer ${process.env.FEEDSVC_TOKEN}` };

// A delta, or without a cursor an export: the copy that all of it makes, or an error.
async function followed({ cursor, rows }) {
  const given = cursor ? { since: cursor, wait: 20 } : { frames: 1, format: "ndjson" };
  const target = new URL(url);
  for (const [name, value] of Object.entries(given)) target.searchParams.set(name, value);
  const answer = await fetch(target, { headers, signal: AbortSignal.timeout(60_000) });
  if (answer.status === 409) return { cursor: null, rows };  // they stay until the export is whole
  if (!answer.ok) throw new Error(await answer.text());
  const lines = (await answer.text()).trimEnd().split("\n").map(line => JSON.parse(line));
  const next = new Map(cursor ? rows : []);
  const ident = object => JSON.stringify(key.map(name => object[name]));
  for (const { row, upsert = row, delete: gone, end, sync = end } of lines) {
    if (upsert) next.set(ident(upsert), upsert);
    if (gone) next.delete(ident(gone));
    if (sync) return { cursor: sync.cursor, rows: [...next] };
  }
  throw new Error("the answer broke off");
}

let copy = { cursor: null, rows: [] }, pause = 1;
try { copy = JSON.parse(readFileSync(file)); } catch { /* there is none yet */ }
for (;;) {
  try {
    copy = await followed(copy);
    writeFileSync(`${file}.new`, JSON.stringify(copy));
    renameSync(`${file}.new`, file);
    pause = 1;
  } catch (error) {
    console.error(error.message);
    await new Promise(done => setTimeout(done, 1000 * pause * Math.random()));
    pause = Math.min(2 * pause, 32);
  }
}
