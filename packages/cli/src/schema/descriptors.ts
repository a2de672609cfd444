// SPDX-License-Identifier: Apache-2.0
/**
 * The API's messages with their comments, from the descriptors that are generated from the .proto files: the same that
 * controllers serve by reflection. Read only by commands that need them, because decoding takes some 10 ms.
 */
import { readFileSync } from 'node:fs';
import { createFileRegistry, type DescFile, type FileRegistry, fromBinary } from '@bufbuild/protobuf';
import { FileDescriptorSetSchema } from '@bufbuild/protobuf/wkt';

export interface Descriptors {
  readonly registry: FileRegistry;
  /** The comment above what is at this path of the file (numbers as in google.protobuf.SourceCodeInfo). */
  comment(file: DescFile, path: readonly number[]): string;
}

/** The build copies files that are named so beside the bundle. */
const FILE = new URL('../../../proto/src/gen/descriptors.binpb', import.meta.url);

let loaded: Descriptors | undefined;

export function descriptors(): Descriptors {
  loaded ??= load();
  return loaded;
}

function load(): Descriptors {
  const set = fromBinary(FileDescriptorSetSchema, readFileSync(FILE));
  const comments = new Map<string, string>();
  for (const { name, sourceCodeInfo } of set.file) {
    for (const { path, leadingComments } of sourceCodeInfo?.location ?? []) {
      if (leadingComments !== undefined) comments.set(`${name}:${path.join('.')}`, oneParagraph(leadingComments));
    }
  }
  return {
    registry: createFileRegistry(set),
    comment: (file, path) => comments.get(`${file.proto.name}:${path.join('.')}`) ?? '',
  };
}

function oneParagraph(text: string): string {
  return text.replaceAll(/\s+/g, ' ').trim();
}
