// SPDX-License-Identifier: Apache-2.0
// Runs one program of the build and returns what it printed.
import { spawn } from 'node:child_process';

const PROGRAM_DEADLINE_MS = 60_000;

export class ProgramFailed extends Error {}

export async function run(program: string, args: readonly string[], env: NodeJS.ProcessEnv = {}): Promise<string> {
  const child = spawn(program, args, {
    stdio: ['ignore', 'pipe', 'pipe'],
    // mkfs and friends live in sbin, which is not on everybody's path.
    env: { ...process.env, PATH: `${process.env['PATH'] ?? ''}:/usr/sbin:/sbin`, LC_ALL: 'C', ...env },
    timeout: PROGRAM_DEADLINE_MS,
    killSignal: 'SIGKILL',
  });
  const stdout: Buffer[] = [];
  const stderr: Buffer[] = [];
  child.stdout.on('data', (chunk: Buffer) => stdout.push(chunk));
  child.stderr.on('data', (chunk: Buffer) => stderr.push(chunk));
  const code = await new Promise<number | null>((resolve, reject) => {
    child.once('error', (cause) =>
      reject(new ProgramFailed(`cannot run ${program} (see deploy/guest/debian-packages.txt)`, { cause })),
    );
    child.once('close', resolve);
  });
  if (code !== 0) {
    throw new ProgramFailed(`${program} ${args.join(' ')} ended with ${code}: ${Buffer.concat(stderr).toString()}`);
  }
  return Buffer.concat(stdout).toString();
}
