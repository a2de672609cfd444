// SPDX-License-Identifier: Apache-2.0
/** Runs one command line and returns its exit code. */
import { type Command, CommanderError } from 'commander';
import { CliError, EXIT } from './cli/exit.ts';
import type { Io } from './cli/io.ts';
import { isJson, isOutputFormat, type OutputFormat } from './cli/output.ts';
import { buildProgram } from './cli/program.ts';
import { Session } from './cli/session.ts';
import { renderError } from './output/error.ts';

export async function run(args: readonly string[], io: Io): Promise<number> {
  if (args[0] === '__complete') {
    const { runComplete } = await import('./completion/complete.ts');
    await runComplete(args.slice(1), io);
    return EXIT.ok;
  }
  const session = new Session(io);
  const program = buildProgram(session);
  try {
    await program.parseAsync(args, { from: 'user' });
    return session.exitCode;
  } catch (thrown) {
    const error = session.signal.aborted ? (session.signal.reason as unknown) : thrown;
    if (error instanceof CommanderError && error.exitCode === 0) return EXIT.ok;
    const shown = await describe(error, session, program, args);
    // commander has printed the help of a noun without a verb: that says it all.
    const said = error instanceof CommanderError && error.code === 'commander.help';
    const expected = session.endless && shown.exit === EXIT.interrupted;
    if (!said && !expected) io.stderr.write(renderError(shown, io, outputOf(args, session)));
    return shown.exit;
  } finally {
    session.end();
  }
}

async function describe(
  error: unknown,
  session: Session,
  program: Command,
  args: readonly string[],
): Promise<CliError> {
  if (error instanceof CliError) return error;
  if (error instanceof CommanderError) {
    const { describeUsage } = await import('./cli/usage.ts');
    return describeUsage(error, program, args);
  }
  const { describeError } = await import('./api/rpc-error.ts');
  return describeError(error, session.doing, session.lastRequestId);
}

/** A usage error comes before the options are parsed; a script that asked for JSON still gets JSON. */
function outputOf(args: readonly string[], session: Session): OutputFormat {
  const at = args.findIndex((arg) => arg === '-o' || arg === '--output');
  const joined = args.find((arg) => /^(-o|--output=)[a-z]+$/.test(arg));
  const wanted = at >= 0 ? args[at + 1] : joined?.replace(/^(-o|--output=)/, '');
  return wanted !== undefined && isOutputFormat(wanted) && isJson(wanted) ? wanted : session.output;
}
