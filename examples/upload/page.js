// Uploads files that are chosen or dropped. Each goes in several requests, so that it can be
// paused, and continues after a reload of the page.

import { client, rules } from "./kinto.js";
import { collection, direct } from "./settings.js";
import { sizeText } from "./sizes.js";
import { Upload } from "./upload.js";

const AT_ONCE = 2; // Files that are sent at the same time.

const element = (id) => document.getElementById(id);
const input = element("input");
const uploads = new Set();

input.onchange = () => {
  add([...input.files]);
  input.value = ""; // Otherwise, the same file could not be chosen again.
};

// By default, a file that is dropped outside the box would replace the page.
for (const type of ["dragenter", "dragover"]) {
  addEventListener(type, (event) => {
    if (!event.dataTransfer.types.includes("Files")) return;
    event.preventDefault();
    element("drop").classList.add("over");
  });
}
addEventListener("dragleave", ({ relatedTarget }) => {
  if (!relatedTarget) element("drop").classList.remove("over");
});
addEventListener("drop", (event) => {
  event.preventDefault();
  element("drop").classList.remove("over");
  add([...event.dataTransfer.files]);
});

await Promise.all([trying(showLimits), trying(showUnfinished)]);

async function add(files) {
  const limits = (await trying(rules)) ?? {};
  for (const file of files) {
    const known = [...uploads].find((upload) => upload.isOf(file) && upload.state !== "done");
    if (known) again(known, file);
    else begin(file, limits);
  }
}

function begin(file, limits) {
  // Before the collection exists, its rules are not known.
  const toStorage = direct && limits.direct !== false;
  const options = { collection, resumable: !limits.gzipped, direct: toStorage };
  const upload = list(file, options);
  const problem = refusal(file, limits);
  if (problem) upload.fail("refused", problem);
  else upload.set("waiting");
}

/** Continue an upload whose file was chosen again. */
function again(upload, file) {
  if (["waiting", "sending", "refused"].includes(upload.state)) {
    return tell(`${file.name} is in the list already.`);
  }
  upload.file = file;
  upload.set("waiting");
}

function list(file, options) {
  const choose = () => input.click();
  const upload = new Upload(file, options, { change, choose, news: tell });
  uploads.add(upload);
  element("uploads").append(upload.element);
  return upload;
}

/** Send the next waiting file, and take a removed one off the list. */
function change(changed) {
  if (changed.state === "removed") {
    uploads.delete(changed);
    const hadFocus = changed.element.contains(document.activeElement);
    changed.element.remove();
    if (hadFocus) input.focus();
  }
  if (changed.state === "done") element("problem").textContent = "";
  const all = [...uploads];
  const free = AT_ONCE - all.filter(({ state }) => state === "sending").length;
  const [next] = all.filter(({ state }) => state === "waiting");
  if (free > 0 && next) next.send();
}

/** Why the server would refuse a file, before it is sent. */
function refusal({ name, size }, limits) {
  const { max_size, min_size, extensions = [], locked } = limits;
  if (locked) return "The files of this collection are locked.";
  if (max_size && size > max_size) return `The file is larger than ${sizeText(max_size)}.`;
  if (size < min_size) return `The file is smaller than ${sizeText(min_size)}.`;
  const plain = name.toLowerCase().replace(/\.gz$/, ""); // The part before .gz counts.
  const isAllowed = extensions.some((each) => plain.endsWith(`.${each}`));
  if (extensions.length && !isAllowed) return `Only these are allowed: ${extensions.join(", ")}.`;
  const { quota_bytes, used_bytes, quota_files, used_files } = limits;
  const left = Math.max(quota_bytes - used_bytes, 0);
  if (quota_bytes && size > left) return `There is room for ${sizeText(left)} only.`;
  if (quota_files && used_files >= quota_files) return "There is no room for another file.";
  return "";
}

async function showLimits() {
  const { max_size, extensions = [] } = await rules();
  const texts = [max_size ? `Up to ${sizeText(max_size)}` : "", extensions.join(", ")];
  element("limits").textContent = texts.filter(Boolean).join(": ");
  input.accept = extensions.map((each) => `.${each}`).join();
}

async function showUnfinished() {
  for (const { file, options, sent } of await client.unfinished()) {
    if (options.collection !== collection) continue;
    const upload = list(file, options);
    upload.sent = sent;
    upload.set("missing");
  }
}

async function trying(action) {
  try {
    const result = await action();
    element("problem").textContent = "";
    return result;
  } catch (error) {
    const isAway = error instanceof TypeError; // From fetch.
    element("problem").textContent = isAway ? "The server cannot be reached." : error.message;
    return undefined;
  }
}

function tell(text) {
  element("news").textContent = text;
}
