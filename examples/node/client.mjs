// The API for Node, made from the protos: no code of Trunkline's is needed.

import { existsSync } from "node:fs";
import { fileURLToPath } from "node:url";

import grpc from "@grpc/grpc-js";
import loader from "@grpc/proto-loader";

const FILES = ["trunkline/v1/analysis_service.proto", "trunkline/v1/model_service.proto"];
const UNLIMITED = { "grpc.max_send_message_length": -1, "grpc.max_receive_message_length": -1 };

/** Returns where the protos are: beside this file, where it was copied, or in the repository. */
function protos() {
  const places = ["./protos", "../../protos"].map((one) => new URL(one, import.meta.url));
  const found = places.map((one) => fileURLToPath(one)).find((one) => existsSync(one));
  if (found) return found;
  const place = fileURLToPath(places[0]);
  throw new Error(`no protos at ${place}; copy the folder protos of Trunkline's repository there`);
}

/** Returns the class of the service, made from the protos. */
function analysisService() {
  const definition = loader.loadSync(FILES, {
    includeDirs: [protos()],
    keepCase: true, // names as in the protos
    longs: Number, // offsets are small
    enums: String,
    defaults: true,
    oneofs: true,
  });
  return grpc.loadPackageDefinition(definition).trunkline.v1.AnalysisService;
}

/** Asks for offsets in UTF-16 units, as JavaScript's strings count. */
function requestOf(texts, questions) {
  const asked = questions.map((text) => ({ text }));
  const documents = texts.map((text) => ({ text, questions: asked }));
  return { documents, offset_unit: "OFFSET_UNIT_UTF16_UNIT" };
}

/** Connects to a server, unencrypted. */
export function connect(address) {
  const AnalysisService = analysisService();
  return new AnalysisService(address, grpc.credentials.createInsecure(), UNLIMITED);
}

/** Analyses texts in one call; `timeout` is in seconds. */
export function analyze(service, texts, { questions = [], timeout = 30 } = {}) {
  const request = requestOf(texts, questions);
  const deadline = new Date(Date.now() + timeout * 1000);
  return new Promise((resolve, reject) => {
    service.Analyze(request, { deadline }, (error, response) =>
      error ? reject(error) : resolve(response.results),
    );
  });
}

/**
 * Analyses texts over one stream, and yields [text, { response } or { error }] as answers come.
 *
 * Node buffers what is written without end: the next text is only sent while fewer than `window`
 * have no answer.
 */
export async function* analyzeStream(service, texts, { questions = [], window = 64 } = {}) {
  const call = service.AnalyzeStream();
  const waiting = new Map();
  const source = texts[Symbol.iterator]();
  let count = 0;
  const fill = () => {
    while (waiting.size < window) {
      const { value: text, done } = source.next();
      if (done) {
        call.end();
        return;
      }
      const id = String(count++);
      waiting.set(id, text);
      call.write({ id, request: requestOf([text], questions) });
    }
  };
  fill();
  try {
    for await (const reply of call) {
      const text = waiting.get(reply.id);
      waiting.delete(reply.id);
      yield [text, { response: reply.response?.results[0], error: reply.error }];
      fill();
    }
  } finally {
    call.cancel();
  }
}

/** Returns a result in the form that `trunkline predict --json` prints; scores are not rounded. */
export function toJson(text, result) {
  const tasks = result.tasks.map(({ task, annotations, ...found }) => [
    task,
    annotations ? Object.values(found[annotations]).flat() : [],
  ]);
  return { text, tasks: Object.fromEntries(tasks), questions: result.questions };
}

/** Yields all that points into the text: spans, and answers to questions. */
export function* pieces(result) {
  for (const { spans } of result.tasks) yield* spans?.spans ?? [];
  for (const { answers } of result.questions) yield* answers;
}
