/**
 * Resets assigned functions, alone or together: first nobody reaches them and they reach nobody, then the hardware.
 */
import { PeerDmaError } from '../errors.ts';
import { applyPlan } from '../guest/plan.ts';
import type { GuestFunction } from './guest-function.ts';

/** See {@link resetDevices}. @internal */
export async function resetFunctions(functions: readonly GuestFunction[]): Promise<void> {
  await applyPlan(functions.map((one) => one.withdrawing()));
  for (const one of functions) one.powerOn();
  const problems = await resetHardware(functions);
  // What the reset has put back, such as a power state, is not the guest's any more.
  for (const one of functions) one.powerOn();
  const [first] = problems;
  if (first === undefined) return;
  if (problems.length === 1) throw first;
  const { code } = problems.find((problem) => !isUnsupported(problem)) ?? first;
  throw new PeerDmaError(code, problems.map(({ message }) => message).join('; '), {
    cause: new AggregateError(problems),
  });
}

/** Each on its own where it can; what can't, by its bus. Gives why what is not reset is not. */
async function resetHardware(functions: readonly GuestFunction[]): Promise<PeerDmaError[]> {
  const problems: PeerDmaError[] = [];
  const devices = functions.map(({ device }) => device);
  for (const device of devices) {
    try {
      await device.reset().catch((error: unknown) => {
        if (!isUnsupported(error)) throw error;
        return device.hotReset(devices.filter((other) => other !== device));
      });
    } catch (error) {
      if (!(error instanceof PeerDmaError)) throw error;
      problems.push(error);
    }
  }
  return problems;
}

function isUnsupported(error: unknown): error is PeerDmaError {
  return error instanceof PeerDmaError && error.code === 'ERR_RESET_UNSUPPORTED';
}
