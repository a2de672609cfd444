// SPDX-License-Identifier: Apache-2.0
// npm run lab -- COMMAND: the command line of the lab. Exit codes: 0 done, 1 failed, 2 wrong use; `exec` passes its program's on.
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFile } from 'node:fs/promises';
import { Command, InvalidArgumentError, Option } from 'commander';
import { parse } from 'yaml';
import { cephArgv } from './ceph.ts';
import {
  DEFAULT_NAME,
  freezeHost,
  healHost,
  hostAttach,
  killHost,
  labDown,
  labUp,
  listLabs,
  openLab,
  type Pretended,
  partitionHost,
  pretendTopology,
  reviveHost,
  status,
  thawHost,
} from './lab.ts';
import { requireMachine } from './machine.ts';
import { type NetworkName, SpecError, TEST_LAB_PREFIX } from './plan.ts';
import { DeadlineError } from './run.ts';
import { renderLabs, renderStatus } from './tables.ts';

const progress = (line: string): void => void process.stderr.write(`${line}\n`);

function wholeNumber(text: string): number {
  if (!/^\d+$/.test(text)) throw new InvalidArgumentError('want a whole number');
  return Number(text);
}

/** Commander hands on the "--" that ends the options, when a command takes the rest as it is. */
function afterDashes(words: readonly string[]): readonly string[] {
  return words[0] === '--' ? words.slice(1) : words;
}

const program = new Command('lab')
  .enablePositionalOptions() // what follows HOST belongs to the program that runs in it
  .description(
    'A Busbar cluster on this machine: each host is a set of namespaces with real libvirt, etcd, Ceph and NATS in it.',
  )
  .showHelpAfterError('(add --help for the possibilities)')
  .exitOverride((error) => process.exit(error.exitCode === 0 ? 0 : 2));

const named = (command: Command): Command => command.option('--name <lab>', 'which lab', DEFAULT_NAME);
const output = (): Option =>
  new Option('-o, --output <format>', 'output format').choices(['table', 'json']).default('table');

named(program.command('up'))
  .description('make a lab, or bring an existing one back to full health')
  .option('--hosts <n>', 'hosts that run VMs (default: 3)', wholeNumber)
  .option('--witnesses <n>', 'hosts that only vote (default: 0)', wholeNumber)
  .option('--no-ceph', 'disks in one shared directory instead of Ceph')
  .action(async (options: { name: string; hosts?: number; witnesses?: number; ceph: boolean }) => {
    if (options.name.startsWith(TEST_LAB_PREFIX))
      throw new SpecError(
        `"${options.name}" would be taken down by the next run of the tests, whose labs are named ${TEST_LAB_PREFIX}…; choose another name`,
      );
    // "--no-ceph" absent means "as it is", which for a new lab is with Ceph.
    await labUp({
      name: options.name,
      progress,
      ...(options.hosts === undefined ? {} : { hosts: options.hosts }),
      ...(options.witnesses === undefined ? {} : { witnesses: options.witnesses }),
      ...(options.ceph ? {} : { ceph: false }),
    });
  });

named(program.command('down'))
  .description('take a lab away, with all its data; also clears up after a crashed one')
  .action(async (options: { name: string }) => void (await labDown(options.name, { progress })));

program
  .command('list')
  .description('the labs of this machine')
  .addOption(output())
  .action(async (options: { output: string }) => {
    const labs = await listLabs();
    process.stdout.write(options.output === 'json' ? `${JSON.stringify(labs, null, 2)}\n` : renderLabs(labs));
  });

named(program.command('status'))
  .description('power, networks and services of each host; health of etcd and Ceph')
  .addOption(output())
  .action(async (options: { name: string; output: string }) => {
    const now = await status(options.name);
    process.stdout.write(options.output === 'json' ? `${JSON.stringify(now, null, 2)}\n` : renderStatus(now));
  });

named(program.command('exec <host> [command...]'))
  .description('run a program inside a host (default: a shell): exec host1 -- virsh list')
  .passThroughOptions()
  .action(async (host: string, words: string[], options: { name: string }) => {
    const command = afterDashes(words);
    process.exitCode = await hostAttach(options.name, host, command.length === 0 ? ['bash'] : command);
  });

const onHost = (name: string, description: string, action: (lab: string, host: string) => Promise<void>): void => {
  named(program.command(`${name} <host>`))
    .description(description)
    .action(async (host: string, options: { name: string }) => await action(options.name, host));
};
onHost('kill', 'cut the power: everything in the host is gone at once', killHost);
onHost('freeze', 'stop every process of the host, guests included, without ending any', freezeHost);
onHost('thaw', 'let a frozen host run on', thawHost);
onHost('heal', 'undo every partition of a host', healHost);

named(program.command('revive <host>'))
  .description('boot a host again')
  .option('--wait', 'until etcd has all members, Ceph is HEALTH_OK and Busbar calls the host ready (default)')
  .option('--no-wait', 'only until the services of the host run')
  .action(
    async (host: string, options: { name: string; wait?: boolean }) =>
      await reviveHost(options.name, host, { healthy: options.wait !== false, progress }),
  );

named(program.command('partition <host>'))
  .description('drop everything on a network of the host, silently, as a cut cable does')
  .addOption(
    new Option('--net <network>', '"all" is management and storage; "vm" is what the guests use')
      .choices(['management', 'storage', 'vm', 'all'])
      .default('all'),
  )
  .action(async (host: string, options: { name: string; net: NetworkName | 'all' }) => {
    await partitionHost(options.name, host, options.net === 'all' ? ['management', 'storage'] : [options.net]);
  });

named(program.command('pretend <host> [file]'))
  .description(
    'show placement another topology than the host has: a YAML file like pretendTopology of agent.yaml; none: its own',
  )
  .action(async (host: string, file: string | undefined, options: { name: string }) => {
    const topology = file === undefined ? null : (parse(await readFile(file, 'utf8')) as Pretended);
    await pretendTopology(options.name, host, topology);
  });

named(program.command('ceph [arguments...]'))
  .description('the ceph command as the administrator of the lab: ceph -- osd tree')
  .passThroughOptions()
  .action(async (args: string[], options: { name: string }) => {
    const plan = await openLab(options.name);
    const [command = '', ...rest] = cephArgv(plan.spec.name, 'ceph', afterDashes(args));
    const child = spawn(command, rest, { stdio: 'inherit' });
    const [code] = (await once(child, 'exit')) as [number | null];
    process.exitCode = code ?? 1;
  });

try {
  // `list` reads one file that everybody may read.
  program.hook('preAction', async (_, command) => (command.name() === 'list' ? undefined : await requireMachine()));
  await program.parseAsync();
} catch (error) {
  progress(`lab: ${error instanceof Error ? error.message : String(error)}`);
  if (error instanceof DeadlineError)
    progress('Look at "status"; logs are in /var/log/busbar inside each host ("exec HOST -- ls /var/log/busbar").');
  if (process.env['BUSBAR_DEBUG'] !== undefined && error instanceof Error) progress(error.stack ?? '');
  process.exitCode = error instanceof SpecError ? 2 : 1;
}
