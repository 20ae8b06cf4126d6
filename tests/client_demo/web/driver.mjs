// Run a client under test as a process: options are JSON in argv, commands are JSON lines on stdin, and events are
// JSON lines on stdout. Tokens come from a list; the last one is repeated.

import { existsSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { createInterface } from "node:readline";

const [library, text] = process.argv.slice(2);
const { tokens, file, skewMs = 0, speed = 1, msgpack, h3, ...options } = JSON.parse(text);
const { Geocast, watchPosition, fetchLive } = await import(library);
const packages = createRequire(library);
const tell = (line) => process.stdout.write(`${JSON.stringify(line)}\n`);

const storage = file && {
  getItem: () => (existsSync(file) ? readFileSync(file, "utf-8") : null),
  setItem: (_, value) => writeFileSync(file, value),
  removeItem: () => rmSync(file, { force: true }),
};
const begin = Date.now();
const clock = {
  now: () => begin + (Date.now() - begin) * speed + skewMs,
  steady: () => performance.now() * speed,
  setTimeout: (callback, ms) => setTimeout(callback, ms / speed),
  clearTimeout: (timer) => clearTimeout(timer),
};
const all = {
  ...options,
  clock,
  storage: storage ?? null,
  token: options.token ?? (tokens && (() => (tokens.length > 1 ? tokens.shift() : tokens[0]))),
  random: () => 0,
  ...(msgpack && { msgpack: await import(packages.resolve("@msgpack/msgpack")) }),
  ...(h3 && { h3: await import(packages.resolve("h3-js")) }),
};

const geocast = options.fetch ? null : new Geocast(all);
for (const name of ["alert", "update", "cancel", "expire", "call", "task", "standdown", "status", "error"])
  geocast?.on(name, (event) =>
    tell({ event: name, ...event, ...(event.cause instanceof Error && { cause: `${event.cause}` }) }),
  );

let fix = () => {};
const geolocation = {
  watchPosition: (success) => ((fix = success), 1),
  clearWatch: () => (fix = () => {}),
};
const commands = {
  held: () => geocast.held(),
  now: () => geocast.now(),
  places: () => geocast.places,
  watch: (more) => void watchPosition(geocast, { geolocation, ...more }),
  fix: (latitude, longitude, accuracy) => fix({ coords: { latitude, longitude, accuracy } }),
  fetch: (more) =>
    fetchLive({ ...all, ...more }).catch((error) => ({ error: error.message, closeCode: error.closeCode })),
};
for await (const line of createInterface({ input: process.stdin })) {
  const [name, ...args] = JSON.parse(line);
  tell({ answer: name, value: (await (commands[name] ?? geocast[name].bind(geocast))(...args)) ?? null });
}
