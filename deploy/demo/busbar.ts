// SPDX-License-Identifier: Apache-2.0
import { spawn } from 'node:child_process';
import { createRequire } from 'node:module';

/** The command's program, for whoever runs it elsewhere. */
export const BIN = createRequire(import.meta.url).resolve('@busbar/cli/bin');

export interface CommandResult {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

/** Runs the `busbar` command as a user would, against a lab's context. Never rejects for its exit code. */
export function busbar(
  context: string,
  args: readonly string[],
  options: { readonly input?: string; readonly timeoutMs?: number } = {},
): Promise<CommandResult> {
  return new Promise((resolve, reject) => {
    const child = spawn(process.execPath, [BIN, '--context', context, ...args], { stdio: ['pipe', 'pipe', 'pipe'] });
    const out: Buffer[] = [];
    const err: Buffer[] = [];
    child.stdout.on('data', (chunk: Buffer) => out.push(chunk));
    child.stderr.on('data', (chunk: Buffer) => err.push(chunk));
    const timer = setTimeout(() => child.kill('SIGKILL'), options.timeoutMs ?? 300_000);
    child.on('error', reject);
    child.on('close', (code) => {
      clearTimeout(timer);
      resolve({ code: code ?? 137, stdout: Buffer.concat(out).toString(), stderr: Buffer.concat(err).toString() });
    });
    // A command that ends without reading its input is its right.
    child.stdin.on('error', () => {});
    child.stdin.end(options.input ?? '');
  });
}

/** The same for a command that has to succeed. */
export async function busbarOk(
  context: string,
  args: readonly string[],
  options: { readonly input?: string } = {},
): Promise<string> {
  const result = await busbar(context, args, options);
  if (result.code !== 0) throw new Error(`busbar ${args.join(' ')} ended with ${result.code}:\n${result.stderr}`);
  return result.stdout;
}
