/**
 * An exit of a processor that a handler in TypeScript answers, without a virtual machine.
 *
 * For comparison, a byte between two threads in C, there and back by pipes.
 */
import { spawnSync } from 'node:child_process';
import { copyFileSync, mkdirSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, resolve } from 'node:path';
import type { NativeMachine } from '#native';
import { ExitLoop } from '../ts/kvm/exit-loop.ts';
import { PortSpace } from '../ts/kvm/handlers.ts';
import { compile, nanoseconds } from './compile.ts';
import { type Figure, median } from './measure.ts';

const ROUNDS = 20_000;
const IDLE_ROUNDS = 3_000;
/** Microseconds between two exits of an idle event loop. */
const PAUSE = 200;

interface ExitSource extends Pick<NativeMachine, 'exitCells' | 'nextExit' | 'answerExit' | 'answerLater'> {
  post(count: number, pause: number): Promise<number[]>;
}

/** Builds and loads the thread that posts exits. */
function load(): { readonly ExitSource: { create(notify: () => void): ExitSource } } {
  const build = ['build', '--release', '--quiet', '-p', 'peerdma-bench-crossing'];
  const { status, error } = spawnSync('cargo', build, { stdio: 'inherit' });
  if (status !== 0) throw error ?? new Error('cargo could not compile bench/rust/crossing');
  const library = resolve('target/bench/crossing.node');
  mkdirSync(dirname(library), { recursive: true });
  copyFileSync(resolve('target/release/libpeerdma_bench_crossing.so'), library);
  return createRequire(import.meta.url)(library) as ReturnType<typeof load>;
}

export async function crossing(): Promise<Figure[]> {
  const ports = new PortSpace();
  ports.add(0x3f8, 1, { read: () => 42, write: () => {} });
  const unexpected = (): never => {
    throw new Error('an unexpected exit');
  };
  const receiver = { failed: unexpected, unclaimed: unexpected, stopped: unexpected };
  const { ExitSource } = load();
  const ping = compile('ping-pong');
  const rows: Figure[] = [];
  for (const [name, rounds, pause, goal] of [
    ['an idle event loop', IDLE_ROUNDS, PAUSE, 8],
    ['exits one after another', ROUNDS, 0, 2],
  ] as const) {
    const loop = new ExitLoop(ports, () => undefined);
    const source = ExitSource.create(loop.drain);
    loop.attach(source as unknown as NativeMachine, receiver);
    const exit = median(await source.post(rounds, pause)) / 1000;
    const floor = median(nanoseconds(ping, String(rounds), String(pause))) / 1000;
    rows.push({
      name: `exit answered by a handler, without KVM, ${name}: median; a byte there and back in C`,
      measured: `${exit.toFixed(2)}; ${floor.toFixed(2)} µs`,
      goal: `≤ ${goal} µs`,
      met: exit <= goal,
    });
  }
  return rows;
}
