// SPDX-License-Identifier: Apache-2.0
import type { Seated } from '../fit/seating.ts';
import type { Vm } from '../model.ts';
import type { Shape } from '../shape/shape.ts';

/** An HA VM, as a failure sees it. */
export interface Member {
  readonly vm: Vm;
  readonly shape: Shape;
  readonly host: number;
}

/** Where a VM goes when what its host is part of is lost. */
export interface Refuge extends Seated {
  readonly member: Member;
  readonly host: number;
}
