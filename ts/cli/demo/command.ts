/**
 * `peerdma demo`: demonstrates the package in eight steps.
 */
import { Writable } from 'node:stream';
import { deviceArguments } from '../arguments.ts';
import { type Command, UsageError } from '../command.ts';
import type { Output } from '../output.ts';
import { runDemo } from './steps.ts';

export const demoCommand: Command = {
  usage: `peerdma demo [--device BDF --device BDF [--device BDF]]

Without --device the demo uses simulated IOMMUs and needs neither privileges nor hardware. With --device it uses devices
that are bound to vfio-pci. The first one does DMA and must be QEMU's edu (1234:11e8), for which the demo has a driver.
The second one must have a BAR that can be mapped. The third one, also an edu, joins late in a container of its own.
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

/** Returns a stream, which a `Console` needs, that writes to an output. */
function streamTo(output: Output): Writable {
  return new Writable({
    decodeStrings: false,
    write: (text: string, _encoding, done) => {
      output.document(text);
      done();
    },
  });
}
