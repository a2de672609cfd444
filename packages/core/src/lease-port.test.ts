// SPDX-License-Identifier: Apache-2.0
import { expect, it } from 'vitest';
import { leaseAddressOf } from './lease-port.ts';

it.each([
  ['10.77.0.11:7800', '10.77.0.11:7804'],
  ['[fd00::1]:7800', '[fd00::1]:7804'],
  ['host1:17800', 'host1:17804'],
  ['127.0.0.1:0', '127.0.0.1:0'],
])('the heartbeats of a controller at %s go to %s', (address, expected) => {
  expect(leaseAddressOf(address)).toBe(expected);
});
