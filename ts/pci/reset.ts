/**
 * Resets assigned functions, alone or together: first nobody reaches them and they reach nobody, then the hardware.
 */
import { PeerDmaError, asError } from '../errors.ts';
import type { GuestFunction } from './guest-function.ts';
import type { PhysicalFunction } from './physical-function.ts';
import { type Undo, undone } from './undo.ts';

/** See {@link resetDevices}. @internal */
export async function resetFunctions(functions: readonly GuestFunction[]): Promise<void> {
  const undo: Undo[] = [];
  try {
    for (const one of functions) undo.push(await one.withdraw());
  } catch (error) {
    throw await undone(error, undo);
  }
  const problems: Error[] = [];
  for (const one of functions) await attempt(() => one.quiesce(), problems);
  await resetHardware(
    functions.map(({ device }) => device),
    problems,
  );
  // What the reset has put back, such as a power state, is not the guest's any more.
  for (const one of functions) await attempt(() => one.powerOn(), problems);
  throwAll(problems);
}

/** What one device refuses keeps no other from being reset. */
async function attempt(act: () => Promise<void>, problems: Error[]): Promise<void> {
  try {
    await act();
  } catch (error) {
    problems.push(asError(error));
  }
}

/** Each on its own where it can; what can't, or does not return from it, by its bus, once. */
async function resetHardware(devices: readonly PhysicalFunction[], problems: Error[]): Promise<void> {
  const left = new Map<PhysicalFunction, Error>();
  for (const device of devices) {
    try {
      await device.reset();
    } catch (error) {
      if (isUnsupported(error) || isLost(error)) left.set(device, asError(error));
      else problems.push(asError(error));
    }
  }
  for (const [device, alone] of left) {
    try {
      const reached = await device.hotReset(devices.filter((other) => other !== device));
      for (const one of reached) left.delete(one);
    } catch (error) {
      if (isLost(alone)) problems.push(alone);
      problems.push(asError(error));
    }
  }
}

function throwAll(problems: readonly Error[]): void {
  const [first] = problems;
  if (first === undefined) return;
  if (problems.length === 1) throw first;
  const told = problems.find((problem) => !isUnsupported(problem)) ?? first;
  const code = told instanceof PeerDmaError ? told.code : 'ERR_SYSTEM';
  const messages = new Set(problems.map(({ message }) => message));
  throw new PeerDmaError(code, [...messages].join('; '), { cause: new AggregateError(problems) });
}

function isUnsupported(error: unknown): boolean {
  return error instanceof PeerDmaError && error.code === 'ERR_RESET_UNSUPPORTED';
}

/** Whether a device did not return from its reset, which a reset of its bus may bring back. */
function isLost(error: unknown): boolean {
  return error instanceof PeerDmaError && error.code === 'ERR_BAD_CONFIG_SPACE';
}
