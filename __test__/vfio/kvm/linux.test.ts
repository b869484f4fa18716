/**
 * Linux as the guest of the example VMM. It boots, and its programs use the devices.
 */
import test from 'ava';
import { testWith } from '../support/devices.ts';
import { FREE_RAM, runLinux, valueOf } from './support/linux.ts';

const VALUE = '0x1122334455667788';

test.serial('Linux boots to its first process with two processors, and powers off', async (t) => {
  const run = await runLinux(
    t,
    'echo "processors=$(grep -c ^processor /proc/cpuinfo)"; echo "up=$(cat /proc/uptime)"',
    '--cpus',
    '2',
  );
  t.is(valueOf(run, 'processors'), '2', `${run.console}\n${run.errors}`);
  t.regex(run.errors, /the guest stopped: shutdown/);
  t.is(run.status, 0);
});

/** Functions of the scripts: BARs, Command, and a copy by the edu through its buffer. */
const FUNCTIONS = `
bar() { sed -n "$(($2 + 1))p" /sys/bus/pci/devices/0000:00:$1.0/resource | cut -d ' ' -f 1; }
config() { dd of=/sys/bus/pci/devices/0000:00:$1.0/config bs=1 seek=$2 conv=notrunc 2>/dev/null; }
command() { printf "\\\\$2\\\\0" | config $1 4; }
byte() { printf "\\\\$(printf %o $((($1 >> $2) & 255)))"; }
register() { { byte $3 0; byte $3 8; byte $3 16; byte $3 24; } | config $1 $2; }
command 01 6; command 02 6
E=$(bar 01 0); S=$(bar 02 2); RAM=${FREE_RAM}
transfer() {
  devmem $((E + 0x80)) 64 $1; devmem $((E + 0x88)) 64 $2; devmem $((E + 0x90)) 64 8; devmem $((E + 0x98)) 64 $3
  while [ $(($(devmem $((E + 0x98)) 64) & 1)) = 1 ]; do :; done
}
copy() { transfer $1 0x40000 1; transfer 0x40000 $2 3; }
`;

const COPIES = `
devmem $RAM 64 ${VALUE}
copy $RAM $((RAM + 0x100)); echo "ram=$(devmem $((RAM + 0x100)) 64)"
copy $RAM $((S + 0x1000)); echo "bar=$(devmem $((S + 0x1000)) 64)"
command 02 0
register 02 24 $(((S + 0x10000000) & 0xffffffff)); register 02 28 $(((S + 0x10000000) >> 32))
command 02 6
copy $RAM $((S + 0x10002000)); echo "moved=$(devmem $((S + 0x10002000)) 64)"
copy $RAM $((S + 0x3000)); echo "old=$(devmem $((S + 0x10003000)) 64)"
`;

/** The pin of the edu, by the driver that gives it to programs. */
const INTERRUPT = `
echo 1234 11e8 >/sys/bus/pci/drivers/uio_pci_generic/new_id
exec 3<>/dev/uio0
devmem $((E + 0x60)) 32 1
sleep 1
echo "interrupts=$(grep uio_pci_generic /proc/interrupts | awk '{ print $2 }')"
devmem $((E + 0x64)) 32 1
`;

testWith(
  { edu: 1, ivshmem: 1 },
  'KVM: programs in Linux make assigned devices copy into RAM and into one another, and move a BAR',
  async (t, { edu: [edu = ''], ivshmem: [ivshmem = ''] }) => {
    const run = await runLinux(t, FUNCTIONS + COPIES + INTERRUPT, '--device', edu, '--device', ivshmem);
    const all = `${run.console}\n${run.errors}`;
    const expected = VALUE.toUpperCase().replace('0X', '0x');
    for (const name of ['ram', 'bar', 'moved']) t.is(valueOf(run, name), expected, `${name}: ${all}`);
    t.is(BigInt(valueOf(run, 'old') ?? -1), 0n, all);
    t.is(valueOf(run, 'interrupts'), '1', all);
    t.is(run.status, 0, all);
  },
);
