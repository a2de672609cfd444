// SPDX-License-Identifier: Apache-2.0
import {
  Certificate,
  CertificatePurpose,
  CertificateServiceDefinition,
  ClientRole,
  RevocationScope,
  RevokeCertificateResponse,
} from '@busbar/proto/gen/busbar/v1/certificate';
import { type Command, Option } from 'commander';
import { changeOptions, examples, rowOptions } from '../cli/options.ts';
import type { ChangeOptions, Session } from '../cli/session.ts';
import { runChange } from '../operation/change.ts';
import { enumColumn } from '../resource/columns.ts';
import { type ListOptions, makeListing } from '../resource/listing.ts';
import { PAGE_SIZE, printList, type Shown } from '../resource/resource.ts';
import type { IssueOptions } from './issue.ts';

interface RevokeOptions extends ChangeOptions {
  readonly reason: string;
  readonly unrecorded?: boolean;
  readonly scope: keyof typeof SCOPES;
}

const SCOPES = {
  holder: RevocationScope.HOLDER,
  line: RevocationScope.LINE,
  certificate: RevocationScope.CERTIFICATE,
} as const;

export function define(noun: Command, session: Session): void {
  examples(noun, [
    'busbar certificate issue anna --role operator --dir anna',
    'busbar certificate list --subject client/anna',
    'busbar certificate revoke 5b3f0c… --reason "laptop lost"',
  ]);
  examples(
    rowOptions(
      noun
        .command('list')
        .alias('ls')
        .description('Issued certificates; also revoked ones, and expired ones for a month.'),
    ).option('--subject <subject>', 'only of client/NAME, host/NAME or controller/NAME'),
    ['busbar certificate list', 'busbar certificate list --subject host/host2'],
  ).action((options: ListOptions & { subject?: string }) => list(session, options));
  examples(
    changeOptions(noun.command('issue <client>').description('Makes a key here and a certificate for it.'), {
      waits: false,
    })
      .addOption(
        new Option('--role <role>', 'what it may do').choices(['viewer', 'operator', 'admin']).makeOptionMandatory(),
      )
      .option('--days <number>', 'how long it is valid', '365')
      .requiredOption('--dir <directory>', 'where to write certificate, key and ca.crt; must be new or empty'),
    [
      'busbar certificate issue anna --role operator --dir anna',
      'busbar certificate issue ci --role viewer --days 30 --dir ci',
    ],
  ).action(async (client: string, options: IssueOptions) =>
    (await import('./issue.ts')).issue(session, client, options),
  );
  examples(
    changeOptions(
      noun
        .command('revoke <serial>')
        .description('Ends a certificate and all others of its holder at once, on every controller.'),
      { waits: false },
    )
      .requiredOption('--reason <text>', 'why, for the list')
      .addOption(
        new Option('--scope <scope>', 'what ends: all of its holder, its line of renewals, or it alone')
          .choices(Object.keys(SCOPES))
          .default('holder'),
      )
      .option('--unrecorded', 'also when the cluster does not know it (after a restore)'),
    [
      'busbar certificate revoke 5b3f0c77aa1e42d19a0d8c3f5e6b7a90 --reason "laptop lost"',
      'busbar certificate revoke 5b3f0c77aa1e42d19a0d8c3f5e6b7a90 --reason "in a log" --scope line',
    ],
  ).action((serial: string, options: RevokeOptions) => revoke(session, serial, options));
  examples(noun.command('renew').description('Replaces certificate and key of the context by new ones, in place.'), [
    'busbar certificate renew',
    'busbar certificate renew --context plant7',
  ]).action(async () => (await import('./issue.ts')).renew(session));
}

const certificates: Shown<Certificate> = {
  singular: 'certificate',
  plural: 'certificates',
  message: 'busbar.v1.Certificate',
  name: (each) => each.serial,
  toJson: (each) => Certificate.toJSON(each),
  columns: [
    { header: 'SERIAL', value: (each) => each.serial },
    { header: 'SUBJECT', value: (each) => each.subject || '-' },
    enumColumn({
      header: 'PURPOSE',
      generated: CertificatePurpose,
      prefix: 'CERTIFICATE_PURPOSE',
      of: (each) => each.purpose,
    }),
    enumColumn({ header: 'ROLE', generated: ClientRole, prefix: 'CLIENT_ROLE', of: (each) => each.role }),
    // What connects the certificates of a line; eight digits of it tell.
    { header: 'PARENT', value: (each) => each.parentSerial.slice(0, SERIAL_SHOWN) || '-' },
    { header: 'ENDS', value: (each) => endOf(each)?.toISOString().slice(0, 10) ?? '-' },
    { header: 'REPLACED', value: (each) => each.replaceTime?.toISOString() ?? '-', wide: true },
    {
      header: 'REVOKED',
      value: (each) => (each.revokeTime === undefined ? '-' : each.revokeReason || 'yes'),
      colour: (each) => (each.revokeTime === undefined ? undefined : 'red'),
      shrinks: true,
    },
    { header: 'BY', value: (each) => each.issuedBy || '-', wide: true },
  ],
};

/** 4 billion values: enough to tell those of one holder apart. */
const SERIAL_SHOWN = 8;

function endOf({ notAfter, replaceTime }: Certificate): Date | undefined {
  return replaceTime !== undefined && notAfter !== undefined && replaceTime < notAfter ? replaceTime : notAfter;
}

async function list(session: Session, options: ListOptions & { readonly subject?: string }): Promise<void> {
  session.doing = 'list certificates';
  const listing = await makeListing(session, certificates, options);
  const api = await session.api();
  const items: Certificate[] = [];
  let pageToken = '';
  do {
    const request = { pageSize: PAGE_SIZE, pageToken, subject: options.subject ?? '' };
    const page = await api.call(CertificateServiceDefinition, (client, call) => client.listCertificates(request, call));
    items.push(...page.certificates);
    pageToken = page.nextPageToken;
  } while (pageToken !== '');
  await printList(session, certificates, listing, { items, revision: 0n });
}

function revoke(session: Session, serial: string, options: RevokeOptions): Promise<void> {
  const request = {
    serial,
    reason: options.reason,
    unrecorded: options.unrecorded === true,
    scope: SCOPES[options.scope],
    validateOnly: options.dryRun === true,
    requestId: session.requestId(options),
  };
  return runChange(session, options, {
    doing: `revoke certificate ${serial}`,
    target: `certificate/${serial}`,
    done: 'revoked',
    message: RevokeCertificateResponse,
    preview: (response) => others(response, 'would be revoked with it'),
    also: (response) => others(response, 'revoked with it'),
    send: (api) => api.call(CertificateServiceDefinition, (client, call) => client.revokeCertificate(request, call)),
  });
}

/** What goes with it must not be found out afterwards. */
function others({ alsoRevoked }: RevokeCertificateResponse, what: string): string {
  return alsoRevoked
    .map(({ serial, subject, purpose, parentSerial }) => {
      const kind = purpose.replace('CERTIFICATE_PURPOSE_', '').toLowerCase();
      const line = parentSerial === '' ? '' : `, renewed from ${parentSerial}`;
      return `certificate/${serial} of ${subject} (${kind}${line}) ${what}\n`;
    })
    .join('');
}
