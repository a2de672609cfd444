// SPDX-License-Identifier: Apache-2.0
/** One connection of the child to one pool, and images opened for the length of one piece of work. */
import { assert } from '@busbar/core/assert';
import koffi from 'koffi';
import type { ConnectArgs } from './calls.ts';
import { check } from './errors.ts';
import type { Cluster, Image, Ioctx, Out } from './handles.ts';
import type { Ceph } from './signatures.ts';

export interface Session {
  readonly ceph: Ceph;
  readonly cluster: Cluster;
  readonly io: Ioctx;
  /**
   * Sends commands to the monitors and nothing else. Ceph's log tells the address and nonce of whoever does, to every client
   * that asks; a VM's key may fence a single instance that it knows; and a fenced client still speaks to monitors.
   */
  readonly commands: Cluster;
}

export async function openSession(ceph: Ceph, args: ConnectArgs): Promise<Session> {
  const [cluster, commands] = await Promise.all([connect(ceph, args), connect(ceph, args)]);
  const io: Out<Ioctx> = [null];
  check(`opening the pool ${args.pool}`, await ceph.createIoctx(cluster, args.pool, io));
  return { ceph, cluster, io: filled(io), commands };
}

async function connect(ceph: Ceph, args: ConnectArgs): Promise<Cluster> {
  const cluster: Out<Cluster> = [null];
  check('rados_create2', ceph.create(cluster, 'ceph', `client.${args.user}`, 0));
  const handle = filled(cluster);
  check(`reading ${args.cephConf}`, ceph.readConf(handle, args.cephConf));
  const settings: Record<string, string> = {
    keyring: args.keyring,
    // Without these three a call waits for ever while the monitors or a PG do not answer.
    client_mount_timeout: String(args.mountTimeoutS),
    rados_mon_op_timeout: String(args.monOpTimeoutS),
    rados_osd_op_timeout: String(args.osdOpTimeoutS),
    // A management client writes no files; its errors come back as codes.
    log_file: '',
    log_to_stderr: 'false',
    err_to_stderr: 'false',
    admin_socket: '',
  };
  for (const [option, value] of Object.entries(settings)) {
    check(`setting ${option}`, ceph.setConf(handle, option, value));
  }
  check(`connecting as client.${args.user}`, await ceph.connect(handle));
  return handle;
}

/** In this order, after the last call has ended: a use after it is a crash. */
export async function closeSession(session: Session): Promise<void> {
  await session.ceph.destroyIoctx(session.io);
  await Promise.all([session.ceph.shutdown(session.cluster), session.ceph.shutdown(session.commands)]);
}

/**
 * `read` registers no watch, so it neither counts as a user of the image nor fails while another has
 * the lock; `write` does both.
 */
export async function withImage<T>(
  session: Session,
  name: string,
  mode: 'read' | 'write',
  work: (image: Image) => Promise<T>,
  snapshot: string | null = null,
): Promise<T> {
  const { ceph, io } = session;
  const out: Out<Image> = [null];
  const open = mode === 'read' ? ceph.openReadOnly : ceph.open;
  check(`opening ${name}`, await open(io, name, out, snapshot));
  const image = filled(out);
  try {
    return await work(image);
  } finally {
    await ceph.close(image);
  }
}

export async function monCommand(session: Session, command: Readonly<Record<string, unknown>>): Promise<string> {
  const { ceph, commands } = session;
  const body: Out<bigint> = [null];
  const bodyLength: Out<number> = [0];
  const status: Out<bigint> = [null];
  const statusLength: Out<number> = [0];
  const text = JSON.stringify({ format: 'json', ...command });
  const code = await ceph.monCommand(commands, [text], 1, '', 0, body, bodyLength, status, statusLength);
  const answer = take(ceph, body, bodyLength);
  const why = take(ceph, status, statusLength);
  check(`monitor command "${String(command.prefix)}"${why === '' ? '' : ` (${why})`}`, code);
  return answer;
}

/** Copies a buffer that Ceph allocated and gives it back. */
function take(ceph: Ceph, buffer: Out<bigint>, length: Out<number>): string {
  const pointer = buffer[0];
  if (!pointer) return '';
  const text = koffi.decode.string(pointer, Number(length[0] ?? 0));
  ceph.freeBuffer(pointer);
  return text;
}

export function filled<T>(out: Out<T>): T {
  const value = out[0];
  assert(value !== null, 'the library succeeded without filling in its result');
  return value;
}
