/**
 * How often tests repeat themselves in each guest. Leaks and lost messages of the package do not depend on the kernel.
 * So one guest of each back end runs all repetitions, both with Linux 7.3, and the others a part.
 */
import { BACKEND } from './backend.ts';

const PART = 5;
/** Undefined outside of the testbed. */
const KERNEL = process.env['PEERDMA_TESTBED_KERNEL'];
const IS_COMPLETE = KERNEL === undefined || KERNEL === '7.3';

/** The guests that run random programs. */
const GUESTS = ['6.12 type1', '6.1 type1', '7.3 type1', '7.3 iommufd'];

/**
 * Returns the number of repetitions in this guest: all of them or a fifth.
 *
 * @param all a multiple of 5
 */
export function repetitions(all: number): number {
  return IS_COMPLETE ? all : all / PART;
}

/** The number of this guest, which other guests do not have: each runs other random programs. */
export const GUEST_NUMBER: number = Math.max(GUESTS.indexOf(`${KERNEL} ${BACKEND}`), 0);
