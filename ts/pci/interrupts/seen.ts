/**
 * What a VMM sees of a vector, to tell whether a guest's change is one for it.
 */
import type { InterruptMessage } from './msix-table.ts';
import type { InterruptVector } from './vector.ts';

/** What the VMM sees of a vector. @internal */
export interface Seen {
  readonly enabled: boolean;
  readonly message: InterruptMessage | undefined;
}

/** As it is now. @internal */
export function seen({ enabled, message }: InterruptVector): Seen {
  return { enabled, message };
}

/** Whether nothing has changed. @internal */
export function looksAs(now: Seen, before: Seen | undefined): boolean {
  return (
    now.enabled === before?.enabled &&
    now.message?.address === before.message?.address &&
    now.message?.data === before.message?.data
  );
}
