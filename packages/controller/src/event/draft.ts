// SPDX-License-Identifier: Apache-2.0
import { EventSeverity } from '@busbar/proto/gen/busbar/v1/event';
import { cut } from '../api/validation.ts';

/** An event before it has id, time and subject. */
export interface EventDraft {
  readonly severity: EventSeverity;
  readonly reason: string;
  readonly message: string;
  readonly attributes: Readonly<Record<string, string>>;
}

/** Messages of hosts and hypervisors come from outside: see event.proto. */
const MESSAGE_MAX = 500;
const ATTRIBUTE_MAX = 200;

type Attributes = Readonly<Record<string, string | undefined>>;

function draft(severity: EventSeverity) {
  return (reason: string, message: string, attributes: Attributes = {}): EventDraft => ({
    severity,
    reason,
    message: cut(message, MESSAGE_MAX),
    attributes: Object.fromEntries(
      Object.entries(attributes).flatMap(([key, value]) => (value ? [[key, cut(value, ATTRIBUTE_MAX)]] : [])),
    ),
  });
}

export const info = draft(EventSeverity.INFO);
export const warning = draft(EventSeverity.WARNING);
export const error = draft(EventSeverity.ERROR);

/** "what: why", or just what. */
export function because(what: string, why: string | undefined): string {
  return why ? `${what}: ${why}` : what;
}
