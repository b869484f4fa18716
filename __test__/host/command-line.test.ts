/**
 * Parsing of the kernel's command line. The expected values are those of `next_arg` in Linux (lib/cmdline.c).
 */
import test from 'ava';
import { readKernel } from '../../ts/host/system/kernel.ts';
import { splitCommandLine } from '../../ts/host/system/command-line.ts';
import { SysFiles } from '../../ts/host/sys-files.ts';
import { expandTree } from '../support/sysfs/expand.ts';

const pairs = (line: string): (string | undefined)[][] =>
  splitCommandLine(line).map(({ name, value }) => (value === undefined ? [name] : [name, value]));

test('splits at any white space except within quotes', (t) => {
  t.deepEqual(pairs(' \tquiet\tro  root=/dev/vda1 \n'), [['quiet'], ['ro'], ['root', '/dev/vda1']]);
  t.deepEqual(pairs('dyndbg="file drivers/x intel_iommu=off" ro'), [
    ['dyndbg', 'file drivers/x intel_iommu=off'],
    ['ro'],
  ]);
  t.deepEqual(pairs('"x=a b" a"b c"d'), [['x', 'a b'], ['a"b c"d']]);
  t.deepEqual(pairs('x="a b c'), [['x', 'a b c']], 'accepts a quote that is not closed');
  t.deepEqual(pairs('a=""b c=d=e =f k='), [['a', '"b'], ['c', 'd=e'], ['=f'], ['k', '']]);
  t.deepEqual(pairs(''), []);
});

test('names have underscores in place of dashes, and the text is unchanged', (t) => {
  t.deepEqual(splitCommandLine('intel-iommu="sm-on"'), [
    { text: 'intel-iommu="sm-on"', name: 'intel_iommu', value: 'sm-on' },
  ]);
});

test('ignores parameters for init after two dashes', (t) => {
  t.deepEqual(pairs('ro -- intel_iommu=off'), [['ro']]);
  t.deepEqual(pairs('--x=1 "--" intel_iommu=off'), [['__x', '1']]);
});

test('reads a command line of every length that Linux supports', (t) => {
  const words = Array.from({ length: 400 }, (_, index) => `w${index}=${'v'.repeat(4)}`);
  const top = expandTree(t, `[proc/sys/kernel]\nosrelease = 6.1.0\n[proc]\ncmdline = ${words.join(' ')} last=1`);
  const kernel = readKernel(new SysFiles(top, 1 << 20));
  if (kernel === 'unknown') throw new Error('there is a version');
  t.is(kernel.commandLine.length, 401);
  t.like(kernel.commandLine.at(-1), { name: 'last', value: '1' });
});
