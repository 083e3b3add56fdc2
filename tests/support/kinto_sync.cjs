// Two clients of kinto.js, of which one is offline for a while, on one collection after another.
// Reads its settings as JSON from the standard input, and writes what they saw to the standard
// output.
require("fake-indexeddb/auto");
const fs = require("node:fs");
const Kinto = require("kinto").default;

class Client {
  constructor(name, { url, authorization, bucket, hooks }, { collection, strategy }) {
    this.headers = { Authorization: authorization };
    this.records = `${url}/buckets/${bucket}/collections/${collection}/records`;
    const kinto = new Kinto({
      remote: url,
      bucket,
      headers: this.headers,
      adapterOptions: { dbName: name },
    });
    // The documentation's own lines.
    this.local = kinto.collection(collection, { hooks: new Function(`${hooks}; return hooks`)() });
    this.strategy = strategy;
  }

  async sync() {
    const result = await this.local.sync({ strategy: this.strategy });
    return {
      ok: result.ok,
      errors: result.errors.map(({ path, error, message }) => ({ path, error, message })),
      conflicts: result.conflicts,
    };
  }

  // A user reviews the conflicts, and keeps the local versions.
  async resolve(conflicts) {
    for (const conflict of conflicts) {
      await this.local.resolve(conflict, conflict.local);
    }
  }

  create(id) {
    return this.local.create({ id, title: "new" }, { useRecordId: true });
  }

  async edit(id, title) {
    const { data } = await this.local.get(id);
    await this.local.update({ ...data, title });
  }

  async attach(id, content) {
    const form = new FormData();
    form.set("attachment", new Blob([content], { type: "text/plain" }), "file.txt");
    await this.request("POST", id, form);
  }

  detach(id) {
    return this.request("DELETE", id);
  }

  async request(method, id, body) {
    const url = `${this.records}/${id}/attachment`;
    const response = await fetch(url, { method, body, headers: this.headers });
    if (!response.ok) throw new Error(`${response.status} for ${method} ${url}`);
  }

  async copies() {
    const { data } = await this.local.list();
    return Object.fromEntries(data.map((record) => [record.id, record]));
  }
}

async function run(settings, { collection, strategy }) {
  const alice = new Client(`alice-${collection}`, settings, { collection, strategy });
  const bob = new Client(`bob-${collection}`, settings, { collection, strategy });
  const records = ["untouched", "replaced", "added", "removed", "again", "gone", "plain"];
  for (const id of records) await alice.create(id);
  await alice.sync();
  for (const id of ["untouched", "replaced", "removed", "again"]) {
    await alice.attach(id, `${id}, at first`);
  }
  await alice.detach("again");
  await alice.sync();
  await bob.sync();

  // Bob is offline now, and writes.
  for (const id of records) await bob.edit(id, "of bob");
  await bob.local.delete("gone");
  await bob.create("created");
  // Meanwhile, files are added and removed.
  await alice.attach("replaced", "replaced, later");
  await alice.attach("added", "added, later");
  await alice.detach("removed");
  await alice.attach("again", "again, later");
  await alice.attach("gone", "gone, later");
  await alice.attach("created", "created, later");

  const syncs = [await bob.sync()];
  const { conflicts } = syncs[0];
  if (conflicts.length > 0) {
    await bob.resolve(conflicts);
    syncs.push(await bob.sync());
    // Conflicts that are detected only when they are pushed.
    await bob.resolve(syncs[1].conflicts);
    if (syncs[1].conflicts.length > 0) syncs.push(await bob.sync());
  }
  const last = [await alice.sync(), await bob.sync()];
  return {
    syncs,
    last,
    copies: { alice: await alice.copies(), bob: await bob.copies() },
  };
}

async function main(settings) {
  const results = {};
  for (const each of settings.runs) results[each.collection] = await run(settings, each);
  return results;
}

main(JSON.parse(fs.readFileSync(0, "utf-8"))).then(
  (result) => console.log(JSON.stringify(result)),
  (error) => {
    console.error(error);
    process.exit(1);
  },
);
