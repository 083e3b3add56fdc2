// What a page or an app does with tus-js-client, in Node. Reads its settings as JSON from the
// standard input, and writes what became of the upload as JSON to the standard output.
const fs = require("node:fs");
const tus = require("tus-js-client");

function main({ endpoint, headers, path, metadata, chunkSize, pauses }) {
  const requests = [];
  let furthest = 0;
  let again = 0; // Bytes that were sent after an offset that had been sent before.
  return new Promise((resolve, reject) => {
    const upload = new tus.Upload(fs.createReadStream(path), {
      endpoint,
      headers,
      metadata,
      chunkSize: chunkSize || Infinity,
      uploadSize: fs.statSync(path).size,
      retryDelays: pauses,
      onBeforeRequest: (request) => requests.push(request.getMethod()),
      onProgress: (sent) => {
        if (sent < furthest) again += furthest - sent;
        furthest = sent;
      },
      onError: reject,
      onSuccess: () => resolve({ url: upload.url, requests, again }),
    });
    upload.start();
  });
}

main(JSON.parse(fs.readFileSync(0, "utf8"))).then(
  (result) => process.stdout.write(JSON.stringify(result)),
  (error) => {
    process.stderr.write(`${error.stack || error}\n`);
    process.exit(1);
  },
);
