// SPDX-License-Identifier: Apache-2.0
import { readFileSync } from 'node:fs';
import { createFileRegistry, type DescMessage, fromBinary } from '@bufbuild/protobuf';
import { FileDescriptorSetSchema } from '@bufbuild/protobuf/wkt';
import { DESCRIPTORS } from '@busbar/proto/files';

/** The descriptors of all messages, by full name. */
export type Registry = (typeName: string) => DescMessage;

export function openRegistry(): Registry {
  const registry = createFileRegistry(fromBinary(FileDescriptorSetSchema, readFileSync(DESCRIPTORS)));
  return (typeName) => {
    const found = registry.getMessage(typeName);
    if (found === undefined) throw new Error(`the descriptors do not know ${typeName}`);
    return found;
  };
}
