// SPDX-License-Identifier: Apache-2.0
/**
 * What a NUMA node has, as whole numbers that add up: a set of VMs fits a node exactly when in each dimension the sum of
 * their demands is at most what is free. Memory and pages are so by nature; for CPUs four numbers do it.
 *
 * A pool of CPUs has s free cores of one thread, d free cores of two, and some single threads of half-used cores, T free
 * threads in all. Asked for P threads of any kind ("prefer"), I whole cores ("isolate") and R cores of two threads
 * ("require"), it can serve them together exactly when
 *
 *   threads:  P + 2R + I  ≤ T             (I cores of one thread each, if there are so many)
 *   wide:     P + 2R + 2I ≤ T + s         (those beyond s cost two threads)
 *   cores:    R + I       ≤ s + d
 *   smtCores: R           ≤ d
 *
 * so each of the four is a dimension. (A "require" of odd size has its last core whole: the thread that is over stays empty.)
 * Threads of the general pool are counted in shares, since VMs that float over the rest take fractions of them.
 */
export const MEMORY = 0;
export const PAGES_2M = 1;
export const PAGES_1G = 2;
export const GENERAL = 3;
export const ISOLATED = 7;
/** Of a pool, from its first dimension on. */
export const THREADS = 0;
export const WIDE = 1;
export const CORES = 2;
export const SMT_CORES = 3;
/**
 * From here on, one dimension for each class of devices; then one more for each, used on the first node of a host, for devices of
 * which the platform does not say where they are.
 */
export const DEVICES = 11;

/** What one vCPU of a shared VM takes of the general pool, in shares; a whole thread has this times the over-commitment. */
export const SHARED_VCPU = 1000;

/** Shares of a thread of the general pool. */
export function threadShares(vcpuOvercommit: number): number {
  return Math.round(vcpuOvercommit * SHARED_VCPU);
}
