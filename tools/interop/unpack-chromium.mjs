// unpack-chromium.mjs FOLDER: unpacks the Chromium of npm's @sparticuz/chromium, which brings the program and the libraries
// that it needs within the package, into FOLDER/chromium, and writes FOLDER/bin/chromium, which starts it.
import { execFileSync } from "node:child_process";
import { createReadStream, createWriteStream } from "node:fs";
import { chmod, mkdir, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { pipeline } from "node:stream/promises";
import { createBrotliDecompress } from "node:zlib";

const folder = process.argv[2];
const packed = join(folder, "node_modules", "@sparticuz", "chromium", "bin");
const unpacked = join(folder, "chromium");

async function inflate(name) {
  const to = join(unpacked, name);
  await pipeline(createReadStream(join(packed, `${name}.br`)), createBrotliDecompress(), createWriteStream(to));
  return to;
}

await rm(unpacked, { recursive: true, force: true });
await mkdir(unpacked, { recursive: true });
await chmod(await inflate("chromium"), 0o755);
const libraries = await inflate("al2023.tar");
execFileSync("tar", ["-xf", libraries, "-C", unpacked, "--no-same-owner"]);
await rm(libraries);
const start = join(folder, "bin", "chromium");
await writeFile(start, `#!/bin/sh
dir=$(dirname "$(readlink -f "$0")")/../chromium
LD_LIBRARY_PATH=$dir/lib exec "$dir/chromium" "$@"
`);
await chmod(start, 0o755);
