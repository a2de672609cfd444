// SPDX-License-Identifier: Apache-2.0
/** `busbar support-bundle`: collects, packs, and prints what is in it. */
import { writeFileSync } from 'node:fs';
import { resolve } from 'node:path';
import { gzipSync } from 'node:zlib';
import { describeError, UnreachableError } from '../api/rpc-error.ts';
import { CliError, EXIT } from '../cli/exit.ts';
import type { Session } from '../cli/session.ts';
import { formatBytes } from '../output/format.ts';
import { note, print, tableStyle } from '../output/print.ts';
import { ProgressLine } from '../output/progress.ts';
import { renderTable } from '../output/table.ts';
import { scrub } from './redact.ts';
import { SECTIONS, type Section } from './sections.ts';
import { type TarFile, tar } from './tar.ts';

interface Part {
  readonly name: string;
  readonly what: string;
  /** Of a list; null for what is none. */
  readonly entries: number | null;
  readonly sizeBytes: number;
  /** Why it is not there; empty when it is. */
  readonly missing: string;
}

/** A cluster in trouble answers slowly, but half a bundle is better than none an hour later. */
const TIMEOUT = '2min';

const README = `What "busbar support-bundle" collected. Every file is JSON, as the API gives it.

Only fields that are known to be harmless are in it; in place of others stands "(left out)".
Never in it: first-boot data (cloud-init), keys, tokens, contents of volumes and consoles.
In it are names, labels, addresses, hardware and messages: look through it before you pass it on.
`;

export async function runBundle(session: Session, file: string | undefined): Promise<void> {
  const { io } = session;
  session.doing = 'make a support bundle';
  session.defaultTimeout(TIMEOUT);
  const stamp = io
    .now()
    .toISOString()
    .replaceAll(/[-:]|\.\d+/g, '');
  const target = file ?? `busbar-support-${stamp}.tar.gz`;
  const folder = `busbar-support-${stamp}`;
  const parts: Part[] = [];
  const files: TarFile[] = [{ name: `${folder}/README.txt`, content: Buffer.from(README) }];
  const progress = new ProgressLine(io);
  let unreachable: string | undefined;
  for (const section of SECTIONS) {
    progress.update(`  ${section.name}`);
    const collected =
      section.remote && unreachable !== undefined ? { missing: unreachable } : await collect(session, section);
    if ('unreachable' in collected && collected.unreachable) unreachable = collected.missing;
    const content = 'missing' in collected ? undefined : Buffer.from(`${JSON.stringify(collected.value, null, 2)}\n`);
    if (content !== undefined) files.push({ name: `${folder}/${section.name}.json`, content });
    parts.push({
      name: `${section.name}.json`,
      what: section.what,
      entries: 'value' in collected && Array.isArray(collected.value) ? collected.value.length : null,
      sizeBytes: content?.length ?? 0,
      missing: 'missing' in collected ? collected.missing : '',
    });
  }
  progress.clear();
  files.push({ name: `${folder}/contents.json`, content: Buffer.from(`${JSON.stringify(parts, null, 2)}\n`) });
  const packed = gzipSync(tar(files, io.now()));
  save(resolve(io.directory, target), target, packed);
  await report(session, target, packed.length, parts);
}

type Collected = { readonly value: unknown } | { readonly missing: string; readonly unreachable: boolean };

async function collect(session: Session, section: Section): Promise<Collected> {
  try {
    return { value: await section.collect(session) };
  } catch (error) {
    session.signal.throwIfAborted();
    const missing = scrub(describeError(error, '').why.join('; '));
    return { missing, unreachable: error instanceof UnreachableError };
  }
}

function save(path: string, shown: string, content: Buffer): void {
  try {
    // Never over something that is there; and not for other users, though it holds no secrets.
    writeFileSync(path, content, { mode: 0o600, flag: 'wx' });
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException;
    throw new CliError({
      exit: EXIT.usage,
      reason: 'FILE_UNWRITABLE',
      what: `cannot write ${shown}`,
      why: [code === 'EEXIST' ? 'there is a file of this name already' : message],
      hint: 'give another name with --file',
      cause: error,
    });
  }
}

async function report(session: Session, file: string, sizeBytes: number, parts: readonly Part[]): Promise<void> {
  await print(session, {
    json: () => ({ file, sizeBytes, parts }),
    lines: () => parts,
    table: () =>
      renderTable(
        [
          { header: 'FILE', value: (part) => part.name },
          { header: 'ENTRIES', value: (part) => (part.entries === null ? '' : String(part.entries)), right: true },
          { header: 'SIZE', value: (part) => formatBytes(part.sizeBytes), right: true },
          {
            header: 'WHAT',
            value: (part) => (part.missing === '' ? part.what : `MISSING: ${part.missing}`),
            colour: (part) => (part.missing === '' ? undefined : 'red'),
            shrinks: true,
          },
        ],
        parts,
        tableStyle(session),
      ),
  });
  const missing = parts.filter((part) => part.missing !== '').length;
  if (missing > 0) note(session.io, `${missing} of ${parts.length} parts are missing`);
  note(
    session.io,
    `${file} (${formatBytes(sizeBytes)}) holds no secrets that busbar knows of; look through it before you pass it on`,
  );
}
