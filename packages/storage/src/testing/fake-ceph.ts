// SPDX-License-Identifier: Apache-2.0
/** A Ceph pool in memory behind the calls of the native child, for tests of what no real one does on request. */
import { BusbarError } from '@busbar/core/errors';
import { NativeError } from '@busbar/native/errors';
import type { ImageInfo, WatcherInfo } from '../ffi/calls.ts';
import { ERRNO } from '../ffi/errors.ts';
import type { CephApi } from '../rbd/client.ts';

export interface FakeImage {
  info: ImageInfo;
  /** What a guest wrote. */
  data: string;
  watchers: WatcherInfo[];
}

type Errno = keyof typeof ERRNO;
type Call = { readonly method: string; readonly args: Record<string, unknown> };

export function cephError(errno: Errno, kind: BusbarError['kind'] = 'internal'): BusbarError {
  const cause = new NativeError({
    name: 'Error',
    message: errno,
    code: ERRNO[errno],
    kind: null,
    reason: null,
    hint: '',
  });
  return new BusbarError({ kind, reason: 'STORAGE_FAILED', message: errno, cause });
}

export class FakeCeph {
  readonly images = new Map<string, FakeImage>();
  readonly fenced: string[] = [];
  /** As librbd does when the name was taken a moment ago: the rename does nothing and answers success. */
  hidesTakenNames = false;

  names(): string[] {
    return [...this.images.keys()].sort();
  }

  put(name: string, metadata: Record<string, string>, more: Partial<FakeImage> = {}): FakeImage {
    const info = { id: 'f00d', sizeBytes: 4096n, parent: null, snapshots: [], metadata };
    const image = { info, data: '', watchers: [], ...more };
    this.images.set(name, image);
    return image;
  }

  /** One controller's client. `before` runs before a call reaches the pool: to wait, or to throw. */
  client(before: (call: Call) => Promise<void> | void = () => {}): CephApi {
    const call = async (method: string, args: Record<string, unknown> | null) => {
      await before({ method, args: args ?? {} });
      return this.#run(method, args ?? {});
    };
    return { childPid: null, call, callLong: call, close: async () => {} } as unknown as CephApi;
  }

  #run(method: string, args: Record<string, unknown>): unknown {
    const name = String(args.name ?? args.from);
    const image = this.images.get(name);
    const metadata = args.metadata as Record<string, string>;
    switch (method) {
      case 'list':
        return this.names();
      case 'inspect':
        return image?.info ?? null;
      case 'create':
        if (image !== undefined) throw cephError('EEXIST');
        this.put(name, metadata).info = {
          id: 'f00d',
          sizeBytes: args.sizeBytes as bigint,
          parent: null,
          snapshots: [],
          metadata,
        };
        return undefined;
      case 'rename':
        if (image === undefined) throw cephError('ENOENT');
        if (this.images.has(String(args.to)) && this.hidesTakenNames) return undefined;
        if (this.images.has(String(args.to))) throw cephError('EEXIST');
        this.images.delete(name);
        this.images.set(String(args.to), image);
        return undefined;
      case 'remove':
        if (image !== undefined && image.watchers.length > 0) throw cephError('EBUSY', 'precondition');
        this.images.delete(name);
        return undefined;
      case 'setMetadata':
        if (image === undefined) throw cephError('ENOENT');
        image.info = { ...image.info, metadata: { ...image.info.metadata, ...metadata } };
        return undefined;
      case 'watchers':
        if (image === undefined) throw cephError('ENOENT');
        return image.watchers;
      case 'allocated':
        return 0n;
      case 'instanceId':
        return 'client.1';
      case 'monCommand':
        this.fenced.push(String((args.command as Record<string, unknown>).addr));
        return '';
      default:
        throw new Error(`the fake has no ${method}`);
    }
  }
}
