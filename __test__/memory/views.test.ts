// Views: parts of a file as an ArrayBuffer, whose memory stays mapped while the bytes are reachable.
import test from 'ava';
import { spawnSync } from 'node:child_process';
import { constants } from 'node:buffer';
import { fileURLToPath } from 'node:url';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { GuestMemory } from '../../ts/index.ts';
import { DmaBuffer } from '../../ts/driver.ts';
import { MemoryFile, fileMemoryOf } from '../../ts/memory/memory-file.ts';
import { rejectsCode } from '../support/errors.ts';
import { isFileMapped } from '../support/reserved.ts';
import { until } from '../support/until.ts';

const PAGE = 4096n;
/** The longest ArrayBuffer, in whole pages. */
const LONGEST = (BigInt(constants.MAX_LENGTH) / PAGE) * PAGE;

/** Runs a program of `support/` to its end, which must succeed, and parses its output. */
function run(name: string, argument: string): unknown {
  const script = fileURLToPath(new URL(`support/${name}.ts`, import.meta.url));
  const { status, signal, stdout, stderr } = spawnSync(process.execPath, [...process.execArgv, script, argument], {
    encoding: 'utf8',
  });
  if (status !== 0) throw new Error(`${name} ${argument}: ${String(signal ?? status)} ${stderr}`);
  return JSON.parse(stdout);
}

for (const how of ['return', 'exit', 'terminate']) {
  test(`keeps transferred views, blocks and DMA buffers mapped when their worker ends (${how})`, (t) => {
    const all = ['view', 'block', 'closed block', 'DMA buffer', 'closed DMA buffer'];
    t.deepEqual(
      run('worker-view', how),
      all.map((what) => [what, 65_536, 42, 7]),
    );
  });
}

test('unmaps a view once its bytes are collected', async (t) => {
  setFlagsFromString('--expose-gc');
  const collect = runInNewContext('gc') as () => void;
  const open = (): void => {
    const file = MemoryFile.create(PAGE, { name: 'collected' });
    t.is(new Uint8Array(fileMemoryOf(file).view(0n, PAGE))[0], 0);
    file.close();
  };
  open();
  t.true(isFileMapped('collected'));
  await until(() => {
    collect();
    return !isFileMapped('collected');
  }, 'the view is unmapped');
});

test('rejects a view longer than an ArrayBuffer, and unmaps it once', (t) => {
  for (const length of [LONGEST + PAGE, 256n * LONGEST]) {
    const { thrown, mapped } = run('long-view', String(length)) as { thrown: unknown[]; mapped: number };
    for (const [index, error] of thrown.entries()) {
      if (index % 2 === 0) t.regex(String(error), /^ERR_(OUT_OF_RANGE|SYSTEM)/, 'the native core');
      else t.is((error as string[])[0], 'ERR_OUT_OF_RANGE');
    }
    t.is(mapped, 0);
  }
});

test('rejects a DMA buffer longer than an ArrayBuffer, and names the longest one', async (t) => {
  await using memory = await GuestMemory.create();
  for (const length of [LONGEST + 1n, LONGEST + PAGE, 256n * LONGEST]) {
    const { message } = await rejectsCode(t, DmaBuffer.allocate(memory, length), 'ERR_OUT_OF_RANGE');
    t.true(message.includes(String(constants.MAX_LENGTH)), message);
  }
  t.deepEqual(memory.inspect().regions, []);
  const long = LONGEST < 1n << 32n ? LONGEST : 1n << 32n;
  await using buffer = await DmaBuffer.allocate(memory, long);
  t.is(buffer.length, long);
});
