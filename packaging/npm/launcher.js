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
for (const signal of ["SIGTERM", "SIGHUP", "SIGINT", "SIGQUIT"]) {
  // A terminal sends its signals to both processes, others to this one only.
  const isSentToBoth = process.stdin.isTTY && (signal === "SIGINT" || signal === "SIGQUIT");
  process.on(signal, () => isSentToBoth || child.kill(signal));
}
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
