/**
 * The boot of Linux from the end of the firmware to the first process, compared with QEMU.
 *
 * `linux-boot.ts` prints a figure as JSON, and `linux-boot.ts INITRD` the seconds of one boot in a virtual machine.
 * `PEERDMA_TESTBED_IMAGE` names the kernel.
 */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { packInitramfs } from '../examples/vmm/testbed/initramfs.ts';
import { runInChild } from './child.ts';
import { COMMAND_LINE, MEMORY_MIB, runLinuxGuest } from './linux-guest.ts';
import { type Figure, median } from './measure.ts';
import { MACHINE, QEMU } from './qemu.ts';

const PAIRS = 3;
const GOAL = 1.05;
/** The last line of SeaBIOS before it starts the kernel's loader. */
const FIRMWARE_END = 'Booting from ROM';
/** Printed by the first process. */
const FIRST_PROCESS = /^up=([\d.]+) /m;

const kernel = process.env['PEERDMA_TESTBED_IMAGE'] ?? '';

/** The seconds of a boot. */
interface Boot {
  readonly elapsed: number;
  /** By the clock of the guest's kernel, which starts later. */
  readonly uptime: number;
}

/** Finds the times in a console. */
class BootClock {
  #text = '';
  #begin = Number.NaN;
  /** Once the first process has printed. */
  boot: Boot | undefined;

  start(): void {
    this.#begin = performance.now();
    this.#text = '';
  }

  print(text: string): void {
    this.#text += text;
    if (Number.isNaN(this.#begin) && this.#text.includes(FIRMWARE_END)) this.start();
    const [, uptime] = FIRST_PROCESS.exec(this.#text) ?? [];
    if (uptime === undefined || this.boot !== undefined) return;
    this.boot = { elapsed: (performance.now() - this.#begin) / 1000, uptime: Number(uptime) };
  }

  result(): Boot {
    if (this.boot !== undefined) return this.boot;
    throw new Error(`Linux has not started its first process:\n${this.#text}`);
  }
}

/** Without the time of this process to start. */
async function bootInTypeScript(initrd: string): Promise<Boot> {
  const clock = new BootClock();
  await runLinuxGuest({
    kernel: readFileSync(kernel),
    initrd: readFileSync(initrd),
    starts: () => clock.start(),
    printed: (text) => clock.print(text),
  });
  return clock.result();
}

/** Without the time of its firmware, whose messages are on the same stream as the console. */
async function bootInQemu(initrd: string): Promise<Boot> {
  const clock = new BootClock();
  const stream = ['-chardev', 'stdio,id=text,mux=on,signal=off', '-serial', 'chardev:text'];
  const firmware = ['-device', 'isa-debugcon,iobase=0x402,chardev=text'];
  const linux = ['-kernel', kernel, '-initrd', initrd, '-append', COMMAND_LINE, '-m', `${MEMORY_MIB}M`];
  const child = spawn(QEMU, [...MACHINE, ...stream, ...firmware, ...linux], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  child.stdout.on('data', (bytes: Buffer) => clock.print(bytes.toString('latin1')));
  await once(child, 'close');
  return clock.result();
}

async function linuxBoot(): Promise<Figure> {
  const initrd = join(mkdtempSync(join(tmpdir(), 'linux-')), 'initrd');
  writeFileSync(initrd, packInitramfs({ script: 'echo "up=$(cat /proc/uptime)"' }));
  const [typescript, qemu]: [Boot[], Boot[]] = [[], []];
  for (let pair = 0; pair < PAIRS; pair++) {
    qemu.push(await bootInQemu(initrd));
    typescript.push(runInChild('./linux-boot.js', { args: [initrd] }));
  }
  const [ours, theirs] = [typescript, qemu].map((boots) => ({
    elapsed: median(boots.map(({ elapsed }) => elapsed)),
    uptime: median(boots.map(({ uptime }) => uptime)),
  })) as [Boot, Boot];
  const ratio = ours.elapsed / theirs.elapsed;
  const text = ({ elapsed, uptime }: Boot): string => `${elapsed.toFixed(1)} (${uptime.toFixed(1)})`;
  return {
    name: 'boot of Linux from the end of the firmware to the first process (by its own clock). Against QEMU',
    measured: `${text(ours)} against ${text(theirs)} s: ${ratio.toFixed(2)}×`,
    goal: `≤ ${GOAL}×`,
    met: ratio <= GOAL,
  };
}

const [initrd] = process.argv.slice(2);
console.log(JSON.stringify(await (initrd === undefined ? linuxBoot() : bootInTypeScript(initrd))));
