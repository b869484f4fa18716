/**
 * `peerdma demo`: what the package does, in eight steps.
 */
import { Writable } from 'node:stream';
import { deviceArguments } from '../arguments.ts';
import { type Command, UsageError } from '../command.ts';
import type { Output } from '../output.ts';
import { runDemo } from './steps.ts';

export const demoCommand: Command = {
  summary: 'shows memory that IOMMUs follow, step by step, on simulated devices or real ones',
  usage: `peerdma demo [--device BDF --device BDF [--device BDF]]

Without --device: simulated IOMMUs, no privileges, no hardware. With it: devices that are bound to vfio-pci. The first
does DMA and has to be QEMU's edu (1234:11e8), for which the demo has a driver. The second has a BAR that can be
mapped. The third, an edu too, joins late in a container of its own.
`,
  options: { device: { type: 'string', multiple: true } },
  async run({ values, positionals }, terminal) {
    const named = (values['device'] ?? []) as readonly string[];
    if (positionals.length > 0) throw new UsageError(`takes no argument ${positionals[0]}; devices follow --device`);
    if (named.length === 1 || named.length > 3) throw new UsageError('takes no device, two or three');
    const devices = deviceArguments(named);
    if (devices.length < named.length) throw new UsageError('takes each device once');
    await runDemo(devices, streamTo(terminal.stdout));
    return 0;
  },
};

/** A stream for what prints to streams, such as a `Console`. */
function streamTo(output: Output): Writable {
  return new Writable({
    decodeStrings: false,
    write: (text: string, _encoding, done) => {
      output.document(text);
      done();
    },
  });
}
