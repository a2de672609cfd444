// SPDX-License-Identifier: Apache-2.0
import {
  ListVolumesRequest,
  Volume,
  VolumePhase,
  VolumeServiceDefinition,
  WatchVolumesResponse,
} from '@busbar/proto/gen/busbar/v1/volume';
import { present } from '../operation/resource.ts';
import { ageColumn, enumColumn, flagColumn, metaColumns, nameColumn, sizeColumn } from '../resource/columns.ts';
import { PAGE_SIZE, type Resource } from '../resource/resource.ts';

export const volumes: Resource<Volume> = {
  singular: 'volume',
  plural: 'volumes',
  message: 'busbar.v1.Volume',
  columns: [
    nameColumn(),
    enumColumn({
      header: 'PHASE',
      generated: VolumePhase,
      prefix: 'VOLUME_PHASE',
      of: (volume) => volume.status?.phase,
    }),
    sizeColumn('SIZE', (volume) => volume.spec?.sizeBytes ?? 0n),
    { header: 'IMAGE', value: (volume) => volume.spec?.image ?? '', shrinks: true },
    { header: 'VM', value: (volume) => volume.status?.vm?.name ?? '' },
    flagColumn('OWNED', (volume) => volume.status?.ownedByVm === true),
    ageColumn((volume) => volume.meta?.createTime),
    ...metaColumns<Volume>(),
  ],
  id: (item) => item.meta?.id ?? '',
  name: (item) => item.meta?.name ?? '',
  toJson: (item) => Volume.toJSON(item),
  async list(api, pageToken) {
    const request = ListVolumesRequest.create({ pageSize: PAGE_SIZE, pageToken });
    const page = await api.call(VolumeServiceDefinition, (client, options) => client.listVolumes(request, options));
    return { items: page.volumes, nextPageToken: page.nextPageToken, revision: page.revision };
  },
  async get(api, name) {
    const response = await api.call(VolumeServiceDefinition, (client, options) =>
      client.getVolume({ volume: name }, options),
    );
    return present(response.volume, `volume ${name}`);
  },
  async watch(api, revision, options) {
    const { client, address, failed } = await api.open(VolumeServiceDefinition);
    return { address, failed, changes: changes(client.watchVolumes({ revision }, options)) };
  },
};

async function* changes(stream: AsyncIterable<WatchVolumesResponse>) {
  for await (const message of stream) {
    const { change, volume, progress } = message;
    yield { change, item: volume, progress: progress?.revision, json: WatchVolumesResponse.toJSON(message) };
  }
}
