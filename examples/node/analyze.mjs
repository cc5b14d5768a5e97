// Analyses texts and prints a line of JSON for each.
//
//     node analyze.mjs [--stream] [--question Q ...] ADDRESS TEXT [TEXT ...]
//
// All texts go in one call; with --stream each is a request of its own, and printed when answered.

import { parseArgs } from "node:util";

import { analyze, analyzeStream, connect, pieces, toJson } from "./client.mjs";

const OPTIONS = {
  stream: { type: "boolean", default: false },
  question: { type: "string", multiple: true, default: [] },
};

function print(text, result) {
  for (const { start, end, text: piece } of pieces(result)) {
    if (text.slice(start, end) !== piece) throw new Error(`${start}:${end} is not ${piece}`);
  }
  console.log(JSON.stringify(toJson(text, result)));
}

async function* inOneCall(service, texts, options) {
  const results = await analyze(service, texts, options);
  for (const [at, result] of results.entries()) yield [texts[at], { response: result }];
}

async function main() {
  const { values, positionals } = parseArgs({ options: OPTIONS, allowPositionals: true });
  const [address, ...texts] = positionals;
  if (texts.length === 0) throw new Error("give the server's address and a text");
  const service = connect(address);
  const answers = values.stream ? analyzeStream : inOneCall;
  try {
    for await (const [text, { response, error }] of answers(service, texts, {
      questions: values.question,
    })) {
      if (error) throw new Error(`${JSON.stringify(text)}: ${error.message}`);
      print(text, response);
    }
  } finally {
    service.close();
  }
}

main().catch((error) => {
  console.error(`analyze: ${error.details ?? error.message}`);
  process.exitCode = 2;
});
