/**
 * Figures of virtual machines in the testbed, compared with C and with QEMU.
 */
import { accessSync, constants } from 'node:fs';
import { runInChild } from './child.ts';
import { compile, compileFirmware } from './compile.ts';
import type { Figure } from './measure.ts';
import { withKvm } from './testbed.ts';

/** Linux needs a testbed with one processor (docs/decisions.md). */
const FOR_LINUX = ['--processors', '1'];

/** Measures on this machine, too, if this user has access to its KVM. */
export function portExits(): Figure[] {
  const args = [compileFirmware('port-exits'), compile('port-exits')];
  const here = hasKvm() ? [runInChild<Figure>('./port-exits.js', { args: ['here', ...args] })] : [];
  return [...here, ...withKvm('./port-exits.js', `testbed ${args.join(' ')}`)];
}

/** Measures a simulated device on this machine, too, if this user has access to its KVM. */
export function guestBarMoves(): Figure[] {
  const firmware = compileFirmware('bar-moves');
  const here = hasKvm() ? [runInChild<Figure>('./bar-moves-in-guest.js', { args: [firmware] })] : [];
  return [...here, ...withKvm('./bar-moves-in-guest.js', `${firmware} "$PEERDMA_TESTBED_IVSHMEM0"`)];
}

export function linuxBoot(): Figure[] {
  return withKvm('./linux-boot.js', '', ...FOR_LINUX);
}

export function nvmeExits(): Figure[] {
  return withKvm('./nvme-exits.js', '"$PEERDMA_TESTBED_NVME0"', ...FOR_LINUX);
}

function hasKvm(): boolean {
  try {
    accessSync('/dev/kvm', constants.R_OK | constants.W_OK);
    return true;
  } catch {
    return false;
  }
}
