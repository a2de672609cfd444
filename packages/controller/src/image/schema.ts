// SPDX-License-Identifier: Apache-2.0
import { ImageFormat } from '@busbar/proto/gen/busbar/v1/image';
import { z } from 'zod';
import { labels, name, requestId } from '../api/validation.ts';
import { word } from '../bounds/schema.ts';
import { VOLUME_MAX_BYTES } from '../vm/spec.ts';

const SHA256_RULE = '64 lower-case hexadecimal digits, or nothing';

export const headerSchema = z.object({
  name,
  labels,
  spec: z.object(
    {
      format: z.enum([ImageFormat.RAW, ImageFormat.QCOW2], 'IMAGE_FORMAT_RAW or IMAGE_FORMAT_QCOW2'),
      fileSizeBytes: z.bigint().min(512n, '512 bytes to 64 TiB').max(VOLUME_MAX_BYTES, '512 bytes to 64 TiB'),
      sha256: word(64, /^$|^[0-9a-f]{64}$/, SHA256_RULE),
    },
    'format and length of the file',
  ),
  validateOnly: z.boolean(),
  requestId,
});
