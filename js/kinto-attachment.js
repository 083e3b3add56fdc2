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

const TRY_AGAIN = [409, 429, 503]; // Errors of Kinto: nothing was stored.
const NO_ANSWER = [502, 503, 504]; // Errors of a proxy: Kinto may have stored the file.
const LONGEST_PAUSE = 60; // In seconds.

const LARGE = 64 * 1024 * 1024; // In bytes. Larger files are sent in several requests.
const CHUNK = 16 * 1024 * 1024; // In bytes, per request. Many web servers buffer or limit requests.
const MAX_METADATA = 4096; // Kinto's limit for Upload-Metadata.
const PARALLEL = 4; // Parts at a time. Browsers open six connections to a server.
const ENDED = [403, 404, 410]; // The upload has ended. Another one can begin.
const FAILED = ["failed", "expired"]; // States of an upload that has ended.
const REFUSED = [...ENDED, 400, 412, 413, 415]; // A retry has to start a new upload.

// The protocols for uploads in several requests. HTTP's draft has no data and no permissions.
const TUS = {
  name: "tus/1.0.0",
  headers: { "Tus-Resumable": "1.0.0" },
  fits: (upload) => metadataOf(upload).length <= MAX_METADATA,
  creation: (upload) => ({
    method: "POST",
    path: `${upload.record}/attachment/uploads`,
    headers: { "Upload-Metadata": metadataOf(upload), ...lengthOf(upload) },
  }),
  append: () => ({ "Content-Type": "application/offset+octet-stream" }),
};
const DRAFT = {
  name: "ietf/8", // draft-ietf-httpbis-resumable-upload, interop version 8.
  headers: { "Upload-Draft-Interop-Version": "8" },
  fits: ({ data, permissions }) => data === undefined && permissions === undefined,
  creation: ({ record, blob, filename }) => ({
    method: "PUT",
    path: `${record}/attachment?${new URLSearchParams({ filename })}`,
    headers: { "Upload-Complete": "?0", "Content-Type": typeOf(blob), ...lengthOf({ blob }) },
  }),
  append: (isLast) => ({
    "Content-Type": "application/partial-upload",
    "Upload-Complete": isLast ? "?1" : "?0",
  }),
};

// Sends the bytes to the storage in parts.
const DIRECT = {
  name: "direct",
  headers: {},
  creation: async ({ record, blob, filename, data, permissions }) => {
    const attachment = { filename, size: blob.size, mimetype: typeOf(blob) };
    // The storage or the server checks the hash. Computing it needs the file in memory.
    if (blob.size <= LARGE) attachment.hash = await sha256(blob);
    return {
      method: "POST",
      path: `${record}/attachment/uploads`,
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify({ attachment, data, permissions }),
    };
  },
};
const PROTOCOLS = [DRAFT, TUS, DIRECT];

export class AttachmentError extends Error {
  name = "AttachmentError";

  constructor(message, { status = 0, kinto, retryAfter, fromStorage = false, cause } = {}) {
    super(message, { cause });
    this.status = status;
    this.fromStorage = fromStorage;
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
  #chunkSize;
  #tus;
  #protocols; // A promise of the server's response that names them.

  constructor(
    server,
    { headers = {}, retries = 2, pause = 1, chunkSize = CHUNK, tus } = {},
  ) {
    this.#server = String(server).replace(/\/+$/, "");
    this.#headers = typeof headers === "function" ? headers : () => headers;
    this.#retries = retries;
    this.#pause = pause;
    this.#chunkSize = chunkSize;
    this.#tus = tus;
  }

  async upload(file, options) {
    const upload = planned(file, options);
    const protocol = await this.#protocolOf(upload);
    const done = protocol && (await this.#sendInSeveral(withRecord(upload), protocol));
    return done ?? this.#sendForm(upload);
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

  async unfinished({ signal } = {}) {
    const found = [];
    for (const [key, told] of remembered(this.#server)) {
      const state = await this.#stateOf(recall(key), signal);
      if (state) found.push({ ...told, sent: state.offset });
      else forget(key);
    }
    return found;
  }

  async cancel(file, options) {
    const { signal } = options;
    for (const protocol of PROTOCOLS) {
      const key = keyOf(this.#server, file, options, protocol);
      const session = recall(key);
      if (!session) continue;
      const request = { method: "DELETE", path: session.path, headers: {}, isRepeatable: true };
      await unlessGone(this.#send({ ...request, signal }));
      forget(key);
    }
  }

  url(record, { disposition, filename } = {}) {
    checkURI("record", record, RECORD);
    const query = new URLSearchParams();
    if (disposition !== undefined) query.set("disposition", disposition);
    if (filename !== undefined) query.set("filename", filename);
    return `${this.#server}${record}/attachment?${query}`.replace(/\?$/, "");
  }

  async link(record, { expiresIn, version, disposition, filename, signal } = {}) {
    checkURI("record", record, RECORD);
    const file = version === undefined ? "" : `/versions/${encodeURIComponent(version)}`;
    const asked = { expires_in: expiresIn, disposition, filename };
    const known = Object.entries(asked).filter(([, value]) => value !== undefined);
    const path = `${record}/attachment${file}/url?${new URLSearchParams(known)}`;
    const response = await this.#send({ method: "GET", path, headers: {}, signal, isRepeatable: true });
    const { url, expires_at: expiresAt } = response.json.data;
    return { url, expiresAt };
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

  /** The protocol for an upload in several requests; undefined for a form. */
  async #protocolOf(upload) {
    const { blob, direct, resumable = blob.size > LARGE } = upload;
    if (direct) return DIRECT;
    if (!resumable) return undefined;
    const protocol = !this.#tus && DRAFT.fits(upload) ? DRAFT : TUS;
    if (upload.resumable === undefined && !protocol.fits(upload)) return undefined;
    if ((await this.#spoken()).includes(protocol.name)) return protocol;
    // Other servers would treat the first request as the whole file.
    if (!upload.resumable) return undefined;
    throw new AttachmentError("The server takes no files in several requests");
  }

  async #spoken() {
    this.#protocols ??= this.#send({ method: "GET", path: "/", headers: {}, isRepeatable: true });
    try {
      const { json } = await this.#protocols;
      return json?.capabilities?.attachments?.resumable ?? [];
    } catch (error) {
      this.#protocols = undefined;
      throw error;
    }
  }

  /** Upload a file, or the rest of it; undefined if the collection accepts forms only. */
  async #sendInSeveral(upload, protocol) {
    const key = keyOf(this.#server, upload.file, upload, protocol);
    let session = await this.#goneOn(recall(key), upload, protocol);
    if (!session) {
      session = await this.#create(upload, protocol);
      if (!session) return undefined;
      remember(key, session);
    }
    try {
      const result = await this.#complete(upload, protocol, session);
      forget(key);
      return result;
    } catch (error) {
      // After other errors, the next call continues.
      if (REFUSED.includes(error.status) && !error.fromStorage) forget(key);
      throw error;
    }
  }

  async #create(upload, protocol) {
    const { signal } = upload;
    const request = await protocol.creation(upload);
    const headers = { ...protocol.headers, ...request.headers, ...preconditions(upload) };
    try {
      const isNew = protocol === TUS ? await this.#isNew(upload) : undefined;
      // If the response is lost, only an upload that expires remains.
      const response = await this.#send({ ...request, headers, signal, isRepeatable: true });
      return { path: pathOf(response.location), isNew, offset: 0, state: response.json?.data };
    } catch (error) {
      // For example, the collection compresses its files. A form gets other errors, too.
      const mayBeForm = !upload.direct && upload.resumable === undefined;
      if (error.status === 400 && mayBeForm) return undefined;
      throw error;
    }
  }

  /** Whether the upload will create its record. Responses of tus do not say so. */
  async #isNew({ record, ifMatch, ifNoneMatch, signal }) {
    if (ifMatch !== undefined || ifNoneMatch !== undefined) return ifNoneMatch !== undefined;
    try {
      await this.#send({ method: "HEAD", path: record, headers: {}, signal, isRepeatable: true });
      return false;
    } catch (error) {
      if ([403, 404].includes(error.status)) return true;
      throw error;
    }
  }

  /** The current state of a session that an earlier call began; undefined if there is none. */
  async #goneOn(session, { signal }, protocol) {
    if (protocol === DIRECT) {
      const state = await this.#stateOf(session, signal);
      return state && { ...session, state };
    }
    const offset = session && (await unlessGone(this.#offsetOf(session, protocol, signal)));
    return offset === undefined ? undefined : { ...session, offset };
  }

  /** The server's state of a session; undefined if there is none or it has failed. */
  async #stateOf(session, signal) {
    const state = session && (await unlessGone(this.#look(session, signal)));
    return FAILED.includes(state?.state) ? undefined : state;
  }

  async #look({ path }, signal) {
    const request = { method: "GET", path, headers: {}, signal, isRepeatable: true };
    return (await this.#send(request)).json.data;
  }

  async #offsetOf({ path }, { headers }, signal) {
    const request = { method: "HEAD", path, headers, signal, isRepeatable: true };
    const { offset, status } = await this.#send(request);
    if (Number.isNaN(offset)) throw new AttachmentError("No Upload-Offset", { status });
    return offset;
  }

  async #complete(upload, protocol, session) {
    if (protocol === DIRECT) {
      const response = await this.#sendDirectly(upload, session);
      return uploaded({ record: recordOf(session) }, response);
    }
    if (this.#tus) await this.#sendByTus(upload, session);
    const response = this.#tus ? undefined : await this.#sendChunks(upload, protocol, session);
    if (protocol === DRAFT) return uploaded(upload, response);
    const record = recordOf(session);
    const request = { method: "GET", path: record, headers: {}, isRepeatable: true };
    const { data } = (await this.#send({ ...request, signal: upload.signal })).json;
    const { attachment, last_modified: lastModified } = data;
    return { record, attachment, lastModified, created: session.isNew };
  }

  async #sendChunks({ blob, signal, onProgress }, protocol, session) {
    let { offset } = session;
    for (let failures = 0; ; ) {
      const start = offset;
      const body = blob.slice(start, start + this.#chunkSize);
      const isLast = start + body.size === blob.size;
      const own = { ...protocol.append(isLast), "Upload-Offset": String(start) };
      const request = {
        method: "PATCH",
        path: session.path,
        headers: { ...protocol.headers, ...own },
        body,
        signal,
        onSent: onProgress && ((sent) => onProgress(start + Math.min(sent, body.size), blob.size)),
        isRepeatable: true,
        again: [408, ...TRY_AGAIN],
      };
      signal?.throwIfAborted();
      const response = await this.#attempt(request);
      if (isSuccess(response)) {
        offset = start + body.size;
        onProgress?.(offset, blob.size);
        if (isLast) return response;
      } else {
        // An earlier request whose connection broke may reach the server late.
        const again = isTakenOver(response) ? [423] : request.again;
        await this.#pauseOrFail({ ...request, again }, response, failures++);
        // The bytes that arrived before the connection broke are stored, maybe all.
        offset = await this.#offsetOf(session, protocol, signal);
      }
      if (offset > start) failures = 0;
    }
  }

  /** Send the missing parts, and let the server attach the file. */
  async #sendDirectly(upload, session) {
    const { signal } = upload;
    let { state } = session;
    for (let attempt = 0; ; attempt++) {
      await this.#sendParts(upload, session, state);
      try {
        return await this.#attach(session, signal);
      } catch (error) {
        // Bytes are missing, or another request attaches the file or writes the record.
        if (![409, 423].includes(error.status) || attempt >= this.#retries) throw error;
      }
      await this.#pauseAfter(attempt, signal);
      state = await this.#look(session, signal);
    }
  }

  async #attach({ path }, signal) {
    const request = { method: "POST", path: `${path}/complete`, headers: {}, signal };
    for (;;) {
      const response = await this.#send({ ...request, isRepeatable: true, again: [429, 503] });
      if (response.status !== 202) return response;
      await sleep(response.retryAfter ?? this.#pause, signal); // The server is reading the file.
    }
  }

  async #sendParts({ blob, signal, onProgress }, session, { parts = [] }) {
    const sent = new Map(parts.map(({ number, size, done }) => [number, done ? size : 0]));
    const sum = () => Array.from(sent.values()).reduce((one, other) => one + other, 0);
    const tell = () => onProgress?.(sum(), blob.size);
    const missing = parts.filter(({ done }) => !done);
    const one = new AbortController(); // An error of one part stops all.
    const stop = () => one.abort(signal.reason);
    const upload = { blob, signal: one.signal, fresh: this.#freshParts(session, one.signal) };
    const work = async () => {
      for (let part = missing.shift(); part; part = missing.shift()) {
        const { number } = part;
        const onSent = (bytes) => tell(sent.set(number, Math.min(bytes, part.size)));
        await this.#sendPart(part, { ...upload, onSent: onProgress && onSent });
        tell(sent.set(number, part.size));
      }
    };
    signal?.throwIfAborted();
    signal?.addEventListener("abort", stop, { once: true });
    try {
      if (missing.length < parts.length) tell();
      await Promise.all(Array.from({ length: PARALLEL }, work));
    } catch (error) {
      one.abort(error);
      throw error;
    } finally {
      signal?.removeEventListener("abort", stop);
    }
  }

  async #sendPart(part, { blob, signal, onSent, fresh }) {
    const body = blob.slice(part.offset, part.offset + part.size);
    for (let failures = 0; part && !part.done; failures++) {
      const { method, url } = part;
      const headers = new Headers(part.headers); // No credentials: the URL is signed.
      const response = await attempt({ method, url, headers, body, signal, onSent });
      if (isSuccess(response)) return;
      // A 404 means that the server's own token has expired. A new one is requested.
      const mayPass = !response.kinto || [404, ...TRY_AGAIN].includes(response.status);
      if (!mayPass) throw errorOf(response);
      if (failures >= this.#retries) throw storageErrorOf(response);
      onSent?.(0);
      await this.#pauseAfter(failures, signal);
      part = await fresh(part.number); // The URL may have expired, or the response was lost.
    }
  }

  /** Returns a function that reads a part's state again. Concurrent calls share a request. */
  #freshParts(session, signal) {
    let asked;
    return async (number) => {
      asked ??= this.#look(session, signal).finally(() => (asked = undefined));
      const { state, parts, error } = await asked;
      if (FAILED.includes(state)) throw errorOf({ status: error?.code ?? 410, kinto: error });
      return parts?.find((part) => part.number === number);
    };
  }

  #sendByTus({ blob, signal, onProgress }, { path }) {
    signal?.throwIfAborted();
    let stop;
    const sent = new Promise((resolve, reject) => {
      const delays = Array.from({ length: this.#retries }, (_, n) => this.#pause * 2 ** n * 1000);
      const transfer = new this.#tus.Upload(blob, {
        uploadUrl: this.#server + path,
        fileReader: { openFile: sourceOf },
        storeFingerprintForResuming: false,
        chunkSize: this.#chunkSize,
        retryDelays: delays,
        onBeforeRequest: async (request) => {
          const headers = new Headers(await this.#headers());
          headers.forEach((value, name) => request.setHeader(name, value));
        },
        onProgress,
        onSuccess: resolve,
        onError: (cause) => {
          const response = cause.originalResponse;
          const header = (name) => response.getHeader(name) ?? null;
          const told = response && read(response.getStatus(), header, response.getBody());
          reject(errorOf({ status: 0, ...told, cause }));
        },
      });
      stop = () => {
        transfer.abort();
        reject(signal.reason);
      };
      signal?.addEventListener("abort", stop);
      transfer.start();
    });
    // The signal may live as long as the page, and the listener would keep the file in memory.
    return sent.finally(() => signal?.removeEventListener("abort", stop));
  }

  /** Send a request, with retries if safe. Returns the response, or a record that has the file. */
  async #send(request) {
    let wasLost = false; // Whether the response of an earlier attempt is unknown.
    for (let attempt = 0; ; attempt++) {
      request.signal?.throwIfAborted();
      const response = await this.#attempt(request);
      if (isSuccess(response)) return response;
      if (response.status === 412 && wasLost) {
        const existing = response.json?.details?.existing;
        if (existing && (await request.isDone?.(existing))) return { existing };
      }
      await this.#pauseOrFail(request, response, attempt);
      wasLost ||= response.isLost;
    }
  }

  /** Wait until a request may be sent again, or throw its error. */
  async #pauseOrFail({ isRepeatable, again = TRY_AGAIN, signal }, response, attempt) {
    const mayRepeat = response.isLost
      ? isRepeatable
      : response.kinto && again.includes(response.status);
    const seconds = response.retryAfter ?? this.#pauseOf(attempt);
    if (!mayRepeat || attempt >= this.#retries || seconds > LONGEST_PAUSE) {
      throw errorOf(response);
    }
    await sleep(seconds, signal);
  }

  #pauseAfter(attempt, signal) {
    return sleep(Math.min(this.#pauseOf(attempt), LONGEST_PAUSE), signal);
  }

  /** In seconds, random, so that clients return at different times when a server is back. */
  #pauseOf(attempt) {
    return this.#pause * 2 ** attempt * (0.5 + Math.random());
  }

  async #attempt({ path, headers, ...request }) {
    const all = new Headers(await this.#headers());
    for (const [name, value] of Object.entries(headers)) all.set(name, value);
    return attempt({ ...request, url: this.#server + path, headers: all, isKinto: true });
  }
}

async function attempt(request) {
  const { signal, onSent } = request;
  // fetch does not report progress, and not every environment has XMLHttpRequest.
  const send = onSent && globalThis.XMLHttpRequest ? sendByXHR : sendByFetch;
  try {
    return await send(request);
  } catch (cause) {
    signal?.throwIfAborted();
    return { isLost: true, status: 0, cause };
  }
}

async function sendByFetch({ method, url, headers, body, signal }) {
  const response = await fetch(url, { method, headers, body, signal });
  return read(response.status, (name) => response.headers.get(name), await response.text());
}

function sendByXHR({ method, url, headers, body, signal, onSent, isKinto }) {
  return new Promise((resolve, reject) => {
    const xhr = new XMLHttpRequest();
    const abort = () => xhr.abort();
    xhr.open(method, url);
    headers.forEach((value, name) => xhr.setRequestHeader(name, value));
    xhr.upload.onprogress = ({ loaded }) => onSent(loaded);
    // Browsers log an error for each header that another origin does not expose.
    const header = (name) => (isKinto ? xhr.getResponseHeader(name) : null);
    xhr.onload = () => resolve(read(xhr.status, header, xhr.responseText));
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
  const kinto = typeof json?.errno === "number" ? json : undefined;
  return {
    status,
    json,
    kinto,
    isLost: NO_ANSWER.includes(status) && !kinto,
    offset: Number(header("Upload-Offset") ?? NaN),
    etag: header("ETag"),
    location: header("Location"),
    retryAfter: Number.isNaN(seconds) ? undefined : seconds,
  };
}

function isSuccess({ status }) {
  return status >= 200 && status < 300;
}

/** Whether another request writes to the upload. A 423 of a lock or a hold has details. */
function isTakenOver({ status, kinto }) {
  return status === 423 && kinto !== undefined && !kinto.details;
}

function parsed(text) {
  try {
    return JSON.parse(text);
  } catch {
    return undefined; // For example, a proxy's error page.
  }
}

function errorOf({ status, kinto, retryAfter, cause }) {
  const message = status === 0 ? "The server cannot be reached" : `The server answered ${status}`;
  const told = kinto?.message ?? kinto?.error;
  return new AttachmentError(told ?? message, { status, kinto, retryAfter, cause });
}

function storageErrorOf({ status, kinto, cause }) {
  const message =
    status === 0
      ? "The storage cannot be reached, or its CORS rules do not admit this page"
      : `The storage answered ${status}`;
  return new AttachmentError(message, { status, kinto, fromStorage: true, cause });
}

/** The value of a promise; undefined if the server does not have the upload any more. */
async function unlessGone(promise) {
  try {
    return await promise;
  } catch (error) {
    if (ENDED.includes(error.status)) return undefined;
    throw error;
  }
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

/** Check the options of an upload, and add the file as a `blob` and its name. */
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
  return { ...options, file, blob, filename };
}

/** Turn an upload to a collection into one to a new record, with an id like those of Kinto. */
function withRecord(upload) {
  if (upload.record !== undefined) return upload;
  return { ...upload, record: `${upload.collection}/records/${uuid()}`, ifNoneMatch: "*" };
}

function uuid() {
  const bytes = crypto.getRandomValues(new Uint8Array(16)); // randomUUID needs TLS.
  bytes[6] = (bytes[6] & 0x0f) | 0x40;
  bytes[8] = (bytes[8] & 0x3f) | 0x80;
  const text = Array.from(bytes, hexadecimal).join("");
  return text.replace(/^(.{8})(.{4})(.{4})(.{4})/, "$1-$2-$3-$4-");
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

function typeOf(blob) {
  return blob.type || "application/octet-stream"; // As in a form.
}

function lengthOf({ blob }) {
  return { "Upload-Length": String(blob.size) };
}

/** Upload-Metadata of tus: keys with values in Base64. */
function metadataOf({ blob, filename, data, permissions }) {
  const texts = { filename, filetype: typeOf(blob) };
  if (data !== undefined) texts.data = JSON.stringify(data);
  if (permissions !== undefined) texts.permissions = JSON.stringify(permissions);
  const base64 = (text) =>
    btoa(Array.from(new TextEncoder().encode(text), (byte) => String.fromCharCode(byte)).join(""));
  return Object.entries(texts)
    .map(([name, text]) => `${name} ${base64(text)}`)
    .join(",");
}

/** A Blob for tus-js-client, which cannot read a Blob in Node. */
async function sourceOf(blob) {
  const slice = async (start, end) => {
    const part = blob.slice(start, end);
    // In pages, sending a Blob is much faster than sending its bytes (Chromium).
    const value = globalThis.XMLHttpRequest ? part : await bytesOf(part);
    return { value, done: end >= blob.size };
  };
  return { size: blob.size, slice, close() {} };
}

async function bytesOf(blob) {
  return Object.assign(new Uint8Array(await blob.arrayBuffer()), { size: blob.size });
}

function preconditions({ ifMatch, ifNoneMatch }) {
  const headers = {};
  if (ifMatch !== undefined) headers["If-Match"] = ifMatch === "*" ? "*" : `"${ifMatch}"`;
  if (ifNoneMatch !== undefined) headers["If-None-Match"] = ifNoneMatch;
  return headers;
}

// Unfinished uploads. The key contains everything that has to be the same to continue. In pages,
// localStorage keeps them for the next visit. Blobs and buffers have nothing that identifies them.

const unfinished = new Map();

const PREFIX = "kinto-attachment ";

function keyOf(server, file, { collection, record, ...options }, { name }) {
  const { size, lastModified } = file;
  if (lastModified === undefined) return undefined;
  const { filename = file.name, type = file.type, data, permissions, ifMatch } = options;
  const target = collection ?? record;
  const ifNoneMatch = collection ? undefined : options.ifNoneMatch;
  const said = [data, permissions, ifMatch, ifNoneMatch, name];
  const told = [server, target, filename, type, size, lastModified, ...said];
  return `${PREFIX}${JSON.stringify(told)}`;
}

/** The keys of a server's unfinished uploads, with their files and options. */
function remembered(server) {
  const stored = inStorage((storage) => Object.keys(storage)) ?? [];
  const keys = new Set([...unfinished.keys(), ...stored]);
  const found = [];
  for (const key of keys) {
    const told = key.startsWith(PREFIX) ? parsed(key.slice(PREFIX.length)) : undefined;
    if (told?.[0] !== server) continue;
    const [, target, name, type, size, lastModified, ...said] = told;
    const [data, permissions, ifMatch, ifNoneMatch, protocol] = said;
    const where = RECORD.pattern.test(target) ? { record: target } : { collection: target };
    const way = protocol === DIRECT.name ? { direct: true } : { resumable: true };
    const options = { ...where, ...way, ...given({ data, permissions, ifMatch, ifNoneMatch }) };
    found.push([key, { file: { name, type, size, lastModified }, options }]);
  }
  return found;
}

/** The options that are not null. JSON turns undefined into null. */
function given(options) {
  return Object.fromEntries(Object.entries(options).filter(([, value]) => value !== null));
}

function recall(key) {
  if (key === undefined) return undefined;
  const text = unfinished.get(key) ?? inStorage((storage) => storage.getItem(key));
  return text ? parsed(text) : undefined;
}

function remember(key, { path, isNew }) {
  if (key === undefined) return;
  const text = JSON.stringify({ path, isNew });
  unfinished.set(key, text);
  inStorage((storage) => storage.setItem(key, text));
}

function forget(key) {
  unfinished.delete(key);
  inStorage((storage) => storage.removeItem(key));
}

function inStorage(action) {
  try {
    return action(localStorage);
  } catch {
    return undefined; // It does not exist, the user forbids it, or it is full.
  }
}

/** The path of a URL below the server's, so that no request goes to another server. */
function pathOf(url) {
  const path = url?.match(/\/buckets\/.*/)?.[0];
  if (path === undefined) throw new AttachmentError("The server does not tell where the upload is");
  return path;
}

/** The record of an upload in several requests, with the real name of a default bucket. */
function recordOf({ path }) {
  return path.replace(/\/attachment\/.*/, "");
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

/** Whether a record has the file and the data of an upload. */
async function isStored({ blob, data = {} }, { attachment, ...others }) {
  const { size, hash } = attachment?.original ?? attachment ?? {};
  if (size !== blob.size || !Object.keys(data).every((name) => same(data[name], others[name]))) {
    return false;
  }
  return hash !== undefined && hash === (await sha256(blob));
}

/** In hexadecimal; undefined if it cannot be computed. */
async function sha256(blob) {
  try {
    const digest = await crypto.subtle.digest("SHA-256", await blob.arrayBuffer());
    return Array.from(new Uint8Array(digest), hexadecimal).join("");
  } catch {
    // A page without TLS has no crypto.subtle, or the file is too large for it.
    return undefined;
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
