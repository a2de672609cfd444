// SPDX-License-Identifier: Apache-2.0
/** The process around a command: streams that may break, signals that insist, and the exit code. */
import { homedir } from 'node:os';
import { processIo } from './cli/io.ts';
import { run } from './run.ts';

// `busbar vm list | head -1`: the reader has what it wants.
process.stdout.on('error', (error: NodeJS.ErrnoException) => {
  if (error.code === 'EPIPE') process.exit(0);
  throw error;
});

// grpc-js names IP addresses in TLS, which Node warns of (DEP0123) with every command: nothing a user can act on.
process.noDeprecation = true;

let interrupts = 0;
process.on('SIGINT', () => {
  // The first asks politely (see Session); whoever presses again means it.
  if (++interrupts > 1) process.exit(130);
});

const code = await run(process.argv.slice(2), processIo(homedir()));
// What still waits to be written must be; then end without waiting for idle sockets.
await Promise.all([process.stdout, process.stderr].map((stream) => new Promise((done) => stream.write('', done))));
process.exit(code);
