// Converts the pictures named in a list (source and target, tab between them) with sharp, `cores` at a time,
// and prints the seconds that took: node dev/bench/sharp.mjs LIST CORES SHARP
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";

const [list, cores, directory] = process.argv.slice(2);
const sharp = createRequire(`${directory}/`)("sharp");
sharp.cache(false);
sharp.concurrency(1); // one picture a core beats several threads a picture

const pairs = readFileSync(list, "utf8").trimEnd().split("\n").map((line) => line.split("\t"));
const convert = ([source, target]) => sharp(source).webp({ quality: 85, effort: 4 }).toFile(target);

await convert(pairs[0]); // loads the library
const started = performance.now();
let next = 0;
async function lane() {
  while (next < pairs.length) await convert(pairs[next++]);
}
await Promise.all(Array.from({ length: Number(cores) }, lane));
console.log((performance.now() - started) / 1000);
