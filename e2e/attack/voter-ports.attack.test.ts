// SPDX-License-Identifier: Apache-2.0
import { readFileSync } from 'node:fs';
import { hostRoot } from '@busbar/deploy/lab/paths';
import { describe, expect, it } from 'vitest';
import { callGrpc, dial, filesBelow, keyPairsBelow, say } from './knock.ts';
import { addressOf, EVERY_HOST, inside, type KeyPair, LAB, VOTELESS, VOTERS } from './lab.ts';

/**
 * Goal: root on a host without a vote is root on that host and nowhere else.
 * Method: every listener of every voter has to be in the table below, with what the keys of the host without a vote may do
 * there. What the table says is then tried with every pair of keys that lies on that host, and with none.
 */
interface Knock {
  readonly address: string;
  readonly port: number;
  readonly pair: KeyPair | undefined;
}
interface Listener {
  readonly program: RegExp;
  readonly ports: readonly [number, number];
  /** What a host without a vote may do there. */
  readonly may: string;
  /** Whether it was refused what it may not do. Absent: another test asks, which `may` names. */
  readonly refuses?: (knock: Knock) => Promise<boolean>;
}

const GET = (path: string) => `GET ${path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n`;
/** UNAUTHENTICATED or PERMISSION_DENIED. */
const DENIED = ['16', '7', 'closed'];
const API = [
  '/busbar.v1.VmService/ListVms',
  '/busbar.v1.HostService/UpdateHost',
  '/busbar.peer.v1.PeerService/Exchange',
];
const NODE = /^(MainThread|node)$/;

const LISTENERS: readonly Listener[] = [
  {
    program: /^etcd$/,
    ports: [2379, 2380],
    may: 'nothing: etcd has an authority of its own',
    refuses: async (knock) =>
      (await say(knock, knock.pair, GET('/version'))) === '' && (await say(knock, knock.pair, GET('/members'))) === '',
  },
  {
    program: NODE,
    ports: [7800, 7800],
    may: 'keep a session as itself, renew its own certificates',
    refuses: async ({ address, port, pair }) => {
      const all = await Promise.all(API.map((path) => callGrpc(address, port, pair, path)));
      return all.every((status) => DENIED.includes(status) || status === '12');
    },
  },
  {
    program: NODE,
    ports: [7801, 7801],
    may: 'join with a token, renew its own certificates',
    refuses: async (knock) => {
      const body = '{}';
      const text = `POST ${API[0]} HTTP/1.1\r\nHost: ${knock.address}\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: ${body.length}\r\n\r\n${body}`;
      return /^HTTP\/1\.1 40[13] /.test(await say(knock, knock.pair, text));
    },
  },
  {
    program: NODE,
    ports: [7802, 7803],
    may: 'ask whether it is alive and ready; no figures',
    refuses: async (knock) => /^HTTP\/1\.1 40[13] /.test(await say(knock, knock.pair, GET('/metrics'))),
  },
  {
    program: NODE,
    ports: [7804, 7804],
    may: 'have its own heartbeats answered; what else is said ends the connection',
    refuses: async (knock) => (await say(knock, knock.pair, GET('/'))) === '',
  },
  {
    program: /^nats-server$/,
    ports: [4222, 4222],
    may: 'nothing: its certificates are no subscriber and no controller',
    refuses: async (knock) => !(await say({ ...knock, greets: true }, knock.pair, NATS_HELLO)).includes('PONG'),
  },
  // Routes take every host's server: events can be forged, and nobody believes them (ADR 0027).
  { program: /^nats-server$/, ports: [6222, 6222], may: 'pass events on' },
  { program: /^ceph-mon$/, ports: [3300, 3300], may: 'what the caps of its keys say: see "Ceph" below' },
  { program: /^ceph-mon$/, ports: [6789, 6789], may: 'the same' },
  { program: /^ceph-(mgr|osd)$/, ports: [6800, 7300], may: 'the same' },
];
const NATS_HELLO = 'CONNECT {"verbose":false,"pedantic":false}\r\nSUB > 1\r\nPING\r\n';

interface Found {
  readonly address: string;
  readonly port: number;
  readonly program: string;
}

async function listenersOf(host: string, kind: '-t' | '-u'): Promise<Found[]> {
  const { stdout } = await inside(host, 'ss', '-Hlnp', kind);
  return stdout
    .split('\n')
    .filter((line) => line.trim() !== '')
    .map((line) => {
      const local = line.trim().split(/\s+/)[3] ?? '';
      const [, address = '', port = ''] = /^(.*):(\d+)$/.exec(local) ?? [];
      return { address, port: Number(port), program: /users:\(\("([^"]+)"/.exec(line)?.[1] ?? line };
    });
}

const rowOf = ({ port, program }: Found): Listener | undefined =>
  LISTENERS.find((row) => row.program.test(program) && port >= row.ports[0] && port <= row.ports[1]);

/** With the keys of the host without a vote, each under its path, and without any. */
function hands(): ReadonlyMap<string, KeyPair | undefined> {
  const pairs = new Map<string, KeyPair | undefined>([['no key', undefined]]);
  for (const directory of ['/etc', '/var/lib/busbar', '/var/lib/libvirt'])
    for (const [path, pair] of keyPairsBelow(hostRoot(LAB, VOTELESS, directory))) pairs.set(path, pair);
  return pairs;
}

describe('with every key of a host without a vote', () => {
  it.each(EVERY_HOST)('%s: no listener is unknown, and libvirtd is none of them', async (host) => {
    const found = await listenersOf(host, '-t');
    expect(found.length).toBeGreaterThan(2);
    expect(found.filter((each) => rowOf(each) === undefined)).toEqual([]);
    expect(await listenersOf(host, '-u')).toEqual([]);
    const address = await addressOf(host);
    for (const port of [16_514, 16_509]) expect(await dial(address, port)).toBe('ECONNREFUSED');
  });

  it.each(VOTERS)('%s: its ports give nothing that the table does not say', async (host) => {
    const pairs = hands();
    expect([...pairs.keys()].filter((path) => /agent\.crt|nats\.crt/.test(path))).toHaveLength(2);
    const open: string[] = [];
    const found = (await listenersOf(host, '-t')).filter(({ address }) => address !== '127.0.0.1');
    for (const { address, port, program } of found) {
      const row = rowOf({ address, port, program });
      for (const [name, pair] of pairs)
        if ((await row?.refuses?.({ address, port, pair })) === false) open.push(`${program}:${port} with ${name}`);
    }
    expect(open).toEqual([]);
  });

  it('libvirtd answers nobody over TLS or TCP', async () => {
    for (const host of EVERY_HOST.filter((each) => each !== VOTELESS)) {
      for (const uri of [
        `qemu+tls://${host}/system?pkipath=/etc/busbar/pki&no_verify=1`,
        `qemu+tls://${host}/system?pkipath=/etc/libvirt/pki&no_verify=1`,
        `qemu+tcp://${host}/system`,
      ]) {
        const { code, stderr } = await inside(VOTELESS, 'virsh', '-c', uri, 'list');
        expect([code, stderr], uri).toEqual([1, expect.stringMatching(/Connection refused|Cannot read .*certificate/)]);
      }
    }
  });

  it('Ceph gives nobody’s key but the asker’s own', async () => {
    const keyringsBelow = (path: string) =>
      filesBelow(hostRoot(LAB, VOTELESS, path)).filter((file) => /^\s*key = /m.test(readFileSync(file, 'latin1')));
    // Controllers make a key for each start of a VM: a host holds none of its own to the pool. What is left are its OSDs'.
    expect(keyringsBelow('/etc/busbar')).toEqual([]);
    const keyrings = ['/etc/ceph', '/var/lib/ceph'].flatMap(keyringsBelow);
    expect(keyrings.length).toBeGreaterThan(0);
    for (const path of keyrings) {
      const inHost = path.slice(hostRoot(LAB, VOTELESS).length);
      const keyring = inHost.startsWith('/') ? inHost : `/${inHost}`;
      const name = /^\[([^\]]+)\]/m.exec((await inside(VOTELESS, 'cat', keyring)).stdout)?.[1] ?? '';
      const ask = (...words: string[]) =>
        inside(VOTELESS, 'ceph', '--connect-timeout', '5', '-n', name, '--keyring', keyring, ...words);
      for (const words of [
        ['auth', 'get', 'client.admin'],
        ['auth', 'get-or-create', 'client.evil', 'mon', 'allow *'],
        ['config-key', 'dump'],
      ]) {
        const { code, stderr } = await ask(...words);
        expect([code, stderr], `${name}: ${words.join(' ')}`).toEqual([13, expect.stringContaining('EACCES')]);
      }
    }
  });
});

describe('a user of the host who is nobody', () => {
  const CONNECT = `
import socket, sys
for path in sys.argv[1:]:
    s = socket.socket(socket.AF_UNIX)
    try:
        s.connect('\\0' + path[1:] if path.startswith('@') else path)
        print(path)
    except PermissionError:
        pass
`;
  it.each(EVERY_HOST)('%s: reaches no unix socket of a daemon', async (host) => {
    const { stdout } = await inside(host, 'ss', '-Hlx');
    const paths = stdout
      .split('\n')
      .map((line) => line.trim().split(/\s+/))
      .filter(([netid]) => netid === 'u_str' || netid === 'u_seq')
      .map((words) => words[4] ?? '');
    expect(paths.length).toBeGreaterThan(0);
    const nobody = ['setpriv', '--reuid=65534', '--regid=65534', '--clear-groups'];
    const reached = await inside(host, ...nobody, '/usr/bin/python3', '-c', CONNECT, ...paths);
    expect([reached.code, reached.stdout, reached.stderr]).toEqual([0, '', '']);
    // The same with the rights to do it: the script would have told.
    expect((await inside(host, '/usr/bin/python3', '-c', CONNECT, ...paths)).stdout).not.toBe('');
  });
});
