// SPDX-License-Identifier: Apache-2.0
/** `npm test` sets it; `npm run check`, for which somebody waits, does not. */
const IS_THOROUGH = process.env['BUSBAR_THOROUGH'] !== undefined;

/** How often a property is tried that takes a second or more: all times in `npm test`, a third of them in `npm run check`. */
export const numRuns = (thorough: number): number => (IS_THOROUGH ? thorough : Math.ceil(thorough / 3));
