// Runs a bundle's graph in onnxruntime-web: node run.mjs BUNDLE GRAPH <inputs.json >outputs.json
// Both files: {name: {dims, data}}; inputs are int64, outputs float32.

import { readFile } from "node:fs/promises";
import { basename, join } from "node:path";
import { json } from "node:stream/consumers";
import * as ort from "onnxruntime-web";

async function open(bundle, wanted) {
  const manifest = JSON.parse(await readFile(join(bundle, "manifest.json"), "utf8"));
  const graph = manifest.graphs.find((one) => `${one.layout}-${one.precision}` === wanted);
  if (!graph) throw new Error(`${bundle}: has no graph ${wanted}`);
  const read = (file) => readFile(join(bundle, file));
  // A graph names the file of its weights as if both were in the working directory.
  const weights = async (file) => ({ path: basename(file), data: await read(file) });
  return ort.InferenceSession.create(await read(graph.file), {
    executionProviders: ["wasm"],
    externalData: graph.weights ? [await weights(graph.weights)] : [],
  });
}

async function main(bundle, wanted) {
  ort.env.wasm.numThreads = 1; // sums in one order
  const session = await open(bundle, wanted);
  const feeds = {};
  for (const [name, { dims, data }] of Object.entries(await json(process.stdin))) {
    feeds[name] = new ort.Tensor("int64", BigInt64Array.from(data, BigInt), dims);
  }
  const outputs = {};
  for (const [name, { dims, data }] of Object.entries(await session.run(feeds))) {
    outputs[name] = { dims, data: Array.from(data) };
  }
  process.stdout.write(JSON.stringify(outputs));
}

main(...process.argv.slice(2)).catch((error) => {
  // Whole, it would show pages of the runtime's code.
  console.error(error.message);
  process.exitCode = 1;
});
