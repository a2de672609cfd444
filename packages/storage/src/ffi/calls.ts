// SPDX-License-Identifier: Apache-2.0
/**
 * The methods of the native child. Each opens what it needs, does one thing and closes it again, so
 * that a child may be replaced between any two calls. Names are of images in the configured pool.
 */
export interface CephCalls {
  connect(args: ConnectArgs): Promise<void>;
  /** A command to the monitors, as JSON; throws with the errno that they answered. */
  monCommand(args: { readonly command: Readonly<Record<string, unknown>> }): Promise<string>;
  /** Our own client id, as in `client.4123`: tells our watch from others. */
  instanceId(args: null): string;

  list(args: null): Promise<readonly string[]>;
  inspect(args: { readonly name: string }): Promise<ImageInfo | null>;
  create(args: { readonly name: string; readonly sizeBytes: bigint; readonly metadata: Metadata }): Promise<void>;
  clone(args: {
    readonly parent: string;
    readonly snapshot: string;
    readonly name: string;
    readonly sizeBytes: bigint;
    readonly metadata: Metadata;
  }): Promise<void>;
  resize(args: { readonly name: string; readonly sizeBytes: bigint }): Promise<void>;
  remove(args: { readonly name: string }): Promise<void>;
  /** Also while somebody watches it. */
  rename(args: { readonly from: string; readonly to: string }): Promise<void>;
  setMetadata(args: { readonly name: string; readonly metadata: Metadata }): Promise<void>;
  /** Creates the snapshot and protects it; one that is there already is only protected. */
  protectSnapshot(args: { readonly name: string; readonly snapshot: string }): Promise<void>;
  /** Unprotects and removes it; EBUSY while clones exist. Absent is success. */
  dropSnapshot(args: { readonly name: string; readonly snapshot: string }): Promise<void>;
  /** Clones of a snapshot as `pool/image`. */
  children(args: { readonly name: string; readonly snapshot: string }): Promise<readonly string[]>;
  watchers(args: { readonly name: string }): Promise<readonly WatcherInfo[]>;
  lockers(args: { readonly name: string }): Promise<readonly LockerInfo[]>;
  /** Bytes of the objects that exist, by the object map; a clone's own objects only. */
  allocated(args: { readonly name: string }): Promise<bigint>;
}

export interface ConnectArgs {
  readonly cephConf: string;
  readonly user: string;
  /** Path of the file; the key itself is read by librados and passes nowhere else. */
  readonly keyring: string;
  readonly pool: string;
  readonly mountTimeoutS: number;
  readonly monOpTimeoutS: number;
  readonly osdOpTimeoutS: number;
}

export type Metadata = Readonly<Record<string, string>>;

export interface ImageInfo {
  /** Ceph's own id of the image, which is in the names of all its objects; kept by a rename. */
  readonly id: string;
  readonly sizeBytes: bigint;
  readonly parent: { readonly pool: string; readonly image: string; readonly snapshot: string } | null;
  readonly snapshots: readonly { readonly name: string; readonly isProtected: boolean }[];
  readonly metadata: Metadata;
}

export interface WatcherInfo {
  /** As `IP:port/nonce`. */
  readonly address: string;
  /** As `client.4123`. */
  readonly client: string;
}

export interface LockerInfo {
  readonly client: string;
  readonly cookie: string;
  readonly address: string;
}
