// SPDX-License-Identifier: Apache-2.0
/** Every command of the tree, as a user meets it. */
import type { Command } from 'commander';
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest';
import { descriptors } from '../schema/descriptors.ts';
import { startLab, type TestLab } from '../testing/cli.ts';
import { examplesOf } from './help.ts';
import { processIo } from './io.ts';
import { buildProgram, loadNoun } from './program.ts';
import { Session } from './session.ts';

vi.setConfig({ testTimeout: 60_000 });

const session = new Session(processIo('.'));
const program = buildProgram(session);
for (const noun of program.commands) await loadNoun(noun, session);
session.end();

function walk(command: Command, path: readonly string[]): { path: readonly string[]; command: Command }[] {
  return [{ path, command }, ...command.commands.flatMap((one) => walk(one, [...path, one.name()]))];
}
const all = walk(program, []);

let lab: TestLab;
beforeAll(async () => {
  lab = await startLab(0);
});
afterAll(() => lab.end());

test('there is a tree', () => expect(all.length).toBeGreaterThan(50));

describe.each(all.map(({ path, command }) => ({ name: ['busbar', ...path].join(' '), path, command })))(
  '$name',
  ({ path, command, name }) => {
    test('has a sentence, examples of itself, and help that fits 100 columns', async () => {
      expect(command.description()).toMatch(/^[A-Z].*[.]$/s);
      expect(examplesOf(command).length).toBeGreaterThan(0);
      // At least one shows this very command; a noun's shows its verbs.
      expect(examplesOf(command).some((line) => line.includes(name))).toBe(true);
      const { code, stdout } = await lab.cli(...path, '--help');
      expect(code).toBe(0);
      expect(stdout.split('\n').slice(1, 4).join('\n')).toMatch(/^(.*\n)?\nExamples:/);
      for (const line of stdout.split('\n')) expect([...line].length, line).toBeLessThanOrEqual(100);
    });
  },
);

test('every list can choose columns, order and rows; every get its columns', () => {
  const options = (command: Command) => command.options.map(({ long }) => long);
  const lists = all.filter(({ path }) => path[1] === 'list' && path[0] !== 'context');
  expect(lists.length).toBeGreaterThanOrEqual(6);
  for (const { command, path } of lists) {
    // The API has no watch of certificates.
    const watch = path[0] === 'certificate' ? [] : ['--watch'];
    expect(options(command), path.join(' ')).toEqual(
      expect.arrayContaining([...watch, '--columns', '--no-headers', '--sort', '--filter']),
    );
  }
  for (const { command, path } of all.filter(({ path }) => path[1] === 'get' && path[0] !== 'cluster')) {
    expect(options(command), path.join(' ')).toEqual(expect.arrayContaining(['--watch', '--columns', '--no-headers']));
  }
});

test('every change that the API can tie to a revision has --if-revision', () => {
  // From the descriptors: requests that change something and carry a revision, and the commands that send them.
  const SENT_BY: Readonly<Record<string, readonly string[]>> = {
    UpdateVmRequest: ['apply'],
    UpdateNetworkRequest: ['apply'],
    UpdateHostRequest: ['host label', 'host set', 'host cordon', 'host uncordon'],
    DeleteVmRequest: ['vm delete'],
    DeleteVolumeRequest: ['volume delete'],
    DeleteNetworkRequest: ['network delete'],
    DeleteImageRequest: ['image delete'],
    ResizeVolumeRequest: ['volume resize', 'apply'],
  };
  const requests = [...descriptors().registry]
    .filter((one) => one.kind === 'message')
    .filter(({ typeName, fields }) => {
      const names = new Set(fields.map((field) => field.jsonName));
      return /^busbar\.v1\.\w+Request$/.test(typeName) && names.has('revision') && names.has('validateOnly');
    })
    .map(({ name }) => name);
  expect(requests.length).toBeGreaterThanOrEqual(8);
  for (const request of requests) {
    const commands = SENT_BY[request];
    expect(commands, `no command is known to send ${request}`).toBeDefined();
    for (const name of commands ?? []) {
      const found = all.find(({ path }) => path.join(' ') === name);
      expect(
        found?.command.options.map(({ long }) => long),
        name,
      ).toContain('--if-revision');
    }
  }
});

test('busbar --help', async () => {
  expect((await lab.cli('--help')).stdout).toMatchInlineSnapshot(`
    "Runs the virtual machines of a plant on a cluster of Linux hosts.

    Examples:
      busbar cluster status
      busbar apply -f scada-1.yaml
      busbar vm list --watch
      busbar vm console scada-1
      busbar vm list --filter 'phase!=running' -o wide

    Usage:
      busbar COMMAND [options]

    Resources:
      cluster                 the cluster as a whole: leader, store, storage
      host                    the Linux hosts that run VMs
      vm                      virtual machines
      image                   disk templates that volumes are cloned from
      volume                  disks of VMs
      network                 bridges that a NIC can be plugged into
      operation               long-running work
      event                   what happened in the cluster
      audit                   who asked for which change
      certificate             who may use the cluster, and what they may do

    Files:
      apply                   make the cluster match a YAML file; a second run changes nothing
      diff                    what apply would change; exit code 1 when there is something
      explain                 what a field means, its unit, limits and values

    Tools:
      drill                   what happens if a host dies now: who goes where, how soon, who stays down
      schedule                where VMs of a file would go on hosts of a file; asks no cluster
      wait                    wait until a resource is as you want it
      support-bundle          what a supporter needs to know, in one file, without secrets
      context                 which cluster this command talks to
      completion              let the shell complete commands, options and names
      version                 versions of this command and of the controller

    Options:
      -o, --output <format>   how results are printed: table, wide, json, jsonl, yaml, name (default:
                              table)
      --context <name>        cluster to talk to (default: the current context)
      --endpoint <host:port>  controller to talk to, instead of those of the context
      --timeout <duration>    give up after e.g. 30s or 5min; work that has begun goes on
      -h, --help              this help

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
    Each command says more: busbar vm create --help
    "
  `);
});
