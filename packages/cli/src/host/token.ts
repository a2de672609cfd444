// SPDX-License-Identifier: Apache-2.0
import { HostRole } from '@busbar/proto/gen/busbar/v1/host';
import {
  CreateJoinTokenRequest,
  CreateJoinTokenResponse,
  DeleteJoinTokenResponse,
  JoinTokenInfo,
  JoinTokenServiceDefinition,
} from '@busbar/proto/gen/busbar/v1/join';
import { type Command, Option } from 'commander';
import { changeOptions, examples } from '../cli/options.ts';
import type { ChangeOptions, Session } from '../cli/session.ts';
import { msFlag } from '../cli/values.ts';
import { runChange } from '../operation/change.ts';
import { formatEnum } from '../output/format.ts';
import { note, print, tableStyle } from '../output/print.ts';
import { type Column, renderTable } from '../output/table.ts';
import { PAGE_SIZE } from '../resource/resource.ts';

export interface CreateOptions extends ChangeOptions {
  readonly role: string;
  readonly voter?: boolean;
  readonly ttl: string;
}

export function defineToken(noun: Command, session: Session): void {
  const token = examples(
    noun.command('token').description('Tokens with which hosts join, each good for one host, once.'),
    ['busbar host token create host4 > host4.token', 'busbar host token list'],
  );
  const create = changeOptions(token.command('create <host>').description('Prints a new token: the one secret line.'), {
    waits: false,
  })
    .addOption(
      new Option('--role <role>', 'what the host is for').choices(['hypervisor', 'witness']).default('hypervisor'),
    )
    .option('--voter', 'it shall run a controller and an etcd member, too')
    .option('--ttl <duration>', 'how long the token is good', '1h');
  examples(create, [
    'busbar host token create host4 > host4.token',
    'busbar host token create witness1 --role witness --voter --ttl 15min > w.token',
  ]).action((host: string, options: CreateOptions) => createToken(session, host, options));
  examples(token.command('list').alias('ls').description('Tokens that are good, used, or ended within the last day.'), [
    'busbar host token list',
  ]).action(() => listTokens(session));
  examples(
    changeOptions(token.command('delete <id>').description('Withdraws a token. What was issued for it stays.'), {
      waits: false,
    }),
    ['busbar host token delete 01234567-89ab-4cde-8f01-23456789abcd'],
  ).action((id: string, options: ChangeOptions) => deleteToken(session, id, options));
}

async function createToken(session: Session, host: string, options: CreateOptions): Promise<void> {
  session.doing = `create a join token for host ${host}`;
  const request = CreateJoinTokenRequest.create({
    host,
    role: options.role === 'witness' ? HostRole.WITNESS : HostRole.HYPERVISOR,
    voter: options.voter === true,
    ttlSeconds: Math.ceil(msFlag('--ttl', options.ttl) / 1000),
    validateOnly: options.dryRun === true,
    requestId: session.requestId(options),
  });
  const api = await session.api();
  const response = await api.call(JoinTokenServiceDefinition, (client, call) => client.createJoinToken(request, call));
  await print(session, {
    json: () => CreateJoinTokenResponse.toJSON(response),
    table: () =>
      options.dryRun === true
        ? `a token for host/${host} would be made (dry run: nothing was changed)\n`
        : `${response.text}\n`,
  });
  if (options.dryRun !== true && session.output === 'table')
    note(
      session.io,
      `Whoever has this line can join as ${host}, until ${response.token?.expireTime?.toISOString() ?? '?'}.`,
    );
}

const columns: readonly Column<JoinTokenInfo>[] = [
  { header: 'ID', value: (token) => token.id },
  { header: 'HOST', value: (token) => token.host },
  { header: 'ROLE', value: (token) => formatEnum(token.role, 'HOST_ROLE') },
  { header: 'VOTER', value: (token) => (token.voter ? 'yes' : 'no') },
  { header: 'BY', value: (token) => token.createdBy },
  { header: 'ENDS', value: (token) => token.expireTime?.toISOString() ?? '-' },
  { header: 'USED', value: (token) => token.useTime?.toISOString() ?? '-' },
];

async function listTokens(session: Session): Promise<void> {
  session.doing = 'list join tokens';
  const api = await session.api();
  const tokens: JoinTokenInfo[] = [];
  let pageToken = '';
  do {
    const request = { pageSize: PAGE_SIZE, pageToken };
    const page = await api.call(JoinTokenServiceDefinition, (client, call) => client.listJoinTokens(request, call));
    tokens.push(...page.tokens);
    pageToken = page.nextPageToken;
  } while (pageToken !== '');
  await print(session, {
    json: () => ({ tokens: tokens.map((token) => JoinTokenInfo.toJSON(token)) }),
    table: () => (tokens.length === 0 ? 'no tokens\n' : renderTable(columns, tokens, tableStyle(session.io))),
  });
}

function deleteToken(session: Session, id: string, options: ChangeOptions): Promise<void> {
  const request = { id, validateOnly: options.dryRun === true, requestId: session.requestId(options) };
  return runChange(session, options, {
    doing: `delete join token ${id}`,
    target: `token/${id}`,
    done: 'withdrawn',
    message: DeleteJoinTokenResponse,
    send: (api) => api.call(JoinTokenServiceDefinition, (client, call) => client.deleteJoinToken(request, call)),
  });
}
