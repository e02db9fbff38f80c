#!/usr/bin/env node
// Runs the program of the package for this platform.
"use strict";

const { spawn } = require("node:child_process");

const platform = `@nearfield/${process.platform}-${process.arch}`;
let program;
try {
  program = require.resolve(`${platform}/bin/nearfield`);
} catch {
  console.error(
    `nearfield: the package ${platform} is not installed. If there is one for this platform, install nearfield again ` +
      "without --omit=optional; otherwise build it from source: see docs/install.md.",
  );
  process.exit(4);
}

const child = spawn(program, process.argv.slice(2), { stdio: "inherit" });
// The terminal sends SIGINT to both; other signals reach this process only.
process.on("SIGINT", () => {});
for (const signal of ["SIGTERM", "SIGHUP"]) process.on(signal, () => child.kill(signal));
child.on("error", (error) => {
  console.error(`nearfield: cannot start ${program}: ${error.message}`);
  process.exit(1);
});
child.on("exit", (code, signal) => {
  if (signal) {
    process.removeAllListeners(signal);
    process.kill(process.pid, signal);
  } else {
    process.exit(code);
  }
});
