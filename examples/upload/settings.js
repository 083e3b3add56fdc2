// Change these settings when you copy this page. The Content-Security-Policy in index.html
// contains the addresses, too.

// The path of the module.
export { AttachmentClient } from "../../js/kinto-attachment.js";

// The URL of Kinto with its version, and the collection that gets a record for each file.
export const server = "http://127.0.0.1:8888/v1";
export const collection = "/buckets/default/collections/uploads";

// Whether the bytes are sent to the storage (S3). The bucket needs CORS rules for this page.
export const direct = false;

// Called before each request. This is a user of "make serve". Your page knows who has signed in.
export const headers = () => ({ Authorization: `Basic ${btoa("alice:secret")}` });
