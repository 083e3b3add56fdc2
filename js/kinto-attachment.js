// Attaches files to Kinto records, from pages and from Node 20 or later. The interface is
// described in kinto-attachment.d.ts.

const RECORD = {
  pattern: /^\/buckets\/[^/?#]+\/collections\/[^/?#]+\/records\/[^/?#]+$/,
  example: "/buckets/b/collections/c/records/r",
};
const COLLECTION = {
  pattern: /^\/buckets\/[^/?#]+\/collections\/[^/?#]+$/,
  example: "/buckets/b/collections/c",
};

const TRY_AGAIN = [409, 429, 503]; // Of Kinto's errors: nothing was stored.
const NO_ANSWER = [502, 503, 504]; // Of a proxy in front: Kinto may have stored the file.
const LONGEST_PAUSE = 60; // Seconds.

export class AttachmentError extends Error {
  name = "AttachmentError";

  constructor(message, { status = 0, kinto, retryAfter, cause } = {}) {
    super(message, { cause });
    this.status = status;
    this.code = kinto?.code;
    this.errno = kinto?.errno;
    this.error = kinto?.error;
    this.details = kinto?.details;
    this.retryAfter = retryAfter;
  }
}

export class AttachmentClient {
  #server;
  #headers;
  #retries;
  #pause;

  constructor(server, { headers = {}, retries = 2, pause = 1 } = {}) {
    this.#server = String(server).replace(/\/+$/, "");
    this.#headers = typeof headers === "function" ? headers : () => headers;
    this.#retries = retries;
    this.#pause = pause;
  }

  async upload(file, options) {
    const upload = planned(file, options);
    // Other ways to send a file would be chosen here: the plan does not depend on the way.
    return this.#sendForm(upload);
  }

  async remove(record, { ifMatch, signal } = {}) {
    checkURI("record", record, RECORD);
    const request = {
      method: "DELETE",
      path: `${record}/attachment`,
      headers: preconditions({ ifMatch }),
      signal,
      isRepeatable: true,
      isDone: (existing) => existing.attachment == null,
    };
    await this.#send(request);
  }

  url(record, { disposition, filename } = {}) {
    checkURI("record", record, RECORD);
    const query = new URLSearchParams();
    if (disposition !== undefined) query.set("disposition", disposition);
    if (filename !== undefined) query.set("filename", filename);
    return `${this.#server}${record}/attachment?${query}`.replace(/\?$/, "");
  }

  async #sendForm(upload) {
    const { record, collection, blob, signal, onProgress } = upload;
    const response = await this.#send({
      method: "POST",
      path: record ? `${record}/attachment` : `${collection}/attachments`,
      headers: preconditions(upload),
      body: formOf(upload),
      signal,
      onSent: onProgress && ((sent) => onProgress(Math.min(sent, blob.size), blob.size)),
      // Another POST to a collection would create another record.
      isRepeatable: record !== undefined,
      isDone: (existing) => isStored(upload, existing),
    });
    onProgress?.(blob.size, blob.size);
    return uploaded(upload, response);
  }

  /** Send a request, again if that is safe; Kinto's response, or the record if it is done. */
  async #send(request) {
    let wasLost = false; // An earlier attempt, whose answer nobody knows.
    for (let attempt = 0; ; attempt++) {
      request.signal?.throwIfAborted();
      const response = await this.#attempt(request);
      if (response.status >= 200 && response.status < 300) return response;
      if (response.status === 412 && wasLost) {
        const existing = response.json?.details?.existing;
        if (existing && (await request.isDone(existing))) return { existing };
      }
      const isLost = response.isLost || (NO_ANSWER.includes(response.status) && !response.kinto);
      const mayRepeat = isLost
        ? request.isRepeatable
        : response.kinto && TRY_AGAIN.includes(response.status);
      // Not all clients of a server that was down come back at the same moment.
      const seconds = response.retryAfter ?? this.#pause * 2 ** attempt * (0.5 + Math.random());
      if (!mayRepeat || attempt >= this.#retries || seconds > LONGEST_PAUSE) {
        throw errorOf(response);
      }
      wasLost ||= isLost;
      await sleep(seconds, request.signal);
    }
  }

  async #attempt({ method, path, headers, body, signal, onSent }) {
    const all = new Headers(await this.#headers());
    for (const [name, value] of Object.entries(headers)) all.set(name, value);
    const request = { method, url: this.#server + path, headers: all, body, signal, onSent };
    // fetch does not tell what was sent; XMLHttpRequest is not everywhere.
    const send = onSent && globalThis.XMLHttpRequest ? sendByXHR : sendByFetch;
    try {
      return await send(request);
    } catch (cause) {
      signal?.throwIfAborted();
      return { isLost: true, status: 0, cause };
    }
  }
}

async function sendByFetch({ method, url, headers, body, signal }) {
  const response = await fetch(url, { method, headers, body, signal });
  return read(response.status, (name) => response.headers.get(name), await response.text());
}

function sendByXHR({ method, url, headers, body, signal, onSent }) {
  return new Promise((resolve, reject) => {
    const xhr = new XMLHttpRequest();
    const abort = () => xhr.abort();
    xhr.open(method, url);
    headers.forEach((value, name) => xhr.setRequestHeader(name, value));
    xhr.upload.onprogress = ({ loaded }) => onSent(loaded);
    xhr.onload = () =>
      resolve(read(xhr.status, (name) => xhr.getResponseHeader(name), xhr.responseText));
    xhr.onerror = () => reject(new TypeError("The connection failed"));
    xhr.onabort = () => reject(signal.reason);
    xhr.onloadend = () => signal?.removeEventListener("abort", abort);
    signal?.addEventListener("abort", abort);
    xhr.send(body);
  });
}

function read(status, header, text) {
  const seconds = Number(header("Retry-After") ?? NaN); // Kinto sends no dates.
  const json = parsed(text);
  return {
    status,
    json,
    kinto: typeof json?.errno === "number" ? json : undefined,
    etag: header("ETag"),
    location: header("Location"),
    retryAfter: Number.isNaN(seconds) ? undefined : seconds,
  };
}

function parsed(text) {
  try {
    return JSON.parse(text);
  } catch {
    return undefined; // A proxy's page.
  }
}

function errorOf({ status, kinto, retryAfter, cause }) {
  const message = status === 0 ? "The server cannot be reached" : `The server answered ${status}`;
  const told = kinto?.message ?? kinto?.error;
  return new AttachmentError(told ?? message, { status, kinto, retryAfter, cause });
}

function sleep(seconds, signal) {
  return new Promise((resolve, reject) => {
    const stop = () => {
      clearTimeout(timer);
      reject(signal.reason);
    };
    const timer = setTimeout(() => {
      signal?.removeEventListener("abort", stop);
      resolve();
    }, seconds * 1000);
    signal?.addEventListener("abort", stop, { once: true });
  });
}

/** The options of an upload, checked, with the file as a `blob` that has a name. */
function planned(file, options = {}) {
  const { record, collection, ifMatch, ifNoneMatch } = options;
  if ((record === undefined) === (collection === undefined)) {
    throw new TypeError("Either record or collection is needed");
  }
  if (record !== undefined) checkURI("record", record, RECORD);
  else checkURI("collection", collection, COLLECTION);
  if (record === undefined && (ifMatch !== undefined || ifNoneMatch !== undefined)) {
    throw new TypeError("ifMatch and ifNoneMatch are for a record");
  }
  const filename = options.filename ?? file?.name;
  if (!filename) throw new TypeError("The file needs a name: set filename");
  const blob = blobOf(file, options.type ?? file?.type);
  return { ...options, blob, filename };
}

function checkURI(name, uri, { pattern, example }) {
  if (!pattern.test(uri)) throw new TypeError(`${name} should be like ${example}: ${uri}`);
}

function blobOf(file, type) {
  if (file instanceof Blob) return file.type === type ? file : file.slice(0, file.size, type);
  if (file instanceof ArrayBuffer || ArrayBuffer.isView(file)) return new Blob([file], { type });
  throw new TypeError("The file should be a Blob, an ArrayBuffer or a view of one");
}

function formOf({ blob, filename, data, permissions }) {
  const form = new FormData();
  if (data !== undefined) form.append("data", JSON.stringify(data));
  if (permissions !== undefined) form.append("permissions", JSON.stringify(permissions));
  form.append("attachment", blob, filename);
  return form;
}

function preconditions({ ifMatch, ifNoneMatch }) {
  const headers = {};
  if (ifMatch !== undefined) headers["If-Match"] = ifMatch === "*" ? "*" : `"${ifMatch}"`;
  if (ifNoneMatch !== undefined) headers["If-None-Match"] = ifNoneMatch;
  return headers;
}

function uploaded({ record, ifNoneMatch }, { existing, status, json, etag, location }) {
  if (existing) {
    const { attachment, last_modified: lastModified } = existing;
    return { record, attachment, lastModified, created: ifNoneMatch !== undefined };
  }
  return {
    record: location?.match(/\/buckets\/.*/)?.[0] ?? record,
    attachment: record === undefined ? json.data.attachment : json,
    lastModified: etag ? Number(etag.replaceAll('"', "")) : json.data?.last_modified,
    created: status === 201,
  };
}

/** Whether a record is what an upload would have made of it. */
async function isStored({ blob, data = {} }, { attachment, ...others }) {
  const { size, hash } = attachment?.original ?? attachment ?? {};
  if (size !== blob.size || !Object.keys(data).every((name) => same(data[name], others[name]))) {
    return false;
  }
  try {
    const digest = await crypto.subtle.digest("SHA-256", await blob.arrayBuffer());
    return hash === Array.from(new Uint8Array(digest), hexadecimal).join("");
  } catch {
    return false; // A page without TLS has no crypto.subtle, and a file may be too large for it.
  }
}

function hexadecimal(byte) {
  return byte.toString(16).padStart(2, "0");
}

function same(one, other) {
  if (typeof one !== "object" || typeof other !== "object" || !one || !other) return one === other;
  const names = Object.keys(one);
  return (
    Array.isArray(one) === Array.isArray(other) &&
    names.length === Object.keys(other).length &&
    names.every((name) => name in other && same(one[name], other[name]))
  );
}
