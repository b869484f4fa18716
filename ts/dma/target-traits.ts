/**
 * The properties and methods of a DMA target, read once when it joins.
 */
import { type AddressRange, isRange } from '../address-range.ts';
import { readArray } from '../arguments.ts';
import { PeerDmaError, asError } from '../errors.ts';
import { valueText } from '../value-text.ts';
import { type AcceptedMemory, readAccepted } from './accepted-memory.ts';
import type { DmaTarget } from './target.ts';

/** @internal */
export interface TargetTraits {
  /** The receiver of `mapDma` and `unmapDma`. */
  readonly target: DmaTarget;
  readonly name: string;
  readonly needsVa: boolean | 'private';
  readonly mapsForProcessors: boolean;
  readonly accepts: Required<AcceptedMemory>;
  readonly mapDmaBatch: DmaTarget['mapDmaBatch'];
  readonly isRevoked: DmaTarget['isRevoked'];
  readonly iovaRanges: DmaTarget['iovaRanges'];
}

/**
 * Checks and reads a target.
 *
 * @throws {PeerDmaError} `ERR_INVALID_ARGUMENT` if it is not a target, or if reading a property throws
 * @internal
 */
export function readTarget(target: DmaTarget): TargetTraits {
  if (typeof target !== 'object' || target === null) throw invalid('a DMA target is an object');
  for (const method of ['mapDma', 'unmapDma'] as const) {
    if (typeof read(target, method) !== 'function') throw invalid('a DMA target has the methods mapDma and unmapDma');
  }
  const name = read(target, 'name');
  if (typeof name !== 'string' || name === '') {
    throw invalid('a DMA target has a name, which identifies it in errors and inspect()');
  }
  const needsVa = read(target, 'needsVa') ?? false;
  if (typeof needsVa !== 'boolean' && needsVa !== 'private') {
    throw invalid(`needsVa of ${name} is true, false or 'private', not ${valueText(needsVa)}`);
  }
  const mapsForProcessors = read(target, 'mapsForProcessors') ?? false;
  if (typeof mapsForProcessors !== 'boolean') {
    throw invalid(`mapsForProcessors of ${name} is true or false, not ${valueText(mapsForProcessors)}`);
  }
  return {
    target,
    name,
    needsVa,
    mapsForProcessors,
    accepts: readAccepted(read(target, 'accepts'), name),
    mapDmaBatch: optionalMethod(target, 'mapDmaBatch'),
    isRevoked: optionalMethod(target, 'isRevoked'),
    iovaRanges: optionalMethod(target, 'iovaRanges'),
  };
}

/**
 * Calls `iovaRanges` of a target.
 *
 * @throws {PeerDmaError} when it throws, or returns anything but ranges
 * @internal
 */
export function iovaRangesOf({ name, iovaRanges }: TargetTraits): readonly AddressRange[] | undefined {
  if (iovaRanges === undefined) return undefined;
  let ranges: unknown;
  try {
    ranges = iovaRanges();
  } catch (thrown) {
    const error = asError(thrown);
    if (error instanceof PeerDmaError) throw error;
    throw new PeerDmaError('ERR_MAP_FAILED', `${name}: iovaRanges failed: ${error.message}`, {
      target: name,
      cause: thrown,
    });
  }
  const list = readArray(ranges as readonly unknown[], `the ranges that iovaRanges of ${name} returns`);
  if (list.every(isRange)) return list;
  throw invalid(`iovaRanges of ${name} returns an array of AddressRange`, name);
}

function read<K extends keyof DmaTarget>(target: DmaTarget, property: K): unknown {
  try {
    return target[property];
  } catch (thrown) {
    throw new PeerDmaError(
      'ERR_INVALID_ARGUMENT',
      `the property ${property} of a DMA target cannot be read: ${asError(thrown).message}`,
      { cause: thrown },
    );
  }
}

type Optional = 'mapDmaBatch' | 'isRevoked' | 'iovaRanges';

function optionalMethod<K extends Optional>(target: DmaTarget, name: K): DmaTarget[K] {
  const method = read(target, name);
  if (method === undefined) return undefined;
  if (typeof method !== 'function') throw invalid(`${name} of a DMA target is a method, if the target has it`);
  const call = method as (...args: unknown[]) => unknown;
  return ((...args: unknown[]) => Reflect.apply(call, target, args)) as DmaTarget[K];
}

function invalid(message: string, target?: string): PeerDmaError {
  return new PeerDmaError('ERR_INVALID_ARGUMENT', message, { target });
}
