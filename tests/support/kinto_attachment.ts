// What an application does with the JavaScript module's types. A line after "@ts-expect-error"
// does not compile unless the types refuse it.
import { AttachmentClient, AttachmentError } from "kinto-attachment";
import * as tus from "tus-js-client";
import type { Attachment, Link, LinkOptions, Uploaded, UploadOptions } from "kinto-attachment";

declare global {
  interface Buffer extends Uint8Array {} // Of Node, in the types of tus-js-client.
}

const record = "/buckets/b/collections/c/records/r";
const collection = "/buckets/b/collections/c";
const client = new AttachmentClient("https://kinto.example.com/v1", {
  headers: async () => ({ Authorization: "Bearer token" }),
  retries: 5,
  tus,
  chunkSize: 8 * 1024 * 1024,
});

export async function upload(input: HTMLInputElement, signal: AbortSignal): Promise<Attachment> {
  const file = input.files![0]!;
  const result: Uploaded = await client.upload(file, {
    record,
    data: { title: "A", tags: ["a"] },
    permissions: { read: ["system.Everyone"] },
    onProgress: (sent: number, total: number) => console.log(sent / total),
    signal,
    ifNoneMatch: "*",
    resumable: true,
  });
  await client.upload(new Uint8Array(3), { collection, filename: "a.bin", type: "a/b" });
  for (const { file, options, sent } of await client.unfinished({ signal })) {
    if (file.name === "old.bin" && sent < file.size) await client.cancel(file, options);
  }
  await client.upload(file, { record, direct: true });
  await client.remove(result.record, { ifMatch: result.lastModified, signal });
  return result.attachment;
}

export function explain(error: unknown): string | undefined {
  if (!(error instanceof AttachmentError)) return undefined;
  const { status, errno, retryAfter } = error;
  return `${status} ${errno?.toFixed()} ${retryAfter?.toFixed()} ${error.message}`;
}

export const wrong: UploadOptions[] = [
  // @ts-expect-error: neither record nor collection
  { filename: "a" },
  // @ts-expect-error: both
  { record, collection },
  // @ts-expect-error: a new record has no timestamp
  { collection, ifMatch: 1 },
  // @ts-expect-error: not the ETag, but the number in it
  { record, ifMatch: '"1"' },
  // @ts-expect-error: not a function of sizes
  { record, onProgress: (event: ProgressEvent) => event },
];

// @ts-expect-error: not the module tus-js-client
export const wrongClient = new AttachmentClient("https://kinto.example.com/v1", { tus: {} });
// @ts-expect-error: a text is not a file
export const text = () => client.upload("text", { record, filename: "a.txt" });
// @ts-expect-error: no such disposition
export const disposition = () => client.url(record, { disposition: "form-data" });

export async function linked(): Promise<string> {
  const options: LinkOptions = { expiresIn: "1h", version: "1f0c", filename: "a.txt" };
  const link: Link = await client.link(record, options);
  return link.expiresAt > Date.now() ? link.url : (await client.link(record)).url;
}

console.log(JSON.stringify(client.url(record)));
