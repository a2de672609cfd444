// SPDX-License-Identifier: Apache-2.0
import { type Allowance, Allowances } from './allowances.ts';
import type { Clock } from './clock/clock.ts';
import type { Logger } from './log.ts';

/**
 * Lines that somebody elsewhere can cause as often as they like: refused calls, sessions, streams. Each source has an
 * allowance, and once a minute one line for each tells how many more there were. Otherwise a stranger fills the disk, or
 * makes journald drop what others say (its own limit is per service, not per culprit).
 */
export interface BoundedLog extends Disposable {
  write(level: keyof Logger, source: LineSource, fields: object, message: string): void;
}

export interface LineSource {
  /** What kind of line: kinds have allowances apart, so that refusals cannot hide what succeeded. */
  readonly kind: string;
  /** Whose allowance it is: a caller, an address, a VM. */
  readonly name: string;
  /** More than FEW for what is worth having line by line. */
  readonly allowance?: Allowance;
  /** Fields of the line that tells the count. */
  readonly fields: object;
}

/** What a person does wrong in a sitting, then one a minute: the audit trail's, so that both tell the same. */
export const FEW: Allowance = { burst: 20, refillMs: 60_000 };
/** For lines that somebody with rights causes by working: an hour's automation at once, then one a second. */
export const MANY: Allowance = { burst: 600, refillMs: 1_000 };
const COUNT_EVERY_MS = 60_000;
/** Of each kind. Beyond these they share: with 20 lines each, somebody with a whole network of addresses writes 1,300. */
const SOURCES_MAX = 64;

export function boundedLog({ logger, clock }: { readonly logger: Logger; readonly clock: Clock }): BoundedLog {
  const kinds = new Map<string, Allowances<Pick<LineSource, 'kind' | 'fields'>>>();
  let timer: Disposable | null = null;

  function allowancesOf({ kind, allowance = FEW }: LineSource) {
    const known = kinds.get(kind);
    if (known !== undefined) return known;
    const others = { kind, fields: { source: 'others' } };
    const made = new Allowances({ ...allowance, sourcesMax: SOURCES_MAX, others });
    kinds.set(kind, made);
    return made;
  }

  function countOut(): void {
    timer = null;
    for (const allowances of kinds.values()) {
      allowances.countOut(clock.nowMs(), ({ kind, fields }, further) => {
        logger.warn({ ...fields, kind, further }, 'further lines of this kind are left out');
        return true;
      });
    }
    // Also to forget who has gone away.
    if ([...kinds.values()].some((allowances) => allowances.size > 0)) wait();
  }
  const wait = () => {
    timer ??= clock.timer(COUNT_EVERY_MS, countOut);
  };

  return {
    write(level, source, fields, message) {
      if (allowancesOf(source).take(source.name, source, clock.nowMs())) logger[level](fields, message);
      wait();
    },
    [Symbol.dispose]: () => timer?.[Symbol.dispose](),
  };
}
