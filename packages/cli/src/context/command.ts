// SPDX-License-Identifier: Apache-2.0
import type { Command } from 'commander';
import { examples } from '../cli/options.ts';
import type { Session } from '../cli/session.ts';
import { chooseContext, readConfig, writeCurrent } from '../config/file.ts';
import { print, tableStyle } from '../output/print.ts';
import { renderTable } from '../output/table.ts';

const FILE = `
The file ($BUSBAR_CONFIG or ~/.config/busbar/config.yaml):
  current: lab
  contexts:
    lab:
      endpoints: [10.77.0.11:7800, 10.77.0.12:7800, 10.77.0.13:7800]
      ca: ca.pem              # relative paths begin at the file's directory
      certificate: admin.pem
      key: admin-key.pem`;

export function define(noun: Command, session: Session): void {
  examples(noun, ['busbar context list', 'busbar context use lab']).addHelpText('after', FILE);
  examples(noun.command('list').alias('ls').description('The contexts of the file; the current one has a star.'), [
    'busbar context list',
  ]).action(() => list(session));
  examples(noun.command('use <context>').description('Chooses the context of the commands to come.'), [
    'busbar context use lab',
  ]).action((name: string) => use(session, name));
}

async function list(session: Session): Promise<void> {
  const config = readConfig(session.io);
  const entries = Object.entries(config.contexts).map(([name, entry]) => ({
    name,
    current: name === config.current,
    ...entry,
  }));
  await print(session, {
    json: () => ({ file: config.path, current: config.current, contexts: entries }),
    table: () =>
      renderTable(
        [
          { header: '', value: (entry) => (entry.current ? '*' : '-') },
          { header: 'NAME', value: (entry) => entry.name },
          { header: 'ENDPOINTS', value: (entry) => entry.endpoints.join(','), shrinks: true },
          { header: 'CERTIFICATE', value: (entry) => entry.certificate ?? '' },
        ],
        entries,
        tableStyle(session),
      ),
  });
}

async function use(session: Session, name: string): Promise<void> {
  const config = readConfig(session.io);
  const context = chooseContext(config, name);
  writeCurrent(config, context.name);
  await print(session, {
    json: () => ({ current: context.name }),
    table: () => `context/${context.name} is current\n`,
  });
}
