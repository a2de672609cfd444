// SPDX-License-Identifier: Apache-2.0
import {
  Image,
  ImageServiceDefinition,
  ListImagesRequest,
  WatchImagesResponse,
} from '@busbar/proto/gen/busbar/v1/image';
import { present } from '../operation/resource.ts';
import { formatAge, formatBytes, formatEnum } from '../output/format.ts';
import { PAGE_SIZE, type Resource } from '../resource/resource.ts';

export const images: Resource<Image> = {
  singular: 'image',
  plural: 'images',
  columns: [
    { header: 'NAME', value: (image) => image.meta?.name ?? '' },
    { header: 'PHASE', value: (image) => formatEnum(image.status?.phase, 'IMAGE_PHASE') },
    { header: 'FORMAT', value: (image) => formatEnum(image.spec?.format, 'IMAGE_FORMAT') },
    { header: 'DISK', value: (image) => formatBytes(image.status?.virtualSizeBytes ?? 0n), right: true },
    { header: 'ALLOCATED', value: (image) => formatBytes(image.status?.allocatedBytes ?? 0n), right: true },
    { header: 'SHA256', value: (image) => (image.status?.sha256 || image.spec?.sha256 || '').slice(0, 12) },
    { header: 'AGE', value: (image, now) => formatAge(image.meta?.createTime, now), right: true },
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
