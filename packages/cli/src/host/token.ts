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
import { appendText, changeOptions, examples, rowOptions } from '../cli/options.ts';
import { isTable } from '../cli/output.ts';
import type { ChangeOptions, Session } from '../cli/session.ts';
import { msFlag } from '../cli/values.ts';
import { runChange } from '../operation/change.ts';
import { note, print } from '../output/print.ts';
import { enumColumn, flagColumn } from '../resource/columns.ts';
import { type ListOptions, makeListing } from '../resource/listing.ts';
import { PAGE_SIZE, printList, type Shown } from '../resource/resource.ts';
import { ipFlag } from './addresses.ts';

export interface CreateOptions extends ChangeOptions {
  readonly role: string;
  readonly voter?: boolean;
  readonly ttl: string;
  readonly address: readonly string[];
}

export function defineToken(noun: Command, session: Session): void {
  const token = examples(
    noun.command('token').description('Tokens with which hosts join, each good for one host, once.'),
    ['busbar host token create host4 --address 10.0.0.4 > host4.token', 'busbar host token list'],
  );
  const create = changeOptions(token.command('create <host>').description('Prints a new token: the one secret line.'), {
    waits: false,
  })
    .addOption(
      new Option('--role <role>', 'what the host is for').choices(['hypervisor', 'witness']).default('hypervisor'),
    )
    .requiredOption(
      '--address <ip>',
      'its addresses, the management address first; no other is certified (repeatable, or with commas)',
      appendText,
    )
    .option('--voter', 'it shall run a controller and an etcd member, too')
    .option('--ttl <duration>', 'how long the token is good', '1h');
  examples(create, [
    'busbar host token create host4 --address 10.0.0.4,10.1.0.4 > host4.token',
    'busbar host token create witness1 --address 10.0.0.9 --role witness --voter --ttl 15min > w.token',
  ]).action((host: string, options: CreateOptions) => createToken(session, host, options));
  const list = token
    .command('list')
    .alias('ls')
    .description('Tokens that are good, used, or ended within the last day.');
  examples(rowOptions(list), ['busbar host token list']).action((options: ListOptions) => listTokens(session, options));
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
    addresses: addressesOf(options.address),
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
  if (options.dryRun !== true && isTable(session.output))
    note(
      session.io,
      `Whoever has this line can join as ${host}, until ${response.token?.expireTime?.toISOString() ?? '?'}.`,
    );
}

function addressesOf(words: readonly string[]): string[] {
  return words.flatMap((word) => word.split(',')).map((word) => ipFlag('--address', word.trim()));
}

const tokens: Shown<JoinTokenInfo> = {
  singular: 'token',
  plural: 'tokens',
  message: 'busbar.v1.JoinTokenInfo',
  name: (token) => token.id,
  toJson: (token) => JoinTokenInfo.toJSON(token),
  columns: [
    { header: 'ID', value: (token) => token.id },
    { header: 'HOST', value: (token) => token.host },
    enumColumn({ header: 'ROLE', generated: HostRole, prefix: 'HOST_ROLE', of: (token) => token.role }),
    { header: 'ADDRESSES', value: (token) => token.addresses.join(',') || '-', wide: true },
    flagColumn('VOTER', (token) => token.voter),
    { header: 'BY', value: (token) => token.createdBy, wide: true },
    // To the minute: the id, which deletion takes, needs the room.
    { header: 'ENDS', value: (token) => token.expireTime?.toISOString().replace(/:\d\d\.\d+Z$/, 'Z') ?? '-' },
    { header: 'USED', value: (token) => token.useTime?.toISOString() ?? '-', wide: true },
    { header: 'STATE', value: (token) => (token.useTime === undefined ? 'unused' : 'used') },
  ],
};

async function listTokens(session: Session, options: ListOptions): Promise<void> {
  session.doing = 'list join tokens';
  const listing = await makeListing(session, tokens, options);
  const api = await session.api();
  const items: JoinTokenInfo[] = [];
  let pageToken = '';
  do {
    const request = { pageSize: PAGE_SIZE, pageToken };
    const page = await api.call(JoinTokenServiceDefinition, (client, call) => client.listJoinTokens(request, call));
    items.push(...page.tokens);
    pageToken = page.nextPageToken;
  } while (pageToken !== '');
  await printList(session, tokens, listing, { items, revision: 0n });
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
