// SPDX-License-Identifier: Apache-2.0
import {
  Image,
  ImageFormat,
  ImagePhase,
  ImageServiceDefinition,
  ListImagesRequest,
  WatchImagesResponse,
} from '@busbar/proto/gen/busbar/v1/image';
import { present } from '../operation/resource.ts';
import { ageColumn, enumColumn, metaColumns, nameColumn, sizeColumn } from '../resource/columns.ts';
import { PAGE_SIZE, type Resource } from '../resource/resource.ts';

export const images: Resource<Image> = {
  singular: 'image',
  plural: 'images',
  message: 'busbar.v1.Image',
  columns: [
    nameColumn(),
    enumColumn({ header: 'PHASE', generated: ImagePhase, prefix: 'IMAGE_PHASE', of: (image) => image.status?.phase }),
    enumColumn({
      header: 'FORMAT',
      generated: ImageFormat,
      prefix: 'IMAGE_FORMAT',
      of: (image) => image.spec?.format,
    }),
    sizeColumn('DISK', (image) => image.status?.virtualSizeBytes ?? 0n),
    sizeColumn('ALLOCATED', (image) => image.status?.allocatedBytes ?? 0n),
    { header: 'SHA256', value: (image) => (image.status?.sha256 || image.spec?.sha256 || '').slice(0, 12) },
    ageColumn((image) => image.meta?.createTime),
    ...metaColumns<Image>(),
  ],
  id: (item) => item.meta?.id ?? '',
  name: (item) => item.meta?.name ?? '',
  toJson: (item) => Image.toJSON(item),
  async list(api, pageToken) {
    const request = ListImagesRequest.create({ pageSize: PAGE_SIZE, pageToken });
    const page = await api.call(ImageServiceDefinition, (client, options) => client.listImages(request, options));
    return { items: page.images, nextPageToken: page.nextPageToken, revision: page.revision };
  },
  async get(api, name) {
    const response = await api.call(ImageServiceDefinition, (client, options) =>
      client.getImage({ image: name }, options),
    );
    return present(response.image, `image ${name}`);
  },
  async watch(api, revision, options) {
    const { client, address, failed } = await api.open(ImageServiceDefinition);
    return { address, failed, changes: changes(client.watchImages({ revision }, options)) };
  },
};

async function* changes(stream: AsyncIterable<WatchImagesResponse>) {
  for await (const message of stream) {
    const { change, image, progress } = message;
    yield { change, item: image, progress: progress?.revision, json: WatchImagesResponse.toJSON(message) };
  }
}
