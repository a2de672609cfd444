// SPDX-License-Identifier: Apache-2.0
/** The part of an import that is the same for every pool: stream in, checked disk data out. */
import type { Clock } from '@busbar/core/clock/clock';
import type { ImportRequest } from '../driver.ts';
import { storageError } from '../errors.ts';
import { HEAD_BYTES, parseQcow2Header, type Qcow2Header } from './qcow2.ts';
import { qcow2Data } from './qcow2-data.ts';
import { cancelled, Receiver } from './receive.ts';
import { SparseWriter } from './sparse.ts';
import type { OpenSpool } from './spool.ts';

/** A half-made image in the pool. */
export interface ImageTarget {
  /** At ascending offsets, never all zeros; the buffer is the caller's again afterwards. */
  write(offset: number, data: Buffer): Promise<void>;
  /** Everything written is durable when this resolves. */
  finish(): Promise<void>;
  /** Stops writing; what was made is removed by the driver. Never throws. */
  abort(): Promise<void>;
}

export interface ImportDeps {
  readonly clock: Clock;
  readonly openSpool: OpenSpool;
  /** A sender that sends nothing for so long is given up. */
  readonly idleMs: number;
}

export interface Imported {
  readonly virtualSizeBytes: bigint;
  readonly sha256: string;
}

/** `begin` makes the empty half-made image once its virtual size is known. */
export async function importStream(
  deps: ImportDeps,
  request: ImportRequest,
  begin: (virtualSizeBytes: bigint) => Promise<ImageTarget>,
): Promise<Imported> {
  if (request.signal.aborted) throw cancelled(request.signal);
  if (request.sizeBytes <= 0n || request.sizeBytes > BigInt(Number.MAX_SAFE_INTEGER)) {
    throw storageError('imageInvalid', `an image of ${request.sizeBytes} bytes cannot be`);
  }
  return request.format === 'raw' ? await importRaw(deps, request, begin) : await importQcow2(deps, request, begin);
}

type Begin = (virtualSizeBytes: bigint) => Promise<ImageTarget>;

async function importRaw(deps: ImportDeps, request: ImportRequest, begin: Begin): Promise<Imported> {
  const { sizeBytes } = request;
  if (sizeBytes % 512n !== 0n) {
    const message = `a raw image of ${sizeBytes} bytes is no disk: not a multiple of 512`;
    throw storageError('imageInvalid', message, { hint: 'is it compressed, or in another format?' });
  }
  const receiver = new Receiver(request, deps.clock, deps.idleMs);
  const chunks = receiver.chunks();
  // Looked at before anything is begun in the pool: who sends nothing, or something else, costs no program there.
  const first = await chunks.next();
  if (!first.done) refuseDisguised(first.value.data);
  try {
    await writeTo(await begin(sizeBytes), async (sparse) => {
      if (!first.done) await sparse.push(first.value.offset, first.value.data);
      for await (const { offset, data } of chunks) await sparse.push(offset, data);
      request.onProgress?.({ phase: 'seal', doneBytes: sizeBytes });
    });
  } finally {
    await chunks.return(undefined);
  }
  return { virtualSizeBytes: sizeBytes, sha256: receiver.sha256 };
}

/**
 * A raw disk that begins like another format is a mistake that would be found only by the guest that
 * does not boot. No boot sector begins so.
 */
function refuseDisguised(start: Uint8Array): void {
  const text = Buffer.from(start.subarray(0, 8)).toString('latin1');
  const found = [
    ['QFI\xfb', 'qcow2'],
    ['KDMV', 'VMDK'],
    ['vhdxfile', 'VHDX'],
    ['\x1f\x8b', 'gzip'],
    ['\xfd7zXZ\0', 'xz'],
    ['\x28\xb5\x2f\xfd', 'zstd'],
  ].find(([magic]) => text.startsWith(magic ?? ''));
  if (found === undefined) return;
  throw storageError('imageInvalid', `the stream is announced as raw but is ${found[1]}`, {
    hint: found[1] === 'qcow2' ? 'name the format qcow2' : 'convert it to raw or qcow2 first',
  });
}

async function importQcow2(deps: ImportDeps, request: ImportRequest, begin: Begin): Promise<Imported> {
  const receiver = new Receiver(request, deps.clock, deps.idleMs);
  const spool = await deps.openSpool(Number(request.sizeBytes));
  try {
    const header = await receiveQcow2(receiver, request, spool);
    await writeTo(await begin(BigInt(header.virtualSizeBytes)), async (sparse) => {
      for await (const { offset, data } of qcow2Data(spool, header)) {
        if (request.signal.aborted) throw cancelled(request.signal);
        await sparse.push(offset, data);
        request.onProgress?.({ phase: 'convert', doneBytes: BigInt(offset + data.length) });
      }
      request.onProgress?.({ phase: 'seal', doneBytes: BigInt(header.virtualSizeBytes) });
    });
    return { virtualSizeBytes: BigInt(header.virtualSizeBytes), sha256: receiver.sha256 };
  } finally {
    await spool.close();
  }
}

/** The header is judged as soon as it is there: nobody sends 40 GiB to be told about a backing file. */
async function receiveQcow2(
  receiver: Receiver,
  request: ImportRequest,
  spool: Awaited<ReturnType<OpenSpool>>,
): Promise<Qcow2Header> {
  const headBytes = Math.min(HEAD_BYTES, Number(request.sizeBytes));
  const head = Buffer.alloc(headBytes);
  let header: Qcow2Header | null = null;
  for await (const { offset, data } of receiver.chunks()) {
    if (offset < headBytes) head.set(data.subarray(0, headBytes - offset), offset);
    if (header === null && offset + data.length >= headBytes) {
      const parsed = parseQcow2Header(head, Number(request.sizeBytes));
      if (!parsed.ok) throw storageError('imageInvalid', `the qcow2 image cannot be taken: ${parsed.error}`);
      header = parsed.value;
    }
    await spool.write(offset, data);
  }
  await spool.flush();
  if (header === null) throw storageError('imageInvalid', 'the stream is empty');
  return header;
}

async function writeTo(target: ImageTarget, fill: (sparse: SparseWriter) => Promise<void>): Promise<void> {
  try {
    const sparse = new SparseWriter((offset, data) => target.write(offset, data));
    await fill(sparse);
    await sparse.flush();
    await target.finish();
  } catch (error) {
    await target.abort();
    throw error;
  }
}
