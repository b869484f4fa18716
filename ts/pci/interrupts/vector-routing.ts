/** The routing of a vector as a VMM sees it, for comparison before and after a change. */
import type { InterruptMessage } from './msix-table.ts';
import type { InterruptVector } from './vector.ts';

/** The routing of a vector as a VMM sees it. @internal */
export interface VectorRouting {
  readonly enabled: boolean;
  readonly message: InterruptMessage | undefined;
}

/** Returns the current routing. @internal */
export function routingOf({ enabled, message }: InterruptVector): VectorRouting {
  return { enabled, message };
}

/** Whether two routings are equal. @internal */
export function sameRouting(now: VectorRouting, before: VectorRouting | undefined): boolean {
  return (
    now.enabled === before?.enabled &&
    now.message?.address === before.message?.address &&
    now.message?.data === before.message?.data
  );
}
