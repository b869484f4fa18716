/**
 * Registers of the first instruction, and page tables. Processors execute them in `__test__/vfio/kvm`.
 */
import test from 'ava';
import { identityPageTables, longModeAt, protectedModeAt, realModeAt } from '../../ts/kvm.ts';
import { throwsCode } from '../support/errors.ts';

test('an address of real mode is an offset in the 64 KiB of its code segment', (t) => {
  const starts: readonly [bigint, bigint, bigint, number][] = [
    [0x1000n, 0x1000n, 0n, 0],
    [0xffffn, 0xffffn, 0n, 0],
    [0x1_2345n, 0x2345n, 0x1_0000n, 0x1000],
    [0xf_fff0n, 0xfff0n, 0xf_0000n, 0xf000],
  ];
  for (const [address, offset, base, selector] of starts) {
    const { rip, cs } = realModeAt(address);
    t.deepEqual([rip, cs], [offset, { base, limit: 0xffff, selector, rights: 0x9b }]);
  }
  throwsCode(t, () => realModeAt(0x10_0000n), 'ERR_OUT_OF_RANGE');
  throwsCode(t, () => realModeAt(-1n), 'ERR_INVALID_ARGUMENT');
});

test('protected and long mode have flat segments at the selectors of Linux', (t) => {
  const code = { base: 0n, limit: 0xffff_ffff, selector: 0x10, rights: 0xc09b };
  const data = { ...code, selector: 0x18, rights: 0xc093 };
  const { ds, cs, cr0, cr4, efer, ...others } = protectedModeAt(0xffff_fff0n);
  t.deepEqual({ cs, ds, cr0, cr4, efer }, { cs: code, ds: data, cr0: 0x11n, cr4: 0n, efer: 0n });
  t.deepEqual(others, { rip: 0xffff_fff0n, rflags: 2n, es: data, fs: data, gs: data, ss: data });
  const long = longModeAt(0xffff_ffff_8000_0000n, 0x3000n);
  t.deepEqual(long.cs, { ...code, rights: 0xa09b });
  t.deepEqual([long.rip, long.cr0, long.cr3, long.cr4], [0xffff_ffff_8000_0000n, 0x8000_0031n, 0x3000n, 0x20n]);
  throwsCode(t, () => protectedModeAt(1n << 32n), 'ERR_OUT_OF_RANGE');
  throwsCode(t, () => longModeAt(0n, 0x3001n), 'ERR_UNALIGNED');
  throwsCode(t, () => longModeAt(0n, 1n << 52n), 'ERR_OUT_OF_RANGE');
});

/** Translates a linear address by tables, as a processor does (Intel SDM volume 3, 4.5). */
function translate(tables: Uint8Array, at: bigint, linear: bigint): bigint | undefined {
  const view = new DataView(tables.buffer);
  let table = at;
  for (const shift of [39n, 30n, 21n]) {
    const entry = view.getBigUint64(Number(table - at + 8n * ((linear >> shift) & 0x1ffn)), true);
    if ((entry & 3n) !== 3n) return undefined;
    if ((entry & 0x80n) !== 0n) return (entry & ~0x1f_ffffn) + (linear & 0x1f_ffffn);
    table = entry & ~0xfffn;
  }
  return undefined;
}

test('page tables map the first 4 GiB to the same addresses, and nothing else', (t) => {
  const at = 0x3000n;
  const tables = identityPageTables(at);
  t.is(tables.length, 6 * 0x1000);
  for (const address of [0n, 0x1234n, 0x20_0000n, 0x3fff_ffffn, 0x4000_0000n, 0xc000_0010n, 0xffff_ffffn]) {
    t.is(translate(tables, at, address), address);
  }
  for (const address of [1n << 32n, 1n << 39n, 1n << 47n]) t.is(translate(tables, at, address), undefined);
  throwsCode(t, () => identityPageTables(0x3008n), 'ERR_UNALIGNED');
  throwsCode(t, () => identityPageTables((1n << 52n) - 0x5000n), 'ERR_OUT_OF_RANGE');
  t.is(identityPageTables((1n << 52n) - 0x6000n).length, 6 * 0x1000);
});
