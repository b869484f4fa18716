/**
 * Names of PCI vendors and devices from `pci.ids`.
 */
import { mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import test from 'ava';
import { type IdsText, newIdsText, parsePciIds } from '../../ts/cli/topology/pci-ids.ts';
import { scratchFolder } from '../support/scratch.ts';
import { PCI_IDS } from './support.ts';

const text = readFileSync(PCI_IDS, 'utf8');
const names = parsePciIds(text);

/** The arguments of a formatter. */
const ids = (vendor: number | 'unknown', device: number | 'unknown'): Parameters<IdsText>[0] => ({
  ids: { vendor, device, subsystemVendor: 'unknown', subsystemDevice: 'unknown', revision: 'unknown' },
});
const GPU = ids(0x10de, 0x2330);
const GPU_TEXT = '10de:2330 GH100 [H100 SXM5 80GB], NVIDIA Corporation';

test('parses vendors and devices, without comments, sub-devices and classes', (t) => {
  t.deepEqual(
    [...names],
    [
      ['1000', 'Broadcom / LSI'],
      ['1000:c030', 'PCIe Switch management endpoint <2>'],
      ['10de', 'NVIDIA Corporation'],
      ['10de:2330', 'GH100 [H100 SXM5 80GB]'],
      ['10de:2331', 'GH100 [H100 PCIe]'],
      ['15b3', 'Mellanox Technologies'],
      ['15b3:101e', 'ConnectX Family mlx5Gen Virtual Function'],
      ['8086', 'Intel Corporation'],
    ],
  );
});

test('skips invalid lines, and removes control characters', (t) => {
  t.deepEqual([...parsePciIds('\t2330  a device before a vendor\n10dex  x\n10d  y\n10de z\n10de  \n\0\n')], []);
  t.deepEqual(
    [...parsePciIds('10de  A\u001b[31mB  \r\n\t2330 one space\n\t2331  C\r\n')],
    [
      ['10de', 'A[31mB'],
      ['10de:2331', 'C'],
    ],
  );
});

test('a truncated file has only names of the complete file', (t) => {
  t.is(parsePciIds(text.slice(0, text.indexOf('IDIA'))).get('10de'), undefined);
  for (let length = 0; length < text.length; length++) {
    for (const [key, name] of parsePciIds(text.slice(0, length))) {
      if (names.get(key) !== name) t.fail(`${key} is ${name} in ${length} characters`);
    }
  }
});

test('formats the IDs and the names that are known', (t) => {
  const idsText = newIdsText([PCI_IDS]);
  t.is(idsText(GPU), GPU_TEXT);
  t.is(idsText(ids(0x10de, 0x9999)), '10de:9999 NVIDIA Corporation');
  t.is(idsText(ids(0x10de, 'unknown')), '10de:???? NVIDIA Corporation');
  t.is(idsText(ids(0x15b3, 0x101e)), '15b3:101e ConnectX Family mlx5Gen Virtual Function, Mellanox Technologies');
  t.is(idsText(ids(1, 0x2330)), '0001:2330');
  t.is(idsText(ids('unknown', 'unknown')), '????:????');
});

test('formats the IDs alone without a file that can be read', (t) => {
  const folder = scratchFolder(t);
  const missing = join(folder, 'missing');
  const directory = join(folder, 'directory');
  const empty = join(folder, 'empty');
  mkdirSync(directory);
  writeFileSync(empty, '');
  t.is(newIdsText([])(GPU), '10de:2330');
  t.is(newIdsText([missing, join(empty, 'below'), directory, empty])(GPU), '10de:2330');
  t.is(newIdsText([missing, directory, empty, PCI_IDS])(GPU), GPU_TEXT, 'the first file with names');
});

test('reads the file at the first call, and once', (t) => {
  const file = join(scratchFolder(t), 'pci.ids');
  const idsText = newIdsText([file]);
  writeFileSync(file, text);
  t.is(idsText(GPU), GPU_TEXT);
  rmSync(file);
  t.is(idsText(GPU), GPU_TEXT);
  const other = newIdsText([file]);
  t.is(other(GPU), '10de:2330');
  writeFileSync(file, text);
  t.is(other(GPU), '10de:2330');
});
