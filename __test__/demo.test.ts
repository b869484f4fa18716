/**
 * The demo on simulated IOMMUs.
 */
import test from 'ava';
import { spawnSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';

test('the demo goes through its steps and ends with who maps what', (t) => {
  const script = fileURLToPath(new URL('../examples/demo.ts', import.meta.url));
  const args = ['--import=@oxc-node/core/register', script];
  const { stdout, stderr, status } = spawnSync(process.execPath, args, { encoding: 'utf8' });
  t.is(status, 0, stderr);
  const lines = stdout.split('\n');
  const expected = [
    /^1\. guest RAM: 0x0\.\.0x4000000 and 0x100000000\.\.0x104000000$/,
    /^3\. device A writes to RAM by DMA: .*"peer-to-peer!"$/,
    /^4\. device B's BAR appears at 0xe0000000: .*"peer-to-peer!"$/,
    /^5\. the BAR moves to 0xd0000000: DMA to the old address: ERR_DMA_FAULT; the BAR has "\.+"$/,
    /DMA to the new address: the BAR has "peer-to-peer!"$/,
    /^6\. container 2 joins late: .*0x0\.\.0x4000000, 0xd0000000\.\.0xd0100000, 0x100000000\.\.0x104000000$/,
    /^8\. moving the BAR there fails: ERR_MAP_FAILED: fussy-target/,
    /rolled back everywhere: device A still reaches the BAR at 0xd0000000: "peer-to-peer!"$/,
    /│ 0xd0000000\.\.0xd0100000 .*'mapped'.*'mapped'.*'mapped'/,
  ];
  for (const line of expected)
    t.true(
      lines.some((text) => line.test(text)),
      String(line),
    );
});
