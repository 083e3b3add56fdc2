/** Attaches files to Kinto records, from pages and from Node 20 or later. */

export type JSONObject = { [name: string]: unknown };

/** What Kinto stores about a file, in the attribute `attachment` of its record. */
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
  /** The file as it was sent, if the server has compressed it. */
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
   * Headers of each request, such as `Authorization`, or a function that returns them. It is
   * called before each request, for tokens that expire.
   */
  headers?: HeaderFields | (() => HeaderFields | Promise<HeaderFields>);
  /** How often a request is repeated if that is safe. The default is 2. */
  retries?: number;
  /**
   * Seconds before the first repetition, unless the server sends `Retry-After`. Each later pause
   * is twice as long. The default is 1.
   */
  pause?: number;
  /**
   * `tus-js-client` (version 4), which then sends files in several requests. Without it, the
   * module does that itself.
   */
  tus?: TusJSClient;
  /** Bytes per request, for files in several requests. The default is 16 MiB. */
  chunkSize?: number;
}

/** The part of `tus-js-client` that is used. */
export interface TusJSClient {
  // It has more options than are set here.
  Upload: new (file: any, options: any) => { start(): void; abort(): unknown };
}

interface Common {
  /**
   * Cancels the call, which is rejected with the signal's `reason`. If a `File` is sent in several
   * requests, calling `upload` again with the same options continues it.
   */
  signal?: AbortSignal;
}

interface FileOptions extends Common {
  /** The file's name. The default is that of a `File`. Anything else needs a name. */
  filename?: string;
  /** The file's media type. The default is that of the `File` or `Blob`. */
  type?: string;
  /** Attributes of the record, besides `attachment`. Other attributes keep their values. */
  data?: JSONObject;
  permissions?: Permissions;
  /**
   * Is called with the number of bytes sent so far and the size of the file. Without
   * `XMLHttpRequest` (Node, service workers), it is called at the end of each request. After a
   * broken connection, the number may be smaller.
   */
  onProgress?: (sent: number, total: number) => void;
  /**
   * Whether the file is sent in several requests, and continues where it was interrupted: after
   * network errors, and when `upload` is called again with the same `File` and options, also
   * after a reload of the page. By default, this is done above 64 MiB, if the server supports it
   * and `data` and `permissions` are small enough (about 3,000 bytes).
   */
  resumable?: boolean;
  /**
   * Whether the bytes are sent to the storage instead of Kinto, several parts at a time, with URLs
   * that the server signs. It continues as `resumable` does. For pages, the storage needs CORS
   * rules.
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

/** Identifies a file: a `File`, or what is known about one after a reload. */
export interface FileIdentity {
  readonly name: string;
  readonly type: string;
  readonly size: number;
  /** In ms since the epoch. */
  readonly lastModified: number;
}

/** An upload in several requests that has not ended, or whose last response was lost. */
export interface Unfinished {
  file: FileIdentity;
  /** The options of the `upload` that began it. With these and the file, `upload` continues it. */
  options: UploadOptions;
  /** The number of bytes that the server has. */
  sent: number;
}

export interface RemoveOptions extends Common {
  /** Fails (412) unless this is the record's `last_modified`. */
  ifMatch?: number | "*";
}

export interface URLOptions {
  /** With `attachment`, browsers save the file. */
  disposition?: "inline" | "attachment";
  /** Another name for the file. */
  filename?: string;
}

export interface LinkOptions extends URLOptions {
  /** How long the link is valid: seconds, or a text such as `"1h"`. The default is 600. */
  expiresIn?: number | string;
  /** The id of a version. The default is the current file. */
  version?: string;
  signal?: AbortSignal;
}

export interface Link {
  /** Works without `Authorization`, for example as the `src` of a picture. */
  url: string;
  /** When it expires, in ms since the epoch. */
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
   * @throws {TypeError} The arguments are invalid. Nothing has been sent.
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
   * End an unfinished upload and delete its bytes on the server. If it is being sent, abort its
   * `signal` first. Nothing happens if there is no such upload.
   *
   * @throws {AttachmentError} The server refuses, or cannot be reached.
   */
  cancel(file: FileIdentity, options: UploadOptions): Promise<void>;

  /** The URL of a record's current file. A private file requires `Authorization`. */
  url(record: string, options?: URLOptions): string;

  /**
   * A link to a record's file that needs no credentials. Links that are requested within a short
   * time are the same, so that the browser can use its cache.
   *
   * @throws {AttachmentError} The server refuses, or cannot be reached.
   */
  link(record: string, options?: LinkOptions): Promise<Link>;
}

/** The server refuses a request, or cannot be reached. */
export class AttachmentError extends Error {
  /** The status of the response; 0 if there was none. */
  readonly status: number;
  /** Whether the storage refused the bytes of a direct upload, or could not be reached. */
  readonly fromStorage: boolean;
  /** Kinto's error, if the response is one: https://docs.kinto-storage.org, "Error responses". */
  readonly code?: number;
  readonly errno?: number;
  readonly error?: string;
  readonly details?: unknown;
  /** Seconds after which to try again, if the server said so. */
  readonly retryAfter?: number;
}
