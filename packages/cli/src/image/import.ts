// SPDX-License-Identifier: Apache-2.0
/**
 * `image import`: streams a file under the server's back-pressure. A stream that breaks leaves nothing behind, so it
 * is begun again at the next controller, with the same request id: after a success that was not heard of, the repeat
 * gets the image.
 */
import { createHash } from 'node:crypto';
import { type FileHandle, open } from 'node:fs/promises';
import { resolve } from 'node:path';
import {
  type DeepPartial,
  type Image,
  ImageFormat,
  ImageServiceDefinition,
  type ImportImageHeader,
  type ImportImageRequest,
  ImportImageResponse,
} from '@busbar/proto/gen/busbar/v1/image';
import type { Metadata } from 'nice-grpc';
import { type Api, isUnavailable } from '../api/api.ts';
import { CliError, EXIT, usageError } from '../cli/exit.ts';
import { parseLabels } from '../cli/options.ts';
import type { ChangeOptions, Session } from '../cli/session.ts';
import { fileError, nameArgument } from '../cli/values.ts';
import { present } from '../operation/resource.ts';
import { formatBytes } from '../output/format.ts';
import { print } from '../output/print.ts';
import { ProgressLine } from '../output/progress.ts';
import { transferText } from './transfer.ts';

export interface ImportOptions extends ChangeOptions {
  readonly format?: 'raw' | 'qcow2';
  readonly label?: readonly string[];
}

/** The API takes up to 1 MiB; half of it keeps two in flight small. */
const CHUNK_BYTES = 512 * 1024;
/** Reading this much twice costs about a second; beyond, the sum is made on the way and compared with the cluster's. */
const HASH_FIRST_BYTES = 512 * 1024 * 1024;
const ATTEMPTS = 4;
const RETRY_MS = 500;
const QCOW2_MAGIC = Buffer.from('514649fb', 'hex');

export async function runImport(session: Session, name: string, file: string, options: ImportOptions): Promise<void> {
  nameArgument(name);
  session.doing = `import image ${name}`;
  const handle = await open(resolve(session.io.directory, file)).catch((error: unknown) => {
    throw fileError(file, error);
  });
  try {
    const header = await makeHeader(session, handle, name, file, options);
    const api = await session.api();
    const source = new Source(handle, Number(header.spec?.fileSizeBytes ?? 0), session.signal);
    const image = await send(session, api, header, source, options.dryRun === true);
    if (options.dryRun === true) {
      const table = () => `image/${name} would be imported (dry run: nothing was changed)\n`;
      return await print(session, {
        json: () => ImportImageResponse.toJSON(ImportImageResponse.create({ image })),
        table,
      });
    }
    const arrived = present(image, `image ${name}`);
    compareChecksums(arrived, header.spec?.sha256 || source.sha256, file);
    await print(session, {
      json: () => ImportImageResponse.toJSON(ImportImageResponse.create({ image: arrived })),
      table: () =>
        `image/${name} imported (${formatBytes(arrived.status?.virtualSizeBytes ?? 0n)}, sha256 ${arrived.status?.sha256 ?? ''})\n`,
    });
  } finally {
    await handle.close();
  }
}

async function makeHeader(
  session: Session,
  handle: FileHandle,
  name: string,
  file: string,
  options: ImportOptions,
): Promise<DeepPartial<ImportImageHeader>> {
  const stat = await handle.stat();
  if (!stat.isFile() && !stat.isBlockDevice())
    throw usageError(`${file} is no file`, 'its length cannot be known beforehand', 'give a raw or qcow2 file');
  if (stat.size === 0) throw usageError(`${file} is empty`, 'there is nothing to import', 'give a raw or qcow2 file');
  const magic = Buffer.alloc(4);
  await handle.read(magic, 0, 4, 0);
  const seen = magic.equals(QCOW2_MAGIC) ? 'qcow2' : 'raw';
  const format = options.format ?? seen;
  if (format === 'qcow2' && seen !== 'qcow2') {
    throw usageError(
      `${file} is no qcow2 file`,
      'it does not begin with QFI\\xfb',
      'leave --format out, or give --format raw',
    );
  }
  let sha256 = '';
  if (stat.size <= HASH_FIRST_BYTES && options.dryRun !== true) {
    const source = new Source(handle, stat.size, session.signal);
    // Only the sum is wanted here.
    for await (const _ of source.chunks()) void _;
    sha256 = source.sha256;
  }
  return {
    name,
    labels: parseLabels(options.label ?? []),
    spec: {
      format: format === 'qcow2' ? ImageFormat.QCOW2 : ImageFormat.RAW,
      fileSizeBytes: BigInt(stat.size),
      sha256,
    },
    validateOnly: options.dryRun === true,
    requestId: session.requestId(options),
  };
}

/** The file in chunks, with the checksum of what was read. Can be read again from the beginning. */
class Source {
  readonly #handle: FileHandle;
  readonly #size: number;
  readonly #signal: AbortSignal;
  sha256 = '';
  readBytes = 0;

  constructor(handle: FileHandle, size: number, signal: AbortSignal) {
    this.#handle = handle;
    this.#size = size;
    this.#signal = signal;
  }

  get size(): number {
    return this.#size;
  }

  async *chunks(): AsyncGenerator<Buffer> {
    const hash = createHash('sha256');
    this.readBytes = 0;
    while (this.readBytes < this.#size) {
      this.#signal.throwIfAborted();
      // A new buffer each time: the former ones may still wait in the socket.
      const buffer = Buffer.allocUnsafe(Math.min(CHUNK_BYTES, this.#size - this.readBytes));
      const { bytesRead } = await this.#handle.read(buffer, 0, buffer.length, this.readBytes);
      if (bytesRead === 0)
        throw usageError(
          'the file became shorter while it was read',
          `${this.readBytes} of ${this.#size} bytes came`,
          'import it when nothing writes to it',
        );
      const chunk = buffer.subarray(0, bytesRead);
      hash.update(chunk);
      this.readBytes += bytesRead;
      yield chunk;
    }
    this.sha256 = hash.digest('hex');
  }
}

async function send(
  session: Session,
  api: Api,
  header: DeepPartial<ImportImageHeader>,
  source: Source,
  dryRun: boolean,
): Promise<Image | undefined> {
  const progress = new ProgressLine(session.io);
  for (let attempt = 1; ; attempt++) {
    let trailer: Metadata | undefined;
    const opened = await api.open(ImageServiceDefinition);
    const begun = performance.now();
    try {
      let image: Image | undefined;
      const options = { signal: session.signal, onTrailer: (metadata: Metadata) => (trailer = metadata) };
      for await (const response of opened.client.importImage(requests(header, source, dryRun), options)) {
        image = response.image ?? image;
        if (!dryRun)
          progress.update(
            transferText(response.phase, Number(response.doneBytes), source.size, performance.now() - begun),
          );
      }
      return image;
    } catch (thrown) {
      const error = opened.failed(thrown, trailer);
      if (!isUnavailable(error) || attempt >= ATTEMPTS) throw error;
      progress.keep(`  the stream to ${opened.address} broke (${error.details}); beginning again`);
      await api.pause(RETRY_MS);
    } finally {
      progress.clear();
    }
  }
}

async function* requests(
  header: DeepPartial<ImportImageHeader>,
  source: Source,
  dryRun: boolean,
): AsyncGenerator<DeepPartial<ImportImageRequest>> {
  yield { part: { $case: 'header', value: header } };
  if (dryRun) return;
  for await (const chunk of source.chunks()) yield { part: { $case: 'chunk', value: chunk } };
}

function compareChecksums(image: Image, ours: string, file: string): void {
  const theirs = image.status?.sha256 ?? '';
  const name = image.meta?.name ?? '';
  if (theirs === '' || ours === '' || theirs === ours) return;
  throw new CliError({
    exit: EXIT.failed,
    reason: 'CHECKSUM_MISMATCH',
    what: `image ${name} is not what was sent`,
    why: [`the SHA-256 of ${file} is ${ours}, the cluster has ${theirs}`],
    hint: `busbar image delete ${name}, then import it again`,
  });
}
