/** Attaches files to Kinto records, from pages and from Node 20 or later. */

export type JSONObject = { [name: string]: unknown };

/** What Kinto keeps of a file, in the attribute `attachment` of its record. */
export interface Attachment {
  filename: string;
  /** SHA-256 of the stored bytes, in hexadecimal. */
  hash: string;
  location: string;
  mimetype: string;
  /** In bytes. */
  size: number;
  /** The `Content-Encoding` of the stored bytes, if they were sent with one. */
  encoding?: "gzip";
  /** What was sent, where the server has compressed it. */
  original?: { filename: string; hash: string; mimetype: string; size: number };
}

/** The principals that have each permission, as in Kinto. */
export interface Permissions {
  read?: string[];
  write?: string[];
}

type HeaderFields = Record<string, string>;

export interface ClientOptions {
  /**
   * Headers of each request, such as `Authorization`; or a function that returns them and is
   * called before each request, for tokens that expire.
   */
  headers?: HeaderFields | (() => HeaderFields | Promise<HeaderFields>);
  /** How often a request is repeated, where that is safe. The default is 2. */
  retries?: number;
  /**
   * Seconds before the first repetition, unless the server sends `Retry-After`. Each later pause
   * is twice as long. The default is 1.
   */
  pause?: number;
  /**
   * `tus-js-client` (version 4), which then sends the files that go in several requests. Without
   * it, the module does that itself.
   */
  tus?: TusJSClient;
  /** Bytes of each of several requests. The default is 16 MiB. */
  chunkSize?: number;
}

/** What is used of `tus-js-client`. */
export interface TusJSClient {
  // Its own options are more than are set here.
  Upload: new (file: any, options: any) => { start(): void; abort(): unknown };
}

interface Common {
  /**
   * Cancels: what was called is rejected with the signal's `reason`. A `File` that went in several
   * requests goes on from there when `upload` is called again with the same options.
   */
  signal?: AbortSignal;
}

interface FileOptions extends Common {
  /** The file's name. The default is that of a `File`; anything else needs one. */
  filename?: string;
  /** The file's media type. The default is that of the `File` or `Blob`. */
  type?: string;
  /** Attributes of the record, beside `attachment`. Others keep their values. */
  data?: JSONObject;
  permissions?: Permissions;
  /**
   * Is called with the number of bytes sent so far, and the size of the file. Where there is no
   * `XMLHttpRequest` (Node, workers of services), it is called at the end of each request. After
   * the connection broke, the number may be smaller.
   */
  onProgress?: (sent: number, total: number) => void;
  /**
   * Whether the file goes in several requests, and continues where it was interrupted: after
   * errors of the network, and when `upload` is called with the same `File` and options again,
   * also after a reload of the page. The default is to do so above 64 MiB, if the server takes
   * it and `data` and `permissions` are small enough (some 3,000 bytes).
   */
  resumable?: boolean;
  /**
   * Whether the bytes go to the storage, past Kinto, in parts: several at once, with URLs that the
   * server signs. It continues as `resumable` does. The storage needs CORS rules for pages.
   */
  direct?: boolean;
}

export interface RecordUpload extends FileOptions {
  /** The URI of a record, `/buckets/b/collections/c/records/r`. It need not exist. */
  record: string;
  collection?: undefined;
  /** Fails (412) unless this is the record's `last_modified`; `"*"`: unless it exists. */
  ifMatch?: number | "*";
  /** `"*"`: fails (412) if the record exists. */
  ifNoneMatch?: "*";
}

export interface CollectionUpload extends FileOptions {
  /** The URI of a collection, `/buckets/b/collections/c`. A new record is created in it. */
  collection: string;
  record?: undefined;
  ifMatch?: undefined;
  ifNoneMatch?: undefined;
}

export type UploadOptions = RecordUpload | CollectionUpload;

export interface Uploaded {
  /** The URI of the record, with the real name of a default bucket. */
  record: string;
  attachment: Attachment;
  /** The record's `last_modified`. */
  lastModified: number;
  /** Whether the record is new. */
  created: boolean;
}

/** What tells a file from others: a `File`, or what is known of one after a reload. */
export interface FileIdentity {
  readonly name: string;
  readonly type: string;
  readonly size: number;
  /** In ms since the epoch. */
  readonly lastModified: number;
}

/** An upload in several requests that has not ended, or whose last answer was lost. */
export interface Unfinished {
  file: FileIdentity;
  /** Of the `upload` that began it: with these and the same file, `upload` continues it. */
  options: UploadOptions;
  /** The bytes that the server has. */
  sent: number;
}

export interface RemoveOptions extends Common {
  /** Fails (412) unless this is the record's `last_modified`. */
  ifMatch?: number | "*";
}

export interface URLOptions {
  /** `attachment` has browsers save the file. */
  disposition?: "inline" | "attachment";
  /** Another name for the file. */
  filename?: string;
}

export interface LinkOptions extends URLOptions {
  /** How long the link has to be valid, in seconds (600), or such as `"1h"`. */
  expiresIn?: number | string;
  /** The id of a version; the current file if there is none. */
  version?: string;
  signal?: AbortSignal;
}

export interface Link {
  /** For whoever has it, without `Authorization`: as the `src` of a picture, for example. */
  url: string;
  /** Until when it works, in ms since the epoch. */
  expiresAt: number;
}

export class AttachmentClient {
  /** @param server The URL of Kinto with its version, `https://kinto.example.com/v1`. */
  constructor(server: string, options?: ClientOptions);

  /**
   * Attach a file to a record, which is created if it does not exist, or to a new record of a
   * collection.
   *
   * @throws {AttachmentError} The server refuses, or cannot be reached.
   * @throws {TypeError} The call makes no sense; nothing has been sent.
   */
  upload(
    file: Blob | ArrayBuffer | ArrayBufferView<ArrayBuffer>,
    options: UploadOptions,
  ): Promise<Uploaded>;

  /**
   * Delete the file of a record, and keep the record. Nothing happens if it has no file.
   *
   * @throws {AttachmentError} The server refuses, or cannot be reached.
   */
  remove(record: string, options?: RemoveOptions): Promise<void>;

  /**
   * The uploads to this server that `upload` can continue: those of this browser, or of this
   * process in Node. The server is asked for each.
   *
   * @throws {AttachmentError} The server refuses, or cannot be reached.
   */
  unfinished(options?: Common): Promise<Unfinished[]>;

  /**
   * End an unfinished upload, and delete what the server has of it. Abort its `signal` first if it
   * is being sent. Nothing happens if there is no such upload.
   *
   * @throws {AttachmentError} The server refuses, or cannot be reached.
   */
  cancel(file: FileIdentity, options: UploadOptions): Promise<void>;

  /** The URL of a record's current file. A private file needs `Authorization` there. */
  url(record: string, options?: URLOptions): string;

  /**
   * A link to a record's file that needs no credentials. Links that are requested soon after each
   * other are the same, so that the browser's cache knows the file.
   *
   * @throws {AttachmentError} The server refuses, or cannot be reached.
   */
  link(record: string, options?: LinkOptions): Promise<Link>;
}

/** The server refuses a request, or cannot be reached. */
export class AttachmentError extends Error {
  /** The status of the response; 0 if there was none. */
  readonly status: number;
  /** Whether the response, or none, was the storage's, where a direct upload sends the bytes. */
  readonly fromStorage: boolean;
  /** Kinto's error, where the response is one: https://docs.kinto-storage.org, "Error responses". */
  readonly code?: number;
  readonly errno?: number;
  readonly error?: string;
  readonly details?: unknown;
  /** Seconds after which to try again, if the server said so. */
  readonly retryAfter?: number;
}
