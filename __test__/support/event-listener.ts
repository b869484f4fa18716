/**
 * Listens to an event in a process of its own or a worker thread. The argument, or `workerData`, selects the way:
 * `event-listener.ts HOW`.
 */
import { writeSync } from 'node:fs';
import { isMainThread, parentPort, workerData } from 'node:worker_threads';
import { EventFd } from '../../ts/event-fd.ts';

const how: unknown = isMainThread ? process.argv[2] : workerData;
const event = EventFd.create();
const other = EventFd.create();
let delivered = 0n;

function say(text: string): void {
  if (parentPort === null) writeSync(1, `${text}\n`);
  else parentPort.postMessage(text);
}

/** Signals as long as the thread lives: in every turn of its event loop, or without letting it turn. */
function storm(busy: boolean): void {
  other.onSignal(() => event.signal());
  event.onSignal((count) => {
    const before = delivered;
    delivered += count;
    if (!busy && before < 5n && delivered >= 5n) say('delivered');
  });
  const turn = (): void => {
    other.signal(3n);
    event.signal();
    setImmediate(turn);
  };
  turn();
  if (busy) {
    setTimeout(() => {
      say('busy');
      for (;;) event.signal();
    }, 5);
  }
}

switch (how) {
  case 'idle':
    event.onSignal(() => {});
    say('listening');
    break;
  case 'exit':
    event.onSignal(() => process.exit(7));
    event.signal();
    setInterval(() => {}, 1000);
    break;
  case 'storm':
    storm(false);
    break;
  case 'busy':
    storm(true);
    break;
  case 'throw': {
    const keepalive = setInterval(() => {}, 1000);
    const seen: string[] = [];
    process.on('uncaughtException', (error) => {
      seen.push(`uncaught ${error.message}`);
      if (seen.length < 3) return;
      say(JSON.stringify(seen));
      clearInterval(keepalive);
    });
    event.onSignal((count) => {
      seen.push(`first ${count}`);
      throw new Error('from the first');
    });
    other.onSignal((count) => seen.push(`second ${count}`));
    event.signal(2n);
    other.signal(3n);
    // Both have counts when the watcher is asked: one delivery has both.
    for (const until = Date.now() + 500; Date.now() < until;);
    break;
  }
  default:
    throw new Error(`no way of listening: ${String(how)}`);
}
