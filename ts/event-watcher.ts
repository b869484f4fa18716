/**
 * The thread that waits for eventfds and sockets, and their callbacks on this JavaScript thread.
 */
import { type NativeEventFd, NativeEventWatcher, type NativeUnixSocket } from '#native';
import { native } from './native-call.ts';

/** Receives the count of an eventfd; 1 for a socket that is ready. @internal */
export type Listener = (count: bigint) => void;

/** Waits for everything that has a listener. Created on first use; it lives as long as the thread. */
let watcher: NativeEventWatcher | undefined;
/** Callbacks by the ID of their event or socket in the watcher. An ID is used once. */
const listeners = new Map<number, Listener>();
/** Counts collected from the watcher and not delivered yet. Empty except during {@link deliver}. */
const collected = new Map<number, bigint>();
let ids = 0;

function started(): NativeEventWatcher {
  return (watcher ??= native(() => new NativeEventWatcher(deliver)));
}

/** Calls the listener with each count. @returns the ID of the event @internal */
export function watchEvent(event: NativeEventFd, listener: Listener): number {
  const waiting = started();
  const id = ids++;
  native(() => waiting.add(id, event));
  listeners.set(id, listener);
  return id;
}

/**
 * Calls the listener once when the socket is ready. A new call replaces the one before.
 *
 * @param id that of the socket; `undefined` for one that is not watched
 * @param readiness the calls of the socket that wait
 * @returns the ID of the socket
 * @internal
 */
export function awaitSocket(
  id: number | undefined,
  socket: NativeUnixSocket,
  readiness: { readonly receive: boolean; readonly send: boolean },
  listener: Listener,
): number {
  const waiting = started();
  const own = id ?? ids++;
  native(() => waiting.awaitSocket(own, socket, readiness.receive, readiness.send));
  listeners.set(own, listener);
  return own;
}

/** Stops watching. Counts that were not collected stay in the eventfd. @internal */
export function unwatch(id: number): void {
  listeners.delete(id);
  native(() => watcher?.remove(id));
}

/** @internal */
export function replaceListener(id: number, listener: Listener): void {
  listeners.set(id, listener);
}

/** @internal */
export function listenerOf(id: number): Listener | undefined {
  return listeners.get(id);
}

/** Removes and returns the undelivered count of an event. @internal */
export function removeUndelivered(id: number | undefined): bigint {
  if (id === undefined) return 0n;
  const count = collected.get(id) ?? 0n;
  collected.delete(id);
  return count;
}

/** Delivers the counts. The watcher calls it after signals. */
function deliver(): void {
  const counts = native(() => watcher?.collect()) ?? [];
  for (let at = 0; at + 1 < counts.length; at += 2) collected.set(Number(counts[at]), counts[at + 1] ?? 0n);
  // A callback may stop other listeners or take their counts.
  for (const id of collected.keys()) {
    const count = removeUndelivered(id);
    if (count === 0n) continue;
    try {
      listeners.get(id)?.(count);
    } catch (error) {
      queueMicrotask(() => {
        throw error;
      });
    }
  }
}
