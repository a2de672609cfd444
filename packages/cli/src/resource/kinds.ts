// SPDX-License-Identifier: Apache-2.0
/**
 * The kinds of resources, for the commands that take any: wait, explain, completion, support-bundle. A new noun with a
 * Resource gets its line here. Loaded when used, as the nouns are.
 */
import type { Listed, Resource } from './resource.ts';

export interface KindEntry {
  /** Full name of the API's message. */
  readonly message: string;
  load(): Promise<Resource<unknown>>;
}

export const KINDS = {
  host: { message: 'busbar.v1.Host', load: async () => (await import('../host/resource.ts')).hosts },
  vm: { message: 'busbar.v1.Vm', load: async () => (await import('../vm/resource.ts')).vms },
  volume: { message: 'busbar.v1.Volume', load: async () => (await import('../volume/resource.ts')).volumes },
  image: { message: 'busbar.v1.Image', load: async () => (await import('../image/resource.ts')).images },
  network: { message: 'busbar.v1.Network', load: async () => (await import('../network/resource.ts')).networks },
  operation: {
    message: 'busbar.v1.Operation',
    load: async () => (await import('../operation/resource.ts')).operations,
  },
} as const satisfies Record<string, KindEntry>;

/** What can be listed and watched, but not fetched one by one. */
export const TRAILS: Readonly<Record<string, { readonly message: string; load(): Promise<Listed<unknown, never>> }>> = {
  event: {
    message: 'busbar.v1.Event',
    load: async () => (await import('../event/resource.ts')).events as Listed<unknown, never>,
  },
  audit: {
    message: 'busbar.v1.AuditRecord',
    load: async () => (await import('../audit/resource.ts')).auditRecords as Listed<unknown, never>,
  },
};

export type KindName = keyof typeof KINDS;

export function isKind(word: string): word is KindName {
  return Object.hasOwn(KINDS, word);
}

/** Every kind as one type: what takes any of them knows nothing about their items. */
export function kindEntry(kind: KindName): KindEntry {
  return KINDS[kind] as KindEntry;
}
