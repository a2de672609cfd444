// SPDX-License-Identifier: Apache-2.0
import { describe, expect, it } from 'vitest';
import { aclOfMode, decodeAcl, encodeAcl, withUsers } from './acl.ts';

const ours = (uid: number) => uid >= 1000 && uid < 2000;
const users = (acl: ReturnType<typeof withUsers>) => acl.filter(({ tag }) => tag === 2).map(({ id }) => id);
/** What `setfacl -m u:7:rw` made of a file with mode 0660, as getxattr answers it. */
const OF_ANOTHER = Buffer.from(
  ['02000000', '01000600ffffffff', '0200060007000000', '04000600ffffffff', '10000600ffffffff', '20000000ffffffff'].join(
    '',
  ),
  'hex',
);

describe('the access list of a device', () => {
  it('is read and written as the kernel keeps it', () => {
    expect(encodeAcl(decodeAcl(OF_ANOTHER))).toEqual(OF_ANOTHER);
    expect(encodeAcl(withUsers(aclOfMode(0o660), [7], ours))).toEqual(OF_ANOTHER);
    expect(() => decodeAcl(Buffer.alloc(3))).toThrow(/version/);
    expect(() => decodeAcl(Buffer.from('03000000', 'hex'))).toThrow(/version/);
  });

  it('names the users that live and no former ones, each once, and leaves alone what others have set', () => {
    const acl = withUsers(decodeAcl(OF_ANOTHER), [1001, 1000], ours);
    expect(users(decodeAcl(encodeAcl(acl)))).toEqual([7, 1000, 1001]);
    expect(users(decodeAcl(encodeAcl(withUsers(acl, [1001, 1002], ours))))).toEqual([7, 1001, 1002]);
  });

  it('is that of the mode again when nobody is named any more', () => {
    const named = withUsers(aclOfMode(0o640), [1000], ours);
    expect(encodeAcl(withUsers(named, [], ours))).toEqual(encodeAcl(aclOfMode(0o640)));
  });
});
