/**
 * A folder that looks like /sys, from text. The text has sections, `[folder]`, with a line for each entry:
 *
 *     class = 0x030000            a file with that text (`\n` for a new line)
 *     driver -> ../../drivers/x   a link
 *     config : 256 0:8680 34:40   a file of that many bytes, 0 but for those at the hexadecimal offsets
 *     vfio-dev/vfio0/             a folder
 *
 * In `resource` a line `-` is an entry that has nothing. record.mjs writes such text from a real /sys.
 */
import type { ExecutionContext } from 'ava';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const NOTHING = `0x${'0'.repeat(16)} 0x${'0'.repeat(16)} 0x${'0'.repeat(16)}`;

/** A folder of /sys files, removed at the end of the test. */
export function expandTree(t: ExecutionContext, text: string): string {
  const root = mkdtempSync(join(tmpdir(), 'peerdma-sysfs-'));
  t.teardown(() => rmSync(root, { recursive: true }));
  let folder = '';
  for (const line of text.split('\n')) {
    const section = /^\[(.*)\]$/.exec(line)?.[1];
    if (section !== undefined) folder = section;
    if (section !== undefined || line.trim() === '' || line.startsWith('#')) continue;
    const [, name = '', kind = '', value = ''] = /^(\S+?)(?: (=|->|:) ?(.*)|\/)$/.exec(line) ?? [];
    if (name === '') throw new Error(`no line of a tree: ${line}`);
    const path = join(root, folder, name);
    mkdirSync(dirname(path), { recursive: true });
    if (kind === '=') writeFileSync(path, `${asText(name, value)}\n`);
    else if (kind === '->') symlinkSync(value, path);
    else if (kind === ':') writeFileSync(path, unpacked(value));
    else mkdirSync(path, { recursive: true });
  }
  return root;
}

/** The text of a file of `__test__/host/machines`. */
export function machine(name: string): string {
  return readFileSync(fileURLToPath(new URL(`../../host/machines/${name}.txt`, import.meta.url)), 'utf8');
}

function asText(name: string, value: string): string {
  const lines = value.split('\\n');
  return name === 'resource' ? lines.map(resourceLine).join('\n') : lines.join('\n');
}

function resourceLine(line: string): string {
  return line === '-'
    ? NOTHING
    : line.replaceAll(/0x([0-9a-f]+)/g, (_, digits: string) => `0x${digits.padStart(16, '0')}`);
}

function unpacked(value: string): Uint8Array {
  const [size = '0', ...parts] = value.split(' ');
  const bytes = Buffer.alloc(Number(size));
  for (const part of parts) {
    const [offset = '', digits = ''] = part.split(':');
    Buffer.from(digits, 'hex').copy(bytes, Number.parseInt(offset, 16));
  }
  return bytes;
}
