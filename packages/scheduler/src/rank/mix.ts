// SPDX-License-Identifier: Apache-2.0
import type { Shape } from '../shape/shape.ts';

/**
 * What is expected to be asked for: the shapes of the VMs that are here or were, each with the share of them that it had. A
 * shape seen once has a floor, so that room for a rare big VM is not given away for nothing.
 */
export interface Mix {
  readonly shapes: readonly Shape[];
  /** Add up to 1. */
  readonly weights: Float64Array;
}

/** What was asked for so far, and so is expected. */
export class Expectation {
  readonly #counts = new Map<Shape, number>();
  #all = 0;
  #dueAt = 0;
  #mix: Mix = { shapes: [], weights: new Float64Array() };

  add(shape: Shape): void {
    this.#counts.set(shape, (this.#counts.get(shape) ?? 0) + 1);
    this.#all++;
  }

  /** The mix, when there is twice as much of it as when it was last looked at and it changed; else null. */
  renewed(): Mix | null {
    if (this.#all < this.#dueAt) return null;
    this.#dueAt = Math.max(8, 2 * this.#all);
    const mix = mixOf(this.#counts);
    // Small changes are not worth judging all hosts anew.
    if (isLike(mix, this.#mix)) return null;
    this.#mix = mix;
    return mix;
  }
}

/** Each costs time at every decision. Public traces have 10 to 40 shapes that matter. */
const SHAPES_MAX = 32;
/** A request in fifty: below that, the next one of its kind is not worth keeping room for. */
const FLOOR = 0.02;

function mixOf(counts: ReadonlyMap<Shape, number>): Mix {
  const single = [...counts].filter(([shape, count]) => shape.whole !== null && count > 0);
  // By what they take in all, not by how many they are: the rare big ones are the first that find no room.
  const commonest = single
    .toSorted(([a, x], [b, y]) => y * size(b) - x * size(a) || a.index - b.index)
    .slice(0, SHAPES_MAX);
  const all = commonest.reduce((sum, [, count]) => sum + count, 0);
  const raw = commonest.map(([, count]) => Math.max(FLOOR, count / all));
  const sum = raw.reduce((total, weight) => total + weight, 0);
  return { shapes: commonest.map(([shape]) => shape), weights: Float64Array.from(raw, (weight) => weight / sum) };
}

/** The same shapes with nearly the same shares: a quarter more or less changes no decision that matters. */
function isLike(a: Mix, b: Mix): boolean {
  if (a.shapes.length !== b.shapes.length) return false;
  const share = new Map(b.shapes.map((shape, i) => [shape, b.weights[i] ?? 0]));
  return a.shapes.every((shape, i) => {
    const [now, before] = [a.weights[i] ?? 0, share.get(shape) ?? 0];
    return before > 0 && Math.abs(now - before) <= 0.25 * before;
  });
}

const size = ({ needs }: Shape) => needs.vcpus + needs.memoryMib / 4096;
