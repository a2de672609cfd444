// SPDX-License-Identifier: Apache-2.0
import type { Command } from 'commander';
import { examples } from '../cli/options.ts';
import type { Session } from '../cli/session.ts';
import type { AddOptions } from './change.ts';

const FILE = `
The file ($BUSBAR_CONFIG or ~/.config/busbar/config.yaml):
  current: lab
  contexts:
    lab:
      endpoints: [10.77.0.11:7800, 10.77.0.12:7800, 10.77.0.13:7800]
      ca: ca.pem              # relative paths begin at the file's directory
      certificate: admin.pem
      key: admin-key.pem      # only you should be able to read it: mode 0600`;

export function define(noun: Command, session: Session): void {
  examples(noun, ['busbar context list', 'busbar context use lab', 'busbar context show']).addHelpText('after', FILE);
  examples(noun.command('list').alias('ls').description('The contexts of the file; the current one has a star.'), [
    'busbar context list',
  ]).action(async () => (await import('./show.ts')).list(session));
  examples(
    noun.command('show [context]').description('Endpoints, certificate, role and end of validity of a context.'),
    ['busbar context show', 'busbar context show lab -o json'],
  ).action(async (name: string | undefined) => (await import('./show.ts')).show(session, name));
  examples(noun.command('use <context>').description('Chooses the context of the commands to come.'), [
    'busbar context use lab',
  ]).action(async (name: string) => (await import('./change.ts')).use(session, name));
  const add = noun
    .command('add <name>')
    .description('Adds a context, or replaces it; the first one becomes the current one.')
    .requiredOption('--ca <file>', "certificate of the cluster's authority")
    .requiredOption('--certificate <file>', 'your client certificate')
    .requiredOption('--key <file>', 'its key')
    .option('--use', 'make it the current one');
  examples(add, [
    'busbar context add plant --endpoint 10.77.0.11 --ca ca.pem --certificate me.pem --key me.key',
  ]).action(async (name: string, options: AddOptions) => (await import('./change.ts')).add(session, name, options));
  examples(noun.command('rename <context> <name>').description('Gives a context another name.'), [
    'busbar context rename lab plant',
  ]).action(async (from: string, to: string) => (await import('./change.ts')).rename(session, from, to));
  examples(noun.command('remove <context>').alias('rm').description('Forgets a context; its files stay.'), [
    'busbar context remove lab',
  ]).action(async (name: string) => (await import('./change.ts')).remove(session, name));
}
