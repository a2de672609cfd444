// SPDX-License-Identifier: Apache-2.0
/**
 * The tree of commands. A noun's commands are loaded when the noun is used, so that start-up does not pay for the
 * others; that is why this file imports none of them.
 */
import { Command, Option } from 'commander';
import { helpConfiguration } from './help.ts';
import type { Io } from './io.ts';
import { appendText, examples } from './options.ts';
import { OUTPUT_FORMATS } from './output.ts';
import type { GlobalOptions, Session } from './session.ts';

type Define = (noun: Command, session: Session) => void;

interface Noun {
  readonly name: string;
  readonly summary: string;
  /** Heading in `busbar --help`; without it the noun is a kind of resource. */
  readonly group?: string;
  readonly alias?: string;
  load(): Promise<{ define: Define }>;
}

const FILES = 'Files:';
const TOOLS = 'Tools:';

const NOUNS: readonly Noun[] = [
  {
    name: 'cluster',
    summary: 'the cluster as a whole: leader, store, storage',
    load: () => import('../cluster/command.ts'),
  },
  { name: 'host', alias: 'hosts', summary: 'the Linux hosts that run VMs', load: () => import('../host/command.ts') },
  { name: 'vm', alias: 'vms', summary: 'virtual machines', load: () => import('../vm/command.ts') },
  {
    name: 'image',
    alias: 'images',
    summary: 'disk templates that volumes are cloned from',
    load: () => import('../image/command.ts'),
  },
  { name: 'volume', alias: 'volumes', summary: 'disks of VMs', load: () => import('../volume/command.ts') },
  {
    name: 'network',
    alias: 'networks',
    summary: 'bridges that a NIC can be plugged into',
    load: () => import('../network/command.ts'),
  },
  {
    name: 'operation',
    alias: 'operations',
    summary: 'long-running work',
    load: () => import('../operation/command.ts'),
  },
  {
    name: 'event',
    alias: 'events',
    summary: 'what happened in the cluster',
    load: () => import('../event/command.ts'),
  },
  { name: 'audit', summary: 'who asked for which change', load: () => import('../audit/command.ts') },
  {
    name: 'certificate',
    alias: 'certificates',
    summary: 'who may use the cluster, and what they may do',
    load: () => import('../certificate/command.ts'),
  },
  {
    name: 'apply',
    group: FILES,
    summary: 'make the cluster match a YAML file; a second run changes nothing',
    load: () => import('../apply/command.ts'),
  },
  {
    name: 'diff',
    group: FILES,
    summary: 'what apply would change; exit code 1 when there is something',
    load: () => import('../diff/command.ts'),
  },
  {
    name: 'explain',
    group: FILES,
    summary: 'what a field means, its unit, limits and values',
    load: () => import('../explain/command.ts'),
  },
  {
    name: 'drill',
    group: TOOLS,
    summary: 'what happens if a host dies now: who goes where, how soon, who stays down',
    load: () => import('../host/drill-command.ts'),
  },
  {
    name: 'schedule',
    group: TOOLS,
    summary: 'where VMs of a file would go on hosts of a file; asks no cluster',
    load: () => import('../schedule/command.ts'),
  },
  {
    name: 'wait',
    group: TOOLS,
    summary: 'wait until a resource is as you want it',
    load: () => import('../wait/command.ts'),
  },
  {
    name: 'support-bundle',
    group: TOOLS,
    summary: 'what a supporter needs to know, in one file, without secrets',
    load: () => import('../support/command.ts'),
  },
  {
    name: 'context',
    group: TOOLS,
    alias: 'contexts',
    summary: 'which cluster this command talks to',
    load: () => import('../context/command.ts'),
  },
  {
    name: 'completion',
    group: TOOLS,
    summary: 'let the shell complete commands, options and names',
    load: () => import('../completion/command.ts'),
  },
  {
    name: 'version',
    group: TOOLS,
    summary: 'versions of this command and of the controller',
    load: () => import('../cluster/version.ts'),
  },
];

const EXIT_CODES = `
Exit codes:
  0    done, or nothing to do
  1    the cluster refused, or the work failed
  2    the command line or a file that it reads is wrong; nothing was sent
  3    not found
  4    conflict: exists already, changed meanwhile, or its state forbids this now
  5    no controller answers, no quorum, or out of time
  130  interrupted; work that had begun goes on (busbar operation list)

Data is on stdout; progress, hints and errors are on stderr. JSON is the API's own (busbar.v1).
Contexts are in ~/.config/busbar/config.yaml. Environment: BUSBAR_CONFIG, BUSBAR_CONTEXT, NO_COLOR.
Each command says more: busbar vm create --help`;

export function buildProgram(session: Session): Command {
  const program = new Command('busbar')
    .description('Runs the virtual machines of a plant on a cluster of Linux hosts.')
    .addOption(new Option('-o, --output <format>', 'how results are printed').choices(OUTPUT_FORMATS).default('table'))
    .option('--context <name>', 'cluster to talk to (default: the current context)')
    .option('--endpoint <host:port>', 'controller to talk to, instead of those of the context', appendText)
    .option('--timeout <duration>', 'give up after e.g. 30s or 5min; work that has begun goes on')
    .addHelpText('after', EXIT_CODES)
    .hook('preAction', (_, action) => session.configure(action.optsWithGlobals<GlobalOptions>()));
  examples(program, [
    'busbar cluster status',
    'busbar apply -f scada-1.yaml',
    'busbar vm list --watch',
    'busbar vm console scada-1',
    "busbar vm list --filter 'phase!=running' -o wide",
  ]);
  quiet(program, session.io);
  for (const noun of NOUNS) {
    const command = quiet(
      program.command(noun.name).summary(noun.summary).description(capital(noun.summary)),
      session.io,
    );
    if (noun.alias !== undefined) command.alias(noun.alias);
    command.helpGroup(noun.group ?? 'Resources:');
    unloaded.set(command, noun);
  }
  program.hook('preSubcommand', (_, chosen) => loadNoun(chosen, session));
  return program;
}

/** Nouns of a program whose commands are not defined yet. */
const unloaded = new WeakMap<Command, Noun>();

/** Defines the commands of a noun, once; anything else is left as it is. */
export async function loadNoun(command: Command, session: Session): Promise<void> {
  const noun = unloaded.get(command);
  if (noun === undefined) return;
  unloaded.delete(command);
  const { define } = await noun.load();
  define(command, session);
  quietAll(command.commands, noun.name, session.io);
}

function quietAll(commands: readonly Command[], noun: string, io: Io): void {
  for (const command of commands) {
    quiet(acceptKindName(command, noun), io);
    quietAll(command.commands, noun, io);
  }
}

/** `busbar vm list -o name` prints vm/web: that is a VM's name for every command that takes one. */
function acceptKindName(command: Command, kind: string): Command {
  for (const argument of command.registeredArguments) {
    if (argument.name() !== kind || argument.variadic) continue;
    argument.argParser((value: string) => (value.startsWith(`${kind}/`) ? value.slice(kind.length + 1) : value));
  }
  return command;
}

/** Errors are thrown and shown by us; commander prints help only. */
function quiet(command: Command, io: Io): Command {
  return command
    .exitOverride()
    .configureOutput({
      writeOut: (text) => void io.stdout.write(text),
      writeErr: (text) => void io.stderr.write(text),
      outputError: () => {},
    })
    .configureHelp(helpConfiguration(io))
    .helpOption('-h, --help', 'this help')
    .showSuggestionAfterError(true);
}

function capital(text: string): string {
  return `${text.charAt(0).toUpperCase()}${text.slice(1)}.`;
}
