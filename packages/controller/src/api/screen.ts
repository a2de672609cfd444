// SPDX-License-Identifier: Apache-2.0
import { BusbarError } from '@busbar/core/errors';
import type { Admission } from '../certificate/admission.ts';
import type { Recognise } from './authenticate.ts';
import type { OwnNames } from './own-names.ts';

/**
 * What is asked of every call of every service before anything of it is read; null lets it in. `path` is /SERVICE/METHOD.
 * For services behind the pipeline that is the name alone: whether the caller may is their own question, and a refusal
 * of theirs goes on record. Health and reflection are libraries' and ask nobody.
 */
export type Screen = (peer: string | null, path: string, authority: string) => BusbarError | null;

export function screenOf(deps: {
  readonly names: OwnNames;
  readonly recognise: Recognise;
  readonly admission: Admission;
  /** Full names of the services that ask for themselves who calls. */
  readonly asking: ReadonlySet<string>;
}): Screen {
  const { names, recognise, admission, asking } = deps;
  return (peer, path, authority) => {
    const refusal = names.refusalOf(authority);
    if (refusal !== null || asking.has(path.slice(1, path.lastIndexOf('/')))) return refusal;
    const { caller } = recognise(peer);
    if (caller?.certificate == null) return notOfThisCluster();
    try {
      // Open while the store was never seen, as for agents: whoever watches over the controllers asks just then.
      admission.checkAgent(caller.certificate);
      return null;
    } catch (error) {
      if (error instanceof BusbarError) return error;
      throw error;
    }
  };
}

function notOfThisCluster(): BusbarError {
  return new BusbarError({
    kind: 'unauthenticated',
    reason: 'CLIENT_CERTIFICATE_REQUIRED',
    message: 'the certificate of the connection speaks for nobody of this cluster',
    hint: 'use a client certificate issued by the cluster',
  });
}
