// SPDX-License-Identifier: Apache-2.0
import { CertificateRecord } from '@busbar/proto/gen/busbar/store/v1/pki';
import { expect, it } from 'vitest';
import { putRecord } from '../records/kinds.ts';
import { Rig } from '../testing/rig.ts';
import { tellCertificates } from './certificates.ts';
import type { CertificateNews } from './protocol.ts';

it('tells each certificate that was revoked or replaced, once, those of before the start too', async () => {
  const rig = new Rig();
  await rig.start();
  const put = (serial: string, times: object) =>
    rig.run(
      rig.api.store.txn({
        compare: [],
        writes: [
          putRecord('certificate', serial, CertificateRecord.fromPartial({ certificate: { serial, ...times } })),
        ],
      }),
    );
  const at = new Date(1_900_000_000_000);
  await put('a1', { revokeTime: at });
  await put('b2', {});
  await rig.run(rig.view.fresh());
  const news: CertificateNews[] = [];
  using _ = tellCertificates(rig.view, (each) => news.push(each));
  expect(news).toEqual([{ revoked: ['a1'], replaced: [] }]);
  await put('b2', { replaceTime: at });
  await put('c3', {});
  await rig.run(rig.view.fresh());
  await put('b2', { replaceTime: at, revokeTime: at });
  await rig.run(rig.view.fresh());
  await rig.clock.advance(1_000);
  expect(news.slice(1)).toEqual([
    { revoked: [], replaced: [{ serial: 'b2', at }] },
    { revoked: ['b2'], replaced: [] },
  ]);
  rig.stop();
});
