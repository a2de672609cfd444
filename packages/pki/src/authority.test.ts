// SPDX-License-Identifier: Apache-2.0
import { X509Certificate } from 'node:crypto';
import { once } from 'node:events';
import type { AddressInfo } from 'node:net';
import { connect, createServer, type TLSSocket } from 'node:tls';
import { describe, expect, it } from 'vitest';
import { type CertificateRequest, createAuthority, issue, openAuthority, PkiError } from './authority.ts';
import { identityUri } from './identity.ts';

const now = new Date();
const leaf: CertificateRequest = {
  commonName: 'host1, the first',
  now,
  validDays: 30,
  dns: ['host1', 'localhost'],
  ips: ['10.77.0.11', '127.0.0.1'],
  uris: [identityUri({ kind: 'host', cluster: 'lab', host: 'host1' })],
  usages: ['serverAuth', 'clientAuth'],
};

async function authority(commonName = 'test CA') {
  const stored = await createAuthority({ commonName, now, validDays: 60 });
  return { stored, opened: await openAuthority(stored) };
}

describe('authority', () => {
  it('issues a certificate that other implementations accept, with all names and usages', async () => {
    const { stored, opened } = await authority();
    const issued = await issue(opened, leaf);
    const ca = new X509Certificate(stored.certificatePem);
    const certificate = new X509Certificate(issued.certificatePem);
    expect(certificate.verify(ca.publicKey)).toBe(true);
    expect(certificate.checkIssued(ca)).toBe(true);
    expect(ca.ca).toBe(true);
    expect(certificate.ca).toBe(false);
    expect(certificate.subjectAltName).toBe(
      'DNS:host1, DNS:localhost, IP Address:10.77.0.11, IP Address:127.0.0.1, URI:spiffe://lab/host/host1',
    );
    expect(certificate.keyUsage).toEqual(['1.3.6.1.5.5.7.3.1', '1.3.6.1.5.5.7.3.2']);
    expect(certificate.checkIP('10.77.0.11')).toBe('10.77.0.11');
    expect(certificate.subject).toBe('CN=host1\\, the first');
    expect(certificate.serialNumber).toHaveLength(32);
    expect(certificate.validFromDate.getTime()).toBeLessThan(now.getTime());
  });

  it('carries a mutual TLS connection, and refuses a client of another authority', async () => {
    const ours = await authority();
    const theirs = await authority('another CA');
    const server = await issue(ours.opened, leaf);
    const listener = createServer({
      ca: ours.stored.certificatePem,
      cert: server.certificatePem,
      key: server.keyPem,
      requestCert: true,
      rejectUnauthorized: true,
    });
    listener.on('tlsClientError', () => {});
    listener.on('secureConnection', (socket: TLSSocket) =>
      socket.end(socket.getPeerX509Certificate()?.subjectAltName ?? 'nobody'),
    );
    listener.listen(0, '127.0.0.1');
    await once(listener, 'listening');
    const port = (listener.address() as AddressInfo).port;
    const talk = async (client: { certificatePem: string; keyPem: string }): Promise<string> => {
      const socket = connect({
        port,
        host: '127.0.0.1',
        ca: ours.stored.certificatePem,
        cert: client.certificatePem,
        key: client.keyPem,
      });
      let text = '';
      for await (const chunk of socket) text += String(chunk);
      return text;
    };
    try {
      const uri = identityUri({ kind: 'client', cluster: 'lab', client: 'admin' });
      const request: CertificateRequest = {
        commonName: 'admin',
        now,
        validDays: 1,
        uris: [uri],
        usages: ['clientAuth'],
      };
      await expect(talk(await issue(ours.opened, request))).resolves.toBe(`URI:${uri}`);
      // In TLS 1.3 the refusal reaches the client after its own handshake ended: as an alert or as a plain close.
      await expect(talk(await issue(theirs.opened, request)).catch(() => '')).resolves.toBe('');
    } finally {
      listener.close();
    }
  });

  it('refuses what could never work', async () => {
    const { opened } = await authority();
    await expect(issue(opened, { ...leaf, dns: [], ips: [], uris: [] })).rejects.toThrow(PkiError);
    await expect(issue(opened, { ...leaf, usages: [] })).rejects.toThrow(PkiError);
    await expect(issue(opened, { ...leaf, validDays: 0 })).rejects.toThrow(PkiError);
    await expect(issue(opened, { ...leaf, validDays: 61 })).rejects.toThrow(/outlive/);
    await expect(openAuthority(await issue(opened, leaf))).rejects.toThrow(/not an authority/);
  });
});
