/** Resets assigned functions, alone or together: isolates them first, then resets the hardware. */
import { PeerDmaError, asError } from '../errors.ts';
import { transaction } from '../guest/transaction.ts';
import type { GuestFunction } from './guest-function.ts';
import type { PhysicalFunction } from './physical-function.ts';

/** See {@link resetDevices}. @internal */
export async function resetFunctions(functions: readonly GuestFunction[]): Promise<void> {
  await transaction(async (undo) => {
    for (const one of functions) undo.push(await one.unmapBars());
  });
  const problems: Error[] = [];
  for (const one of functions) await collectError(() => one.quiesce(), problems);
  await resetHardware(
    functions.map(({ device }) => device),
    problems,
  );
  // The reset restores state, such as a power state, that the guest no longer has.
  for (const one of functions) await collectError(() => one.powerOn(), problems);
  throwAll(problems);
}

/** Runs a step and collects its error, so that a failure of one device does not affect the others. */
async function collectError(act: () => Promise<void>, problems: Error[]): Promise<void> {
  try {
    await act();
  } catch (error) {
    problems.push(asError(error));
  }
}

/**
 * Resets each device on its own, or else its bus.
 *
 * The bus is reset, once, if a device has no reset of its own or does not respond after it.
 */
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
  const reported = problems.find((problem) => !isUnsupported(problem)) ?? first;
  const code = reported instanceof PeerDmaError ? reported.code : 'ERR_SYSTEM';
  const messages = new Set(problems.map(({ message }) => message));
  throw new PeerDmaError(code, [...messages].join('; '), { cause: new AggregateError(problems) });
}

function isUnsupported(error: unknown): boolean {
  return error instanceof PeerDmaError && error.code === 'ERR_RESET_UNSUPPORTED';
}

/** Whether a device did not respond after its reset. A reset of its bus may recover it. */
function isLost(error: unknown): boolean {
  return error instanceof PeerDmaError && error.code === 'ERR_BAD_CONFIG_SPACE';
}
