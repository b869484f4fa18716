/**
 * BARs with the firmware's frame buffer, by /proc/iomem as root and other users read it.
 */
import test, { type ExecutionContext } from 'ava';
import type { BarDiagnosis } from '../../ts/doctor/finding.ts';
import { GPU, MACHINE, TOP, diagnosed, found } from './support.ts';

const ROOT = [
  '00000000-00000fff : Reserved',
  '80000000-8fffffff : PCI Bus 0000:00',
  '  80000000-800fffff : PCI Bus 0000:01',
  '    80000000-800000ff : 0000:01:00.0',
  '20000000000-2ffffffffff : PCI Bus 0000:00',
  '  20000000000-2ffffffffff : PCI Bus 0000:01',
  '    20000000000-2007fffffff : 0000:01:00.0',
  '    22000000000-22000ffffff : 0000:01:00.0',
];
const OTHERS = ROOT.map((line) => line.replace(/[0-9a-f]+-[0-9a-f]+/, '00000000-00000000'));

/** The findings about the BARs of the GPU with these lines after the line of that number. */
function bars(t: ExecutionContext, iomem: readonly string[], after: number, below: readonly string[], driver = '') {
  const lines = [...iomem.slice(0, after + 1), ...below, ...iomem.slice(after + 1)];
  const machine = driver === '' ? MACHINE : MACHINE.replace('driver=vfio-pci vfio=vfio0', driver);
  const top = TOP.replace('[proc]', `[proc]\niomem = ${lines.join('\\n')}`);
  return found(diagnosed(t, { machine, top }, [GPU]), 'bar');
}

const mappable = (findings: ReturnType<typeof bars>): number[] =>
  findings.flatMap(({ bar }: { bar?: BarDiagnosis }) => (bar?.mappable === true ? [bar.index] : []));

for (const [what, iomem] of [
  ['root', ROOT],
  ['another user', OTHERS],
] as const) {
  const range = (text: string): string => (iomem === ROOT ? text : '00000000-00000000');

  for (const name of ['BOOTFB', 'efifb', 'vesafb', 'simpledrm', 'simple-framebuffer.0']) {
    test(`${what}: finds ${name} on the BAR that contains it`, (t) => {
      const findings = bars(t, iomem, 7, [`      ${range('22000000000-220007e8fff')} : ${name}`]);
      t.deepEqual(mappable(findings), [2]);
      const [held] = findings;
      t.like(held, { state: 'warning' });
      t.regex(held?.text ?? '', new RegExp(`^BAR 0, .*frame buffer \\(${name}\\)`));
      t.regex(held?.fix ?? '', /initcall_blacklist=sysfb_init/);
    });
  }

  test(`${what}: finds a driver on the resource of the firmware, and the larger BAR`, (t) => {
    const below = [`      ${range('20000000000-200007e8fff')} : BOOTFB`];
    t.deepEqual(
      mappable(bars(t, iomem, 6, [...below, `        ${range('20000000000-200007e8fff')} : simpledrm`])),
      [0],
    );
  });

  test(`${what}: drivers of the device, and frame buffers of other devices, do not block`, (t) => {
    t.deepEqual(mappable(bars(t, iomem, 6, [`      ${range('20000000000-2007fffffff')} : vfio-pci`])), [0, 2]);
    t.deepEqual(mappable(bars(t, iomem, 0, [`${range('000a0000-000bffff')} : efifb`])), [0, 2]);
    const other = [
      `    ${range('23000000000-23000ffffff')} : 0000:01:00.1`,
      `      ${range('23000000000-230ffffffff')} : BOOTFB`,
    ];
    t.deepEqual(mappable(bars(t, iomem, 7, other)), [0, 2]);
    const beside = [`    ${range('23000000000-23000ffffff')} : BOOTFB`];
    t.deepEqual(mappable(bars(t, iomem, 7, beside)), [0, 2], 'beside the BAR, not on it');
  });
}

test("finds the frame buffer at the kernel's limit of indentation", (t) => {
  const deep = OTHERS.map((line) => (/0000:01:00\.0/.test(line) ? `            ${line}` : line));
  t.deepEqual(mappable(bars(t, deep, 7, ['                00000000-00000000 : BOOTFB'])), [2]);
});

test('a VGA device that is not bound can use its BAR once vfio-pci is bound', (t) => {
  const below = ['      22000000000-220007e8fff : BOOTFB'];
  const vga = MACHINE.replace('class=030200', 'class=030000').replace('driver=vfio-pci vfio=vfio0', 'driver=nouveau');
  const iomem = [...ROOT, ...below].join('\\n');
  const top = TOP.replace('[proc]', `[proc]\niomem = ${iomem}`);
  const [held] = found(diagnosed(t, { machine: vga, top }), 'bar');
  t.like(held, { state: 'warning', fix: undefined });
  t.regex(held?.text ?? '', /Bind the device to vfio-pci, which removes it/);
  const [old] = found(diagnosed(t, { machine: vga, top: top.replaceAll('7.3.4', '5.15.4') }), 'bar');
  t.regex(old?.fix ?? '', /initcall_blacklist=sysfb_init/);
});
