// SPDX-License-Identifier: Apache-2.0
// Image import and clone through the API, against the `rbd` program on the host itself.
import { readFileSync } from 'node:fs';
import { writeFile } from 'node:fs/promises';
import { hostRoot } from '@busbar/deploy/lab/paths';
import { ImageFormat, type ImportImageRequest } from '@busbar/proto/gen/busbar/v1/image';
import { CreateVolumeRequest } from '@busbar/proto/gen/busbar/v1/volume';
import { type Cluster, ended, HOST, LAB, rbd } from './cluster.ts';
import { type Row, timed, timeRow } from './measure.ts';

const MIB = 1024 ** 2;

async function* upload(name: string, file: Buffer): AsyncIterable<ImportImageRequest> {
  const spec = { format: ImageFormat.RAW, fileSizeBytes: BigInt(file.length), sha256: '' };
  yield { part: { $case: 'header', value: { name, labels: {}, spec, validateOnly: false, requestId: '' } } };
  for (let at = 0; at < file.length; at += MIB) yield { part: { $case: 'chunk', value: file.subarray(at, at + MIB) } };
}

/** A file streamed through the API into Ceph with checksum, against `rbd import` of the same file on the host itself. */
export async function imageImport(cluster: Cluster, imagePath: string): Promise<Row> {
  const file = readFileSync(imagePath);
  await writeFile(hostRoot(LAB, HOST, 'var/lib/busbar/bench.raw'), file);
  return timeRow({
    what: `image import, ${Math.round(file.length / MIB)} MiB raw, with snapshot`,
    peer: 'rbd import, snap create, snap protect',
    goal: '',
    rounds: 5,
    ours: (round) =>
      timed(async () => {
        for await (const _ of cluster.api.images.importImage(upload(`bench-${round}`, file))) void _;
      }),
    theirs: (round) =>
      timed(async () => {
        await rbd('import', '/var/lib/busbar/bench.raw', `busbar/peer-${round}`);
        await rbd('snap', 'create', `busbar/peer-${round}@base`);
        await rbd('snap', 'protect', `busbar/peer-${round}@base`);
      }),
  });
}

export function clone(cluster: Cluster): Promise<Row> {
  return timeRow({
    what: 'volume as a clone of an image, ready',
    peer: 'rbd clone',
    goal: '',
    rounds: 9,
    ours: (round) =>
      timed(async () => {
        const request = CreateVolumeRequest.fromPartial({ name: `bench-clone-${round}`, spec: { image: 'bench-0' } });
        await ended(cluster.api, (await cluster.api.volumes.createVolume(request)).operation?.id);
      }),
    theirs: (round) => timed(() => rbd('clone', 'busbar/peer-0@base', `busbar/peer-clone-${round}`)),
  });
}
