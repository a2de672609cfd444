// SPDX-License-Identifier: Apache-2.0
import { X509Certificate } from 'node:crypto';
import {
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { openAuthority } from './authority.ts';
import { matches } from './csr.ts';
import { below, pkiFiles, replacePair, writeTree } from './files.ts';
import { foundCluster } from './found.ts';
import { canonicalSerial } from './purpose.ts';
import { openSeal } from './seal.ts';
import { authorityContext, encodeSealedAuthorities, parseSealedAuthorities } from './sealed-authorities.ts';

const now = new Date();
const host1 = { name: 'host1', addresses: ['10.0.0.1'], voter: true };

describe('a new cluster', () => {
  it('has two authorities that know nothing of each other', async () => {
    const cluster = await foundCluster({ name: 'plant', now });
    const host = await cluster.host(host1);
    const by = Object.fromEntries(
      Object.entries(host.certificates).map(([purpose, pair]) => {
        const certificate = new X509Certificate(pair.certificatePem);
        const signers = Object.entries(cluster.authorities).filter(([, ca]) =>
          certificate.verify(new X509Certificate(ca).publicKey),
        );
        expect(matches(pair.certificatePem, pair.keyPem)).toBe(true);
        return [purpose, [signers.map(([name]) => name).join(), certificate.subjectAltName]];
      }),
    );
    const addresses = 'DNS:host1, DNS:localhost, IP Address:10.0.0.1, IP Address:127.0.0.1';
    expect(by).toEqual({
      agent: ['ca', `${addresses}, URI:spiffe://plant/host/host1`],
      nats: ['ca', addresses],
      controller: ['ca', `${addresses}, URI:spiffe://plant/controller/host1`],
      etcd: ['etcd-ca', addresses],
      'etcd-client': ['etcd-ca', `${addresses}, URI:spiffe://plant/controller/host1`],
    });
    const admin = new X509Certificate((await cluster.client('admin', 'admin')).certificatePem);
    expect(admin.subjectAltName).toBe('URI:spiffe://plant/client/admin, URI:spiffe://plant/role/admin');
    expect(admin.keyUsage).toEqual(['1.3.6.1.5.5.7.3.2']);
  });

  it('gives a host no more than it needs', async () => {
    const cluster = await foundCluster({ name: 'plant', now });
    const paths = async (voter: boolean) =>
      pkiFiles(await cluster.host({ ...host1, voter }))
        .map((file) => file.path)
        .join(' ');
    const voter =
      'ca.crt etcd-ca.crt agent.crt agent.key nats.crt nats.key controller.crt controller.key etcd.crt etcd.key etcd-client.crt etcd-client.key etcd-ca.crl seal.key';
    expect(await paths(true)).toBe(voter);
    expect(await paths(false)).toBe('ca.crt agent.crt agent.key nats.crt nats.key');
    const files = pkiFiles(await cluster.host(host1));
    for (const { path, secret } of files) expect(secret, path).toBe(path.endsWith('.key'));
  });

  it('refuses a name that no certificate could carry', async () => {
    for (const name of ['', 'Plant', 'a/b', 'a.b', '-a', 'x'.repeat(64)])
      await expect(foundCluster({ name, now })).rejects.toThrow('DNS label');
  });

  it('hands its authorities over sealed, with a record of every certificate', async () => {
    const cluster = await foundCluster({ name: 'plant', now });
    const host = await cluster.host(host1);
    await cluster.client('admin', 'admin');
    const text = encodeSealedAuthorities(cluster.sealed());
    expect(text).not.toContain('PRIVATE KEY');
    const sealed = parseSealedAuthorities(text, 'x.json');
    expect(sealed).toEqual(cluster.sealed());
    const seal = openSeal(host.sealKey ?? new Uint8Array());
    for (const each of sealed.authorities) {
      const keyPem = Buffer.from(seal.open(each.sealedKey, authorityContext(each.name))).toString();
      expect(matches(each.certificatePem, keyPem)).toBe(true);
      await expect(openAuthority({ certificatePem: each.certificatePem, keyPem })).resolves.toBeDefined();
    }
    expect(sealed.certificates.map(({ purpose, subject, role }) => [purpose, subject, role])).toEqual([
      ['agent', 'host/host1', ''],
      ['nats', 'host/host1', ''],
      ['controller', 'controller/host1', ''],
      ['etcd', 'controller/host1', ''],
      ['etcd-client', 'controller/host1', ''],
      ['client', 'client/admin', 'admin'],
    ]);
    for (const { serial, certificatePem } of sealed.certificates)
      expect(canonicalSerial(new X509Certificate(certificatePem).serialNumber)).toBe(serial);
  });

  it('takes the file of a cluster that still had an authority for libvirt, without it', async () => {
    const sealed = (await foundCluster({ name: 'plant', now })).sealed();
    const file = JSON.parse(encodeSealedAuthorities(sealed));
    file.authorities.push({ ...file.authorities[0], name: 'libvirt-ca' });
    const retired = { purpose: 'libvirt', subject: 'host/host1', role: '', dns: [], ips: [], certificatePem: 'x' };
    file.certificates.push({ ...retired, serial: 'ab', notBefore: now, notAfter: now });
    expect(parseSealedAuthorities(JSON.stringify(file), 'x.json')).toEqual(sealed);
  });

  it('has a file of authorities that is taken whole or not at all', async () => {
    const good = JSON.parse(encodeSealedAuthorities((await foundCluster({ name: 'plant', now })).sealed()));
    const refused = (value: unknown, why: string) =>
      expect(() => parseSealedAuthorities(JSON.stringify(value), 'x.json')).toThrow(why);
    refused({ ...good, version: 2 }, 'x.json: version: expected 1');
    refused({ ...good, authorities: good.authorities.slice(1) }, 'the 2 authorities');
    refused({ ...good, authorities: [good.authorities[0], good.authorities[0]] }, 'each authority once');
    refused({ ...good, createTime: 'yesterday' }, 'createTime: expected a time');
    refused({ ...good, more: 1 }, 'the file: expected');
    refused({ ...good, authorities: [{ ...good.authorities[0], key: 'secret-text' }] }, 'authorities');
    expect(() => parseSealedAuthorities('{', 'x.json')).toThrow('is not JSON');
    fc.assert(
      fc.property(fc.constantFrom(...Object.keys(good)), fc.jsonValue(), (key, value) => {
        try {
          parseSealedAuthorities(JSON.stringify({ ...good, [key]: value }), 'x.json');
        } catch (error) {
          expect(error).toMatchObject({ reason: 'AUTHORITIES_FILE_INVALID' });
        }
      }),
    );
  });
});

describe('files', () => {
  let top: string;
  beforeEach(() => {
    top = mkdtempSync(join(tmpdir(), 'busbar-files-'));
  });
  afterEach(() => rmSync(top, { recursive: true, force: true }));
  const files = below('pki', [
    { path: 'a.key', content: 'secret', secret: true },
    { path: 'a.crt', content: Buffer.from('public'), secret: false },
  ]);
  const mode = (path: string) => (statSync(path).mode & 0o777).toString(8);

  it('appear together, secrets for their owner alone', async () => {
    const to = join(top, 'etc/busbar');
    await writeTree(to, files);
    expect(readFileSync(join(to, 'pki/a.crt'), 'utf8')).toBe('public');
    expect([to, join(to, 'pki'), join(to, 'pki/a.key'), join(to, 'pki/a.crt')].map(mode)).toEqual([
      '700',
      '700',
      '600',
      '644',
    ]);
    expect(readdirSync(join(top, 'etc'))).toEqual(['busbar']);
  });

  it('may fill an empty directory, and overwrite nothing', async () => {
    mkdirSync(join(top, 'empty'));
    await writeTree(join(top, 'empty'), files);
    await expect(writeTree(join(top, 'empty'), files)).rejects.toMatchObject({ reason: 'DIRECTORY_IN_USE' });
    writeFileSync(join(top, 'file'), 'x');
    await expect(writeTree(join(top, 'file'), files)).rejects.toMatchObject({ reason: 'DIRECTORY_IN_USE' });
    expect(readFileSync(join(top, 'file'), 'utf8')).toBe('x');
    expect(readdirSync(top).sort()).toEqual(['empty', 'file']);
  });

  it('leave nothing when they cannot all be written', async () => {
    const twice = [...files, ...files];
    await expect(writeTree(join(top, 'x'), twice)).rejects.toThrow('EEXIST');
    await expect(
      writeTree(join(top, 'y'), [...files, { path: 'pki/a.crt/b', content: '', secret: false }]),
    ).rejects.toThrow();
    expect(readdirSync(top)).toEqual([]);
  });

  it('of one that was killed are removed by the next, and those of one that is at work are not', async () => {
    const left = (name: string, ageMs: number) => {
      const path = join(top, name);
      mkdirSync(path);
      writeFileSync(join(path, 'a.key'), 'secret');
      utimesSync(path, new Date(), new Date(Date.now() - ageMs));
    };
    left('x.0123456789ab.tmp', 3_600_000);
    left('x.ab0123456789.tmp', 1_000);
    left('x.mine.tmp', 3_600_000);
    left('y.0123456789ab.tmp', 3_600_000);
    await writeTree(join(top, 'x'), files);
    expect(readdirSync(top).sort()).toEqual(['x', 'x.ab0123456789.tmp', 'x.mine.tmp', 'y.0123456789ab.tmp']);
  });

  it('of two that write at once, one wins', async () => {
    const to = join(top, 'x');
    const results = await Promise.allSettled([1, 2, 3, 4].map(() => writeTree(to, files)));
    expect(results.filter((each) => each.status === 'fulfilled')).toHaveLength(1);
    for (const each of results)
      if (each.status === 'rejected') expect(each.reason).toMatchObject({ reason: 'DIRECTORY_IN_USE' });
    expect(readdirSync(top)).toEqual(['x']);
  });

  it('of a pair are replaced together, with owner and mode of the former ones', async () => {
    const pair = { certificate: join(top, 'a.crt'), key: join(top, 'a.key') };
    writeFileSync(pair.certificate, 'old', { mode: 0o644 });
    writeFileSync(pair.key, 'old', { mode: 0o640 });
    writeFileSync(`${pair.key}.next`, 'left by a crash', { mode: 0o644 });
    await replacePair(pair, { certificatePem: 'new certificate', keyPem: 'new key' });
    expect([readFileSync(pair.certificate, 'utf8'), mode(pair.certificate)]).toEqual(['new certificate', '644']);
    expect([readFileSync(pair.key, 'utf8'), mode(pair.key)]).toEqual(['new key', '640']);
    rmSync(pair.key);
    await expect(replacePair(pair, { certificatePem: 'x', keyPem: 'y' })).rejects.toThrow('ENOENT');
    expect(readFileSync(pair.certificate, 'utf8')).toBe('new certificate');
    expect(readdirSync(top)).toEqual(['a.crt']);
  });
});
