// SPDX-License-Identifier: Apache-2.0
// A hostile caller in a process of its own, so that what it holds is not counted as the server's. Reads one order as JSON
// from its arguments, says one line of JSON about what it sees, and ends when its standard input does.
import { constants, connect as http2, type IncomingHttpHeaders } from 'node:http2';
import { connect as tcp } from 'node:net';
import { connect as tls } from 'node:tls';

interface Order {
  readonly kind: 'idle' | 'half-headers' | 'half-bodies' | 'half-streams';
  readonly port: number;
  readonly count: number;
  readonly localAddress: string;
  readonly ca: string;
  readonly cert: string;
  readonly key: string;
}

const order = JSON.parse(process.argv[2] ?? '') as Order;
const to = { host: '127.0.0.1', port: order.port, localAddress: order.localAddress };
const trust = { ca: order.ca, cert: order.cert, key: order.key };
const say = (what: object) => void process.stdout.write(`${JSON.stringify(what)}\n`);
process.stdin.on('end', () => process.exit(0)).resume();

switch (order.kind) {
  case 'idle': {
    let opened = 0;
    let closed = 0;
    // In waves: the kernel's queue of a listener is short.
    for (let i = 0; i < order.count; i += 200) {
      await Promise.all(
        Array.from(
          { length: Math.min(200, order.count - i) },
          () =>
            new Promise<void>((done) => {
              const socket = tcp(to);
              socket.once('connect', done).once('error', (error: NodeJS.ErrnoException) => {
                // Not even a socket: the limit of open files. Everything else has reached the server.
                if (error.code === 'EMFILE') opened--;
                done();
              });
              socket.once('close', () => closed++).resume();
              opened++;
            }),
        ),
      );
    }
    await new Promise((done) => setTimeout(done, 500));
    say({ opened, held: opened - closed });
    break;
  }
  case 'half-headers':
  case 'half-bodies': {
    const text =
      order.kind === 'half-headers'
        ? 'POST /busbar.v1.VmService/ListVms HTTP/1.1\r\nhost: localhost\r\nx-slow: '
        : 'POST /busbar.v1.VmService/CreateVm HTTP/1.1\r\nhost: localhost\r\ncontent-length: 1100000\r\n\r\n';
    const answers: Record<string, number> = {};
    let opened = 0;
    for (let i = 0; i < order.count; i++) {
      const socket = tls({ ...to, ...trust });
      let answer = '';
      await new Promise((done) => socket.once('secureConnect', done).once('error', done));
      opened++;
      socket.write(text);
      if (order.kind === 'half-bodies') socket.write(Buffer.alloc(900_000, 0x20));
      socket.on('data', (chunk: Buffer) => (answer += chunk.toString())).on('error', () => {});
      socket.once('close', () => {
        const status = answer.slice(9, 12);
        answers[status] = (answers[status] ?? 0) + 1;
      });
    }
    setInterval(() => say({ opened, answers }), 500);
    break;
  }
  case 'half-streams': {
    const session = http2(`https://127.0.0.1:${order.port}`, {
      ...trust,
      // With Node's 10 MB the client would reset its streams itself when it has so much unsent.
      maxSessionMemory: 100_000,
      createConnection: () => tls({ ...to, ...trust, servername: 'localhost', ALPNProtocols: ['h2'] }),
    });
    session.on('error', () => {});
    await new Promise((done) => session.once('remoteSettings', done));
    // As much is announced as the call takes, most of it is sent, and then nothing.
    const half = Buffer.alloc(450_000);
    half.writeUInt32BE(600_000, 1);
    const statuses: Record<string, number> = {};
    let sent = 0;
    for (let i = 0; i < order.count; i++) {
      const stream = session.request({
        [constants.HTTP2_HEADER_METHOD]: 'POST',
        [constants.HTTP2_HEADER_PATH]: '/busbar.v1.VmService/CreateVm',
        [constants.HTTP2_HEADER_CONTENT_TYPE]: 'application/grpc',
        te: 'trailers',
      });
      const end = (headers: IncomingHttpHeaders) => {
        const status = headers['grpc-status'];
        if (typeof status === 'string') statuses[status] = (statuses[status] ?? 0) + 1;
      };
      stream
        .on('response', end)
        .on('trailers', end)
        .on('error', () => {})
        .resume();
      stream.write(half, () => sent++);
    }
    say({ opened: order.count });
    setInterval(() => say({ sent, statuses }), 500);
    break;
  }
}
