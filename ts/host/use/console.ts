/**
 * Finds console uses of a function: display, keyboard, serial lines and graphics programs.
 */
import { printable } from '../../printable.ts';
import type { Machine } from '../machine.ts';
import type { PciFunction } from '../model.ts';
import { FrameBuffers } from '../system/frame-buffers.ts';
import { DEVICES } from '../sys-files.ts';
import { functionsInPath } from './device-path.ts';
import type { Use } from './model.ts';
import { usersOf } from './open-files.ts';

/** Finds the boot display and programs that have the graphics device open. @internal */
export function displayUses(machine: Machine, device: PciFunction): Use[] {
  const { address, driver } = device;
  const uses: Use[] = [];
  const frameBuffers = new FrameBuffers(machine.proc.text('iomem') ?? '').on(device);
  if (machine.sys.word(`${DEVICES}/${address}/boot_vga`) === '1') {
    uses.push({ kind: 'display', text: 'shows the console (it is the boot display)' });
  } else {
    const [held] = frameBuffers;
    if (held !== undefined) {
      uses.push({ kind: 'display', text: `shows the console (${held[1]} is on its BAR ${held[0]})` });
    }
  }
  const files = machine.sys.names(`${DEVICES}/${address}/drm`).map((name) => `/dev/dri/${name}`);
  const nvidia = driver === 'nvidia' ? nvidiaFile(machine, address) : undefined;
  const users = usersOf(machine.openFiles, nvidia === undefined ? files : [...files, nvidia]);
  if (users.length > 0) uses.push({ kind: 'program', text: `is open in ${users.join(', ')}` });
  return uses;
}

/**
 * Finds serial lines of a function that carry the kernel's console or that programs have open.
 *
 * /sys does not link a virtio console to its line, so all lines `hvcN` count as lines of all virtio consoles.
 *
 * @internal
 */
export function serialUses(machine: Machine, address: string): Use[] {
  const { sys, proc, openFiles } = machine;
  const isBelow = (path: string): boolean => functionsInPath(sys.link(path)).includes(address);
  const isVirtioConsole = sys
    .names('bus/virtio/devices')
    .map((name) => `bus/virtio/devices/${name}`)
    .some((path) => isBelow(path) && sys.linkName(`${path}/driver`) === 'virtio_console');
  // A line is `ttyS1 -W- (EC p a) 4:65` (Linux, fs/proc/consoles.c).
  const consoles = (proc.text('consoles') ?? '').split('\n').map((line) => line.split(/\s/, 1)[0] ?? '');
  const lines = sys
    .names('class/tty')
    .filter((name) => isBelow(`class/tty/${name}`) || (isVirtioConsole && /^hvc\d+$/.test(name)));
  return lines.flatMap((name): Use[] => {
    const text = printable(name);
    if (consoles.includes(name)) return [{ kind: 'console', text: `carries the kernel's console (${text})` }];
    const users = usersOf(openFiles, [`/dev/${name}`]);
    return users.length > 0 ? [{ kind: 'program', text: `has ${text}, which is open in ${users.join(', ')}` }] : [];
  });
}

/** Device file of NVIDIA's driver; while it is open, unbinding blocks in the kernel. */
function nvidiaFile({ proc }: Machine, address: string): string | undefined {
  const text = proc.text(`driver/nvidia/gpus/${address}/information`) ?? '';
  const minor = /^Device Minor:\s*(\d+)$/m.exec(text)?.[1];
  return minor === undefined ? undefined : `/dev/nvidia${minor}`;
}

/**
 * Finds keyboards below a function, such as a USB controller.
 *
 * Reads /proc/bus/input/devices (Linux, drivers/input/input.c: `input_devices_seq_show`). Other devices with the
 * handler `kbd` (buttons, remote controls) count as keyboards.
 *
 * @internal
 */
export function keyboardUses({ proc }: Machine, address: string): Use[] {
  const blocks = (proc.text('bus/input/devices') ?? '').split('\n\n');
  const names = blocks.flatMap((block) => {
    const [path, handlers = ''] = [/^S: Sysfs=(.*)$/m.exec(block)?.[1], /^H: Handlers=(.*)$/m.exec(block)?.[1]];
    if (!handlers.split(' ').includes('kbd') || !functionsInPath(path).includes(address)) return [];
    return [/^N: Name="(.*)"$/m.exec(block)?.[1] ?? 'without a name'];
  });
  return [...new Set(names)].map((name) => ({
    kind: 'keyboard',
    text: `has the keyboard ${printable(name)}`,
  }));
}
