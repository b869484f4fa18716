/**
 * `peerdma demo` on simulated IOMMUs.
 */
import test from 'ava';
import { program } from './support.ts';

test('the demo prints its steps and ends with the mappings of each target', async (t) => {
  const { stdout, stderr, status } = await program(['demo']);
  t.is(status, 0, stderr);
  const lines = stdout.split('\n');
  const expected = [
    /^1\. guest RAM: 0x0\.\.0x4000000 and 0x100000000\.\.0x104000000$/,
    /^3\. device A writes to RAM by DMA: .*"peer-to-peer!"$/,
    /^4\. device B's BAR appears at 0xe0000000: .*"peer-to-peer!"$/,
    /^5\. the BAR moves to 0xd0000000: DMA to the old address: ERR_DMA_FAULT; the BAR has "\.+"$/,
    /DMA to the new address: the BAR has "peer-to-peer!"$/,
    /^6\. container 2 joins late: .*0x0\.\.0x4000000, 0xd0000000\.\.0xd0100000, 0x100000000\.\.0x104000000$/,
    /^8\. moving the BAR there fails: ERR_MAP_FAILED: rejecting-target/,
    /rolled back everywhere: device A still reaches the BAR at 0xd0000000: "peer-to-peer!"$/,
    /│ 0xd0000000\.\.0xd0100000 .*'mapped'.*'mapped'.*'mapped'/,
  ];
  for (const line of expected)
    t.true(
      lines.some((text) => line.test(text)),
      String(line),
    );
});

for (const args of [['--device', '0000:01:00.0'], Array(4).fill('--device=0000:01:00.0'), ['0000:01:00.0']]) {
  test(`the demo rejects the arguments ${args.join(' ')} with status 2 and the remedy`, async (t) => {
    const { stdout, stderr, status } = await program(['demo', ...args]);
    t.is(status, 2);
    t.is(stdout, '');
    t.regex(
      stderr,
      /^peerdma demo: takes (no device, two or three|no argument 0000:01:00\.0; devices follow --device)\n/,
    );
  });
}

test('the demo rejects a --device that is not a PCI address, or the same one twice, with status 2', async (t) => {
  for (const [first, second] of [
    ['nvme0', '0000:01:00.0'],
    ['0000:01:00.0', ''],
    ['0000:01:00.0', '01:00.0'],
  ] as const) {
    const { stdout, stderr, status } = await program(['demo', '--device', first, '--device', second]);
    t.is(status, 2, stderr);
    t.is(stdout, '');
    t.regex(stderr, /^peerdma demo: [^\n]*\nRun peerdma demo --help for its usage\.\n$/);
  }
});

test('the demo reports a device that does not exist without a stack trace', async (t) => {
  const { stderr, status } = await program(['demo', '--device', 'ffff:ff:1f.7', '--device', 'ffff:ff:1f.6']);
  t.is(status, 1);
  t.regex(stderr, /^peerdma demo: ERR_\w+: [^\n]*\n$/);
});
