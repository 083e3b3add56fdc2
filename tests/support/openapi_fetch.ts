// What an application does with openapi-fetch and the types that openapi-typescript makes of the
// server's own description ("api.d.ts", beside this file once it is compiled). Takes its settings
// as JSON in its argument, and writes what it got as JSON to the standard output.
import createClient from "openapi-fetch";
import type { paths } from "./api.js";

declare const process: { argv: string[] };

const RECORD = "/buckets/{bucket_id}/collections/{collection_id}/records/{id}/attachment";

// Does not compile unless these are what the server says that it takes and gives.
type Operations = paths[typeof RECORD];
const RAW: keyof Operations["put"]["requestBody"]["content"] = "application/octet-stream";
const FORM: keyof NonNullable<Operations["post"]["requestBody"]>["content"] = "multipart/form-data";
const FILE: keyof Operations["get"]["responses"][200]["content"] = "application/octet-stream";
const NO_CONTENT: Operations["delete"]["responses"][204]["content"] = undefined;

// The types say that binary content is a string, whatever it is sent as.
const binary = (bytes: Uint8Array<ArrayBuffer>) => new Blob([bytes]) as unknown as string;
const base64 = (content?: ArrayBuffer) =>
  content && btoa(Array.from(new Uint8Array(content), (byte) => String.fromCharCode(byte)).join(""));

function toForm(fields: Record<string, string | undefined>): FormData {
  const form = new FormData();
  const { attachment, ...others } = fields as { attachment: unknown };
  for (const [name, value] of Object.entries(others)) form.append(name, value as string);
  form.append("attachment", attachment as Blob, "form.bin");
  return form;
}

async function main(url: string, authorization: string, content: string) {
  const bytes = Uint8Array.from(atob(content), (character) => character.charCodeAt(0));
  const client = createClient<paths>({ baseUrl: url, headers: { Authorization: authorization } });
  const record = (id: string) => ({ bucket_id: "b", collection_id: "c", id });

  const put = await client.PUT(RECORD, {
    params: { path: record("put"), query: { filename: "put.bin" } },
    headers: { "Content-Type": RAW },
    body: binary(bytes),
    bodySerializer: (body) => body,
  });
  const posted = await client.POST(RECORD, {
    params: { path: record("posted") },
    body: { attachment: binary(bytes), data: '{"title": "a form"}' },
    bodySerializer: toForm,
  });
  const read = async (id: string) => {
    const { data } = await client.GET(RECORD, {
      params: { path: record(id) },
      headers: { Accept: FILE },
      parseAs: "arrayBuffer",
    });
    return base64(data);
  };
  const key = new URL(put.data!.location).pathname.replace("/v1/attachments/", "");
  const file = await client.GET("/attachments/{key}", {
    params: { path: { key }, header: { Range: "bytes=250-" } },
    parseAs: "arrayBuffer",
  });
  const result = {
    put: { status: put.response.status, ...put.data },
    posted: { status: posted.response.status, ...posted.data },
    read: [await read("put"), await read("posted")],
    part: base64(file.data),
  };
  const removed = await client.DELETE(RECORD, { params: { path: record("put") } });
  const gone = await client.GET(RECORD, { params: { path: record("put") } });
  return { ...result, form: FORM, removed: [removed.response.status, removed.data === NO_CONTENT], gone: gone.error };
}

const [url, authorization, content] = process.argv.slice(2);
console.log(JSON.stringify(await main(url, authorization, content)));
