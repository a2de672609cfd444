// SPDX-License-Identifier: Apache-2.0
/** The process that hosts librados and librbd. */
import { serveNative } from '@busbar/native/serve';
import koffi from 'koffi';
import type { CephCalls } from './calls.ts';
import { cephMethods } from './methods.ts';
import { closeSession } from './session.ts';
import { loadLibraries } from './signatures.ts';

const PR_SET_PDEATHSIG = 1;
const SIGKILL = 9;

serveNative<CephCalls>((context) => {
  // Beside the end of the channel: a thread that sits in a synchronous call would not notice that.
  koffi.load('libc.so.6').func('int prctl(int option, unsigned long arg)')(PR_SET_PDEATHSIG, SIGKILL);
  return cephMethods(loadLibraries(), (session) => {
    // So that the cluster forgets this client at once; the parent's grace time bounds it.
    context.onClose(() => closeSession(session));
  });
});
