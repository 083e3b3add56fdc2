// What a page does with kinto.js. Reads its settings as JSON from the standard input, and
// writes what it got as JSON to the standard output.
const fs = require("node:fs");
const KintoClient = require("kinto/lib/cjs/http").default;

async function bytesAt(location, headers) {
  const response = await fetch(location, { headers });
  if (!response.ok) throw new Error(`${response.status} for ${location}`);
  return Buffer.from(await response.arrayBuffer()).toString("base64");
}

async function refusal(promise) {
  try {
    await promise;
  } catch (error) {
    return error.response ? error.response.status : String(error);
  }
  return null;
}

async function main({ url, authorization, files }) {
  const headers = { Authorization: authorization };
  const client = new KintoClient(url, { headers });
  const { capabilities } = await client.fetchServerInfo();
  const collection = client.bucket("js").collection("docs");
  const [first, second] = files.map((content) => `data:text/plain;base64,${content}`);

  const added = await collection.addAttachment(
    first,
    { id: "one", title: "first" },
    { filename: "first.txt", permissions: { read: ["system.Everyone"] } },
  );
  const downloaded = await bytesAt(added.data.attachment.location, headers);

  const safeAgain = await refusal(
    collection.addAttachment(second, { id: "one" }, { safe: true, filename: "x.txt" }),
  );
  const stale = await refusal(
    collection.addAttachment(second, { id: "one" }, { safe: true, last_modified: 42 }),
  );
  const replaced = await collection.addAttachment(
    second,
    { id: "one", title: "second" },
    { filename: "second.txt", safe: true, last_modified: added.data.last_modified },
  );
  const downloadedAgain = await bytesAt(replaced.data.attachment.location, headers);
  const named = await collection.addAttachment(
    "data:text/plain;name=inside.txt;base64," + files[0],
    {},
    { safe: true },
  );

  await collection.removeAttachment("one");
  const removed = await collection.getRecord("one");
  return {
    capability: capabilities.attachments,
    added,
    downloaded,
    safeAgain,
    stale,
    replaced,
    downloadedAgain,
    named,
    removed,
  };
}

main(JSON.parse(fs.readFileSync(0, "utf-8"))).then(
  (result) => console.log(JSON.stringify(result)),
  (error) => {
    console.error(error);
    process.exit(1);
  },
);
